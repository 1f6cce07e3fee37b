"""The listening sockets: opened once, kept over reloads, or inherited from systemd.

New connections wait in the backlog of the kernel. While the parent keeps a socket open, no connection is lost
between one generation of worker processes and the next.
"""

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kkdcpd.config import ANY_HOST, ListenAddress, ListenConfig
from kkdcpd.errors import ListenError
from kkdcpd.frozen import Word
from kkdcpd.protocol.ip_addresses import parse_address
from kkdcpd.socket_address import host_with_zone
from kkdcpd.supervisor.inet_sockets import limit_buffers, open_inet
from kkdcpd.supervisor.unix_sockets import UnixFile, open_unix

__all__ = ["SocketKind", "Sockets"]

_Key = tuple[ListenAddress, int]
"""An address, and the number of its earlier occurrences: the configuration may contain port 0 many times."""


@dataclass(slots=True)
class _OpenAddress:
    """The sockets of one address: two for `*`, and one for each other address. A UNIX socket has a file.

    `problem` says why a UNIX socket whose file is gone cannot be opened again.
    """

    sockets: list[socket.socket]
    file: UnixFile | None = None
    problem: str | None = None

    @property
    def is_reachable(self) -> bool:
        return self.file is None or self.file.is_there

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
        if self.file:
            self.file.remove()


class Sockets:
    """All listening sockets of the service. `inherited` are the sockets that systemd has opened.

    A reload calls `open` with the new configuration. When the reload has succeeded, `keep_only` closes the
    others; when it fails, `go_back` and then `keep_only` restore the sockets of the old configuration.
    """

    def __init__(self, inherited: Iterable[socket.socket] = ()) -> None:
        self._inherited = list(inherited)
        self._addresses: dict[_Key, _OpenAddress] = {}
        self._replaced: dict[_Key, _OpenAddress] = {}
        for sock in self._inherited:
            sock.settimeout(0.0)
            limit_buffers(sock)

    def open(self, listen: Sequence[ListenConfig]) -> list[list[socket.socket]]:
        """Return the sockets of each address. Sockets that are already open stay open.

        A UNIX socket whose file was removed or replaced is opened again. If this fails, the other addresses
        are still opened, and `unreachable` names the problem.

        Raises:
            ListenError: an address cannot be opened. Then nothing has changed.
        """
        fresh: dict[_Key, _OpenAddress] = {}
        try:
            for key, one in _keyed(listen).items():
                if key not in self._addresses:
                    fresh[key] = self._open_address(one, listen)
                elif opened := self._reopen(self._addresses[key], one, listen):
                    fresh[key] = opened
        except BaseException:
            for opened in fresh.values():
                opened.close()
            raise
        self._replaced = {key: self._addresses[key] for key in fresh.keys() & self._addresses.keys()}
        self._addresses |= fresh
        return [self._addresses[key].sockets for key in _keyed(listen)]

    def go_back(self) -> None:
        """Restore the sockets that the last `open` replaced. The serving worker processes still have them."""
        for key, opened in self._replaced.items():
            self._addresses[key].close()
            self._addresses[key] = opened
        self._replaced = {}

    def keep_only(self, listen: Sequence[ListenConfig]) -> None:
        """Close the sockets of all other addresses, and set the modes of UNIX sockets."""
        for opened in self._replaced.values():
            opened.close()
        self._replaced = {}
        wanted = _keyed(listen)
        for key in self._addresses.keys() - wanted.keys():
            opened = self._addresses.pop(key)
            if not any(sock in self._inherited for sock in opened.sockets):
                opened.close()
        for key, one in wanted.items():
            self._set_mode(key, one)

    def unclaimed(self) -> list[str]:
        """Return the addresses of inherited sockets without a [[listen]]. Their clients get no response."""
        claimed = {sock for opened in self._addresses.values() for sock in opened.sockets}
        return [str(_address_of(sock)) for sock in self._inherited if sock not in claimed]

    def unreachable(self) -> list[str]:
        """Return the problems of UNIX sockets whose files are gone and which could not be opened again."""
        return [opened.problem for opened in self._addresses.values() if opened.problem]

    def close(self) -> None:
        """Close all sockets. Remove the files of UNIX sockets, unless systemd opened them."""
        self.keep_only(())
        for sock in self._inherited:
            sock.close()

    def detach(self, kept: Iterable[socket.socket]) -> None:
        """Close in a forked process all sockets that this process does not serve.

        If a socket is open anywhere and no process accepts, its clients wait in vain.
        """
        serving = set(kept)
        for sock in self._all():
            if sock not in serving:
                sock.close()

    def _all(self) -> set[socket.socket]:
        open_addresses = (*self._addresses.values(), *self._replaced.values())
        return {sock for opened in open_addresses for sock in opened.sockets} | set(self._inherited)

    def _reopen(
        self, opened: _OpenAddress, listen: ListenConfig, listens: Sequence[ListenConfig]
    ) -> _OpenAddress | None:
        """Open a UNIX socket again if its file is gone."""
        opened.problem = None
        if opened.is_reachable:
            return None
        try:
            return self._open_address(listen, listens)
        except ListenError as error:
            opened.problem = str(error)
            return None

    def _open_address(self, listen: ListenConfig, listens: Sequence[ListenConfig]) -> _OpenAddress:
        address = listen.address
        given = [sock for sock in self._inherited if _matches(address, _address_of(sock))]
        if given:
            return _OpenAddress(given)
        try:
            return _OPENERS[_kind(address)](listen)
        except OSError as error:
            remedy = None if listen.section else self._remedy_by_systemd(listens)
            raise ListenError(address, error, listen.section, remedy) from error

    def _remedy_by_systemd(self, listens: Sequence[ListenConfig]) -> str | None:
        """Name the inherited sockets that no [[listen]] names. The administrator may mean one of them."""
        given = [_address_of(sock) for sock in self._inherited]
        free = [str(each) for each in given if not any(_matches(one.address, each) for one in listens)]
        if not free:
            return None
        return (
            f"systemd has opened {' and '.join(free)} for kkdcpd: write that as the address in [[listen]], "
            "or change ListenStream= in the .socket unit"
        )

    def _set_mode(self, key: _Key, listen: ListenConfig) -> None:
        file = self._addresses[key].file
        if file:
            file.set_mode(listen.unix_mode)


