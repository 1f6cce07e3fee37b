"""The listening sockets: opened once, kept over reloads, or taken from systemd.

New connections wait in the kernel's queue of a socket, not in one of ours: so as long as a socket is open in
the parent, none is lost between one generation of workers and the next.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kkdcpd.config import ANY_HOST, ListenAddress, ListenConfig
from kkdcpd.errors import ListenError
from kkdcpd.protocol.ip_addresses import parse_address
from kkdcpd.socket_address import host_with_zone, socket_address

__all__ = ["SOCKET_BUFFER_BYTES", "Sockets", "UnixFile", "open_unix"]

BACKLOG = 1024
"""Connections that wait to be accepted; the kernel lowers it to net.core.somaxconn."""

SOCKET_BUFFER_BYTES = 32768
"""What the kernel may hold of one connection, either way (it reserves twice that).

Its own measure is megabytes, which strangers could fill; messages of Kerberos are some KiB.
"""

_Key = tuple[ListenAddress, int]
"""An address, and how often it stood in the configuration before: port 0 may stand there many times."""


class UnixFile:
    """The file of a unix socket that we listen on, as long as it is ours: a successor may put its own there.

    Whatever has become of it or of its folder meanwhile is nothing that we would have to end for.
    """

    def __init__(self, path: Path) -> None:
        """Take the file that is there.

        Raises:
            OSError: there is none.
        """
        self._path = path
        self._identity = _identity(path)

    @property
    def is_there(self) -> bool:
        """Whether it is still at its path. Without it, no client can connect."""
        with contextlib.suppress(OSError):
            return _identity(self._path) == self._identity
        return False

    def set_mode(self, mode: int) -> None:
        """Give it another mode."""
        with contextlib.suppress(OSError):
            if self.is_there:
                self._path.chmod(mode)

    def remove(self) -> None:
        """Remove it."""
        with contextlib.suppress(OSError):
            if self.is_there:
                self._path.unlink()


@dataclass(slots=True)
class _Place:
    """What one [[listen]] has: two sockets for `*`, one for every other address; and a file that is ours.

    `problem` says why a unix socket whose file is gone can't be opened anew.
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
    """All listening sockets of the process. `inherited` are those that systemd has opened for us.

    A reload calls `open` with the new configuration. When the reload has succeeded, `keep_only` closes the
    others; when it fails, `go_back` and then `keep_only` restore the sockets of the old configuration.
    """

    def __init__(self, inherited: Iterable[socket.socket] = ()) -> None:
        self._inherited = list(inherited)
        self._places: dict[_Key, _Place] = {}
        self._replaced: dict[_Key, _Place] = {}
        for sock in self._inherited:
            sock.settimeout(0.0)
            _bound_buffers(sock)

    def open(self, listen: Sequence[ListenConfig]) -> list[list[socket.socket]]:
        """Return the sockets of each [[listen]]; those that are open already stay as they are.

        A unix socket whose file was removed or replaced meanwhile is opened anew. If it can't be, the others
        are opened nevertheless, and `unreachable` names it.

        Raises:
            ListenError: an address can't be listened on; then nothing has changed.
        """
        fresh: dict[_Key, _Place] = {}
        try:
            for key, one in _keyed(listen).items():
                if key not in self._places:
                    fresh[key] = self._open_place(one, listen)
                elif place := self._reopened(self._places[key], one, listen):
                    fresh[key] = place
        except BaseException:
            for place in fresh.values():
                place.close()
            raise
        self._replaced = {key: self._places[key] for key in fresh.keys() & self._places.keys()}
        self._places |= fresh
        return [self._places[key].sockets for key in _keyed(listen)]

    def go_back(self) -> None:
        """Restore the sockets that the last `open` replaced: the workers that serve still have them."""
        for key, place in self._replaced.items():
            self._places[key].close()
            self._places[key] = place
        self._replaced = {}

    def keep_only(self, listen: Sequence[ListenConfig]) -> None:
        """Close what the configuration no longer names, and give unix sockets the modes that it names."""
        for place in self._replaced.values():
            place.close()
        self._replaced = {}
        wanted = _keyed(listen)
        for key in self._places.keys() - wanted.keys():
            place = self._places.pop(key)
            if not any(sock in self._inherited for sock in place.sockets):
                place.close()
        for key, one in wanted.items():
            self._set_mode(key, one)

    def unclaimed(self) -> list[str]:
        """Return the addresses of systemd's sockets that no [[listen]] names: clients wait there in vain."""
        claimed = {sock for place in self._places.values() for sock in place.sockets}
        return [str(_address_of(sock)) for sock in self._inherited if sock not in claimed]

    def unreachable(self) -> list[str]:
        """Return the problems of unix sockets whose files are gone, and which could not be opened anew."""
        return [place.problem for place in self._places.values() if place.problem]

    def close(self) -> None:
        """Close all. The files of unix sockets go with them, unless they are systemd's."""
        self.keep_only(())
        for sock in self._inherited:
            sock.close()

    def detach(self, kept: Iterable[socket.socket]) -> None:
        """Close in a process that was forked all but the sockets that it serves, and nothing else.

        A socket that nobody accepts on, and that is yet open somewhere, has clients wait for nothing.
        """
        serving = set(kept)
        for sock in self._all():
            if sock not in serving:
                sock.close()

    def _all(self) -> set[socket.socket]:
        places = (*self._places.values(), *self._replaced.values())
        return {sock for place in places for sock in place.sockets} | set(self._inherited)

    def _reopened(
        self, place: _Place, listen: ListenConfig, listens: Sequence[ListenConfig]
    ) -> _Place | None:
        """Open another socket in place of one whose file is gone, if that can be."""
        place.problem = None
        if place.is_reachable:
            return None
        try:
            return self._open_place(listen, listens)
        except ListenError as error:
            place.problem = str(error)
            return None

    def _open_place(self, listen: ListenConfig, listens: Sequence[ListenConfig]) -> _Place:
        address = listen.address
        given = [sock for sock in self._inherited if _is_meant(address, _address_of(sock))]
        if given:
            return _Place(given)
        try:
            if address.unix_path:
                sock = open_unix(address.unix_path, listen.unix_mode)
                return _Place([sock], UnixFile(address.unix_path))
            return _Place(_open_inet(address))
        except OSError as error:
            remedy = None if listen.section else self._remedy_by_systemd(listens)
            raise ListenError(address, error, listen.section, remedy) from error

    def _remedy_by_systemd(self, listens: Sequence[ListenConfig]) -> str | None:
        """Name the sockets of systemd's that no [[listen]] is for: one of them may be meant."""
        given = [_address_of(sock) for sock in self._inherited]
        free = [str(each) for each in given if not any(_is_meant(one.address, each) for one in listens)]
        if not free:
            return None
        return (
            f"systemd has opened {' and '.join(free)} for kkdcpd: write that as the address in [[listen]], "
            "or change ListenStream= in the .socket unit"
        )

    def _set_mode(self, key: _Key, listen: ListenConfig) -> None:
        file = self._places[key].file
        if file:
            file.set_mode(listen.unix_mode)


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


