"""Accepts connections on one listening socket."""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable

from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger

__all__ = ["Entrance", "Listener"]

logger = EventLogger(__name__)

ACCEPT_RETRY_SECONDS = 0.5
"""The pause after a failed accept. File descriptors or memory are short, and only time brings them back."""

MOST_WAITING = 1024
"""The connections that the kernel's backlog holds, and some that come while it is emptied."""

_FAILED_BEFORE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR}
"""Accept fails with these errors for one connection only."""


@frozen
class Listener:
    """A non-blocking listening socket, and its TLS, if there is any. `url` is for the log.

    With `proxy_protocol`, only trusted proxies may connect, and each connection begins with a PROXY header.
    """

    socket: socket.socket
    url: str
    tls_context: ssl.SSLContext | None = None
    proxy_protocol: bool = False


class Entrance:
    """Accepts on one listener, one connection at a time, because another worker process may be idle.

    Nothing awaits an accept: a cancelled accept may lose the connection that it has accepted.
    """

    def __init__(
        self, listener: Listener, receive: Callable[[socket.socket, object, Listener], None]
    ) -> None:
        self._listener = listener
        self._receive = receive
        self._has_failed = False
        self._pause_timer: asyncio.TimerHandle | None = None
        self._open()

    async def accept_rest(self) -> None:
        """Accept the connections in the backlog. The kernel resets them when the socket is closed.

        New connections may come without end, so the number is limited.
        """
        with contextlib.suppress(OSError):
            for _ in range(MOST_WAITING):
                self._pass_on(*self._listener.socket.accept())
                # Closed connections leave before the next one enters.
                await asyncio.sleep(0)

    def close(self) -> None:
        """Accept no more, and close the listener."""
        if self._pause_timer:
            self._pause_timer.cancel()
        asyncio.get_running_loop().remove_reader(self._listener.socket)
        self._listener.socket.close()

    def _open(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener.socket, self._accept)

    def _accept(self) -> None:
        try:
            sock, peer = self._listener.socket.accept()
        except BlockingIOError:
            return  # Another worker process has accepted it.
        except OSError as error:
            if error.errno not in _FAILED_BEFORE:
                self._pause_after(error)
            return
        if self._has_failed:
            _log_accept_recovered(self._listener)
            self._has_failed = False
        self._pass_on(sock, peer)

    def _pass_on(self, sock: socket.socket, peer: object) -> None:
        sock.settimeout(0.0)
        self._receive(sock, peer, self._listener)

    def _pause_after(self, error: OSError) -> None:
        if not self._has_failed:
            _log_accept_failed(self._listener, error)
            self._has_failed = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.socket)
        self._pause_timer = loop.call_later(ACCEPT_RETRY_SECONDS, self._open)


def _log_accept_failed(listener: Listener, error: OSError) -> None:
    logger.warning("accept_failed", sum_by=("accept", listener.url), listen=listener.url, reason=str(error))


def _log_accept_recovered(listener: Listener) -> None:
    # The same key as for the failure, so that the log ends with the present state.
    logger.info("accept_recovered", sum_by=("accept", listener.url), listen=listener.url)
