"""The control socket: `kkdcpd reload` requests a reload through it, and receives the outcome.

A request is one line. The response is one line of JSON. The mode of the socket file admits only the user of
kkdcpd and root.
"""

import contextlib
import errno
import json
import selectors
import socket
from collections.abc import Callable
from pathlib import Path

from kkdcpd.errors import ConfigProblem, unix_remedy
from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger
from kkdcpd.supervisor.unix_sockets import UnixFile, open_unix

__all__ = ["Control", "ControlSocket", "ReloadClient", "ReloadOutcome", "request_reload"]

logger = EventLogger(__name__)

RELOAD = b"reload\n"

MODE = 0o600

MAX_CLIENTS = 8
"""Clients that may be connected without having sent a request. A further client replaces the oldest."""

MAX_RESPONSE_BYTES = 1048576


@frozen
class ReloadOutcome:
    """The outcome of a reload: the generation that serves now, and the problems of a failed reload."""

    is_done: bool
    generation: int
    problems: tuple[ConfigProblem, ...] = ()


class ReloadClient:
    """A connection whose client waits for the outcome of a reload."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(0.0)

    def answer(self, outcome: ReloadOutcome) -> None:
        """Send the outcome, and close the connection. The client may have left."""
        with contextlib.suppress(OSError):
            self.socket.send(_encode(outcome))
        self.socket.close()


class ControlSocket:
    """An open control socket. It calls `reload` with each client that requests a reload."""

    def __init__(
        self, path: Path, selector: selectors.BaseSelector, reload: Callable[[ReloadClient], None]
    ) -> None:
        """Listen.

        Raises:
            OSError: the socket cannot be opened.
        """
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._socket = open_unix(path, MODE)
        self._file = UnixFile(path)
        self._selector = selector
        self._reload = reload
        self._clients: list[ReloadClient] = []
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    @property
    def is_reachable(self) -> bool:
        """Whether the file of the socket still exists."""
        return self._file.is_there

    def close(self) -> None:
        """Stop listening. Clients whose request was received still get the outcome."""
        for client in self._clients:
            self._selector.unregister(client.socket)
            client.socket.close()
        self._clients.clear()
        self._selector.unregister(self._socket)
        self._socket.close()
        self._file.remove()

    def detach(self) -> None:
        """Close the descriptors in a forked process."""
        for client in self._clients:
            client.socket.close()
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            client = ReloadClient(self._socket.accept()[0])
            self._clients.append(client)
            self._selector.register(client.socket, selectors.EVENT_READ, lambda: self._receive(client))
        if len(self._clients) > MAX_CLIENTS:
            self._forget(self._clients[0]).socket.close()

    def _receive(self, client: ReloadClient) -> None:
        try:
            request = client.socket.recv(len(RELOAD))
        except OSError:
            request = b""
        self._forget(client)
        if request == RELOAD:
            self._reload(client)
        else:
            client.socket.close()

    def _forget(self, client: ReloadClient) -> ReloadClient:
        self._clients.remove(client)
        self._selector.unregister(client.socket)
        return client


class Control:
    """Keeps the control socket open at the path that the configuration names."""

    def __init__(self, selector: selectors.BaseSelector, reload: Callable[[ReloadClient], None]) -> None:
        self._selector = selector
        self._reload = reload
        self._path: Path | None = None
        self._socket: ControlSocket | None = None

    def listen(self, path: Path | None) -> None:
        """Listen at the path and nowhere else. A socket whose file is gone is opened again."""
        if path == self._path and (self._socket is None or self._socket.is_reachable):
            return
        self.close()
        self._path = path
        if path is None:
            return
        try:
            self._socket = ControlSocket(path, self._selector, self._reload)
        except OSError as error:
            logger.warning(
                "config_warning",
                key="process.control",
                problem=f"{path} can't be listened on: {error.strerror or error}",
                remedy=f"{unix_remedy(error)}; until then only SIGHUP reloads the configuration",
            )

    def close(self) -> None:
        """Stop listening."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def detach(self) -> None:
        """Close the descriptors in a forked process."""
        if self._socket:
            self._socket.detach()


def request_reload(path: Path, *, timeout: float) -> ReloadOutcome:
    """Request a reload from the kkdcpd that listens at the path, and wait for the outcome.

    Raises:
        OSError: no process listens there, or it does not respond.
    """
    response = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect(str(path))
        sock.sendall(RELOAD)
        while not response.endswith(b"\n") and len(response) < MAX_RESPONSE_BYTES:
            data = sock.recv(65536)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "it closed the connection")
            response += data
    return _decode(response)


def _encode(outcome: ReloadOutcome) -> bytes:
    # A problem may be of a subclass with more fields, which only the parent process uses.
    problems = [[each.key, each.problem, each.remedy] for each in outcome.problems]
    fields = {"is_done": outcome.is_done, "generation": outcome.generation, "problems": problems}
    return json.dumps(fields).encode() + b"\n"


def _decode(response: bytes) -> ReloadOutcome:
    fields = json.loads(response)
    problems = tuple(
        ConfigProblem(key=key, problem=problem, remedy=remedy) for key, problem, remedy in fields["problems"]
    )
    return ReloadOutcome(is_done=fields["is_done"], generation=fields["generation"], problems=problems)