def _is_meant(wanted: ListenAddress, given: ListenAddress) -> bool:
    """Whether a socket of systemd's is one that a [[listen]] names; `*` means both families'."""
    if wanted.host != ANY_HOST or wanted.unix_path or given.unix_path:
        return wanted == given
    return wanted.port == given.port and ip_address(given.host).is_unspecified


def _open_inet(address: ListenAddress) -> list[socket.socket]:
    """Each family has a socket of its own, so that no IPv4 client ever shows as ::ffff:192.0.2.1."""
    if address.host != ANY_HOST:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return [_bind(family, address.host, address.port)]
    first = _bind(socket.AF_INET, "0.0.0.0", address.port)  # noqa: S104 - asked for by `*`
    if not _has_ipv6():
        return [first]
    try:
        return [first, _bind(socket.AF_INET6, "::", first.getsockname()[1])]
    except OSError:
        first.close()
        raise


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all: without it, `*` means IPv4."""
    return socket.has_ipv6 and Path("/proc/net/if_inet6").exists()


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bound_buffers(sock)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(socket_address(host, port))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _bound_buffers(sock: socket.socket) -> None:
    """Set what connections inherit."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER_BYTES)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)


def open_unix(path: Path, mode: int) -> socket.socket:
    """Listen on a unix socket with this file mode; a socket that a killed process left there is replaced.

    Raises:
        OSError: it can't be had.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Between bind and chmod nobody but us may connect.
        umask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        path.chmod(mode)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove a socket file that a killed process left; one that is listened on stays, and bind fails.

    Raises:
        FileExistsError: another kind of file is there.
    """
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            return  # somebody listens, whose queue is full


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one at its place; an inode's number alone may be used again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
