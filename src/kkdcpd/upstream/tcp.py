"""One message over one fresh TCP connection (RFC 4120 7.2.2).

Connections are never kept for the next request: nothing in Kerberos ties a reply to a request, so a late one
would go to a stranger.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from functools import partial

from kkdcpd.protocol import framing
from kkdcpd.upstream.attempt import AttemptEvents, SourceAddresses, failure_of, open_socket, receive
from kkdcpd.upstream.readiness import READABLE, WRITABLE, Readiness
from kkdcpd.values import Attempt, FailureReason, ProxyRequest

__all__ = ["TcpAttempt"]


class TcpAttempt:
    """Connects, sends, and reads exactly the announced length. A `WayOut`."""

    def __init__(
        self,
        attempt: Attempt,
        events: AttemptEvents,
        *,
        readiness: Readiness,
        sources: SourceAddresses,
        max_reply_bytes: int,
    ) -> None:
        self._attempt = attempt
        self._events = events
        self._sources = sources
        self._max_reply_bytes = max_reply_bytes
        self._readiness = readiness
        self._socket: socket.socket | None = None
        self._unsent = memoryview(b"")
        self._received = bytearray()

    def start(self) -> None:
        """Begin to connect."""
        endpoint = self._attempt.endpoint
        try:
            self._socket = open_socket(endpoint, socket.SOCK_STREAM, self._sources)
            # The message is written whole, so there is nothing for Nagle's algorithm to wait for.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._socket.connect_ex((endpoint.address, endpoint.port))
        except OSError as error:
            self._fail(failure_of(error))
            return
        if code in (0, errno.EINPROGRESS):
            self._readiness.call_once(self._socket, WRITABLE, partial(self._guarded, self._finish_connect))
        else:
            self._fail(failure_of(_os_error(code)))

    def send(self, request: ProxyRequest) -> None:
        """Write the message and begin to read."""
        self._unsent = memoryview(request.kerb_message)
        self._guarded(self._write)
        if self._socket:
            self._wait(self._socket)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket:
            self._readiness.close_socket(self._socket)
            self._socket = None

    def _fail(self, reason: FailureReason) -> None:
        self.close()
        self._events.failed(self._attempt, reason)

    def _guarded(self, step: Callable[[socket.socket], None]) -> None:
        """Take a step that the socket is ready for; what the system says against it ends the attempt."""
        assert self._socket
        try:
            step(self._socket)
        except OSError as error:
            self._fail(failure_of(error))

    def _finish_connect(self, sock: socket.socket) -> None:
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise _os_error(code)
        self._events.connected(self._attempt)

    def _write(self, sock: socket.socket) -> None:
        # Whether nothing or a part was taken, the rest goes when there is room.
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[sock.send(self._unsent) :]

    def _wait(self, sock: socket.socket) -> None:
        events = READABLE | WRITABLE if self._unsent else READABLE
        self._readiness.call_once(sock, events, partial(self._guarded, self._go_on))

    def _go_on(self, sock: socket.socket) -> None:
        if self._unsent:
            self._write(sock)
        with contextlib.suppress(BlockingIOError):
            self._read(sock)
        if self._socket:
            self._wait(sock)

    def _read(self, sock: socket.socket) -> None:
        chunk = receive(sock)
        if not chunk:
            self._fail(FailureReason.CLOSED)
            return
        self._received += chunk
        if len(self._received) < framing.PREFIX_OCTETS:
            return
        length = framing.read_prefix(bytes(self._received[: framing.PREFIX_OCTETS]))
        # The high bit is reserved for extensions (RFC 4120 7.2.2), and makes the length too big as well.
        if length > self._max_reply_bytes:
            self._fail(FailureReason.REPLY_TOO_BIG)
        elif len(self._received) >= framing.PREFIX_OCTETS + length:
            payload = bytes(self._received[framing.PREFIX_OCTETS : framing.PREFIX_OCTETS + length])
            self.close()
            self._events.received(self._attempt, payload)


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
