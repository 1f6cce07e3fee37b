"""One message over one fresh TCP connection (RFC 4120 7.2.2).

Connections are never kept for the next request: nothing in Kerberos ties a reply to a request, so a late one
would go to a stranger.
"""

import errno
import os
import socket

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
            self._readiness.call_once(self._socket, WRITABLE, self._finish_connect)
        else:
            self._fail(failure_of(_os_error(code)))

    def send(self, request: ProxyRequest) -> None:
        """Write the message and begin to read."""
        self._unsent = memoryview(request.kerb_message)
        assert self._socket
        try:
            self._write(self._socket)
        except OSError as error:
            self._fail(failure_of(error))
        else:
            self._wait(self._socket)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket:
            self._readiness.close_socket(self._socket)
            self._socket = None

    def _fail(self, reason: FailureReason) -> None:
        self.close()
        self._events.failed(self._attempt, reason)

    def _finish_connect(self) -> None:
        assert self._socket
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(failure_of(_os_error(code)))
        else:
            self._events.connected(self._attempt)

    def _write(self, sock: socket.socket) -> None:
        try:
            sent = sock.send(self._unsent)
        except BlockingIOError:
            return
        # If only a part was taken, or nothing, the rest goes when there is room.
        self._unsent = self._unsent[sent:]

    def _wait(self, sock: socket.socket) -> None:
        events = READABLE | WRITABLE if self._unsent else READABLE
        self._readiness.call_once(sock, events, self._go_on)

    def _go_on(self) -> None:
        assert self._socket
        try:
            if self._unsent:
                self._write(self._socket)
            chunk = receive(self._socket)
        except BlockingIOError:
            self._wait(self._socket)
        except OSError as error:
            self._fail(failure_of(error))
        else:
            self._take(self._socket, chunk)

    def _take(self, sock: socket.socket, chunk: bytes) -> None:
        """Take in what came; nothing is the end of the connection."""
        if not chunk:
            self._fail(FailureReason.CLOSED)
            return
        self._received += chunk
        if len(self._received) < framing.PREFIX_OCTETS:
            self._wait(sock)
            return
        length = framing.read_prefix(bytes(self._received[: framing.PREFIX_OCTETS]))
        # The high bit is reserved for extensions (RFC 4120 7.2.2), and makes the length too big as well.
        if length > self._max_reply_bytes:
            self._fail(FailureReason.REPLY_TOO_BIG)
        elif len(self._received) < framing.PREFIX_OCTETS + length:
            self._wait(sock)
        else:
            payload = bytes(self._received[framing.PREFIX_OCTETS : framing.PREFIX_OCTETS + length])
            self.close()
            self._events.received(self._attempt, payload)


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