class SocketKind(Word):
    """Kinds of listening sockets: STREAM is TCP, UNIX is a stream socket with a path."""

    STREAM = "stream"
    UNIX = "unix"


def _kind(address: ListenAddress) -> SocketKind:
    return SocketKind.UNIX if address.unix_path else SocketKind.STREAM


def _open_stream(listen: ListenConfig) -> _OpenAddress:
    return _OpenAddress(open_inet(listen.address))


def _open_unix(listen: ListenConfig) -> _OpenAddress:
    assert listen.address.unix_path
    sock = open_unix(listen.address.unix_path, listen.unix_mode)
    return _OpenAddress([sock], UnixFile(listen.address.unix_path))


_OPENERS: Mapping[SocketKind, Callable[[ListenConfig], _OpenAddress]] = {
    SocketKind.STREAM: _open_stream,
    SocketKind.UNIX: _open_unix,
}
"""Each kind of sockets has its function that opens an address."""


def _keyed(listen: Sequence[ListenConfig]) -> Mapping[_Key, ListenConfig]:
    keyed: dict[_Key, ListenConfig] = {}
    for one in listen:
        times = sum(address == one.address for address, _ in keyed)
        keyed[one.address, times] = one
    return keyed


def _address_of(sock: socket.socket) -> ListenAddress:
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return ListenAddress(unix_path=Path(name))
    return ListenAddress(host=str(parse_address(host_with_zone(name))), port=name[1])


def _matches(wanted: ListenAddress, given: ListenAddress) -> bool:
    """Whether an inherited socket has the address of a [[listen]]. `*` means both families."""
    if wanted.host != ANY_HOST or wanted.unix_path or given.unix_path:
        return wanted == given
    return wanted.port == given.port and ip_address(given.host).is_unspecified
