"""Sends one message over one TCP connection of its own (RFC 4120 7.2.2).

A connection never serves a second request: no unencrypted field connects a reply with its request, so a late
reply would reach another client. A connection ends by RST, so that its local port is free at once. Ports
that stay in TIME_WAIT for a minute run out at some hundred requests per second.
"""

import errno
import os
import socket
import struct

from kkdcpd.protocol import framing
from kkdcpd.socket_address import socket_address
from kkdcpd.upstream.sockets import (
    READABLE,
    WRITABLE,
    AttemptEvents,
    Readiness,
    SourceAddresses,
    failure_of,
    log_local_error,
    open_socket,
    receive,
)
from kkdcpd.values import Attempt, FailureReason, ProxyRequest

__all__ = ["TcpAttempt"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER of socket(7): on, for no time


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
            # The message is written whole: Nagle's algorithm has nothing to wait for.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._socket.connect_ex(socket_address(endpoint.address, endpoint.port))
        except OSError as error:
            self._fail(error)
            return
        if code in (0, errno.EINPROGRESS):
            self._readiness.call_once(self._socket, WRITABLE, self._finish_connect)
        else:
            self._fail(_os_error(code))

    def send(self, request: ProxyRequest) -> None:
        """Write the message and begin to read."""
        self._unsent = memoryview(request.kerb_message)
        assert self._socket
        try:
            self._write(self._socket)
        except OSError as error:
            self._fail(error)
        else:
            self._wait(self._socket)

    def close(self) -> None:
        """Close the connection, if there is one: no reply over it is wanted any more."""
        if self._socket:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._readiness.close_socket(self._socket)
            self._socket = None

    def _fail(self, error: OSError) -> None:
        reason = failure_of(error)
        if reason is FailureReason.LOCAL_ERROR:
            log_local_error(self._attempt.endpoint, error, self._sources)
        self._end(reason)

    def _end(self, reason: FailureReason) -> None:
        self.close()
        self._events.failed(self._attempt, reason)

    def _finish_connect(self) -> None:
        assert self._socket
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(_os_error(code))
        else:
            self._events.connected(self._attempt)

    def _write(self, sock: socket.socket) -> None:
        try:
            sent = sock.send(self._unsent)
        except BlockingIOError:
            return
        # If the kernel took only a part, or nothing, the rest is sent when there is room.
        self._unsent = self._unsent[sent:]

    def _wait(self, sock: socket.socket) -> None:
        events = READABLE | WRITABLE if self._unsent else READABLE
        self._readiness.call_once(sock, events, self._continue)

    def _continue(self) -> None:
        assert self._socket
        try:
            if self._unsent:
                self._write(self._socket)
            chunk = receive(self._socket)
        except BlockingIOError:
            self._wait(self._socket)
        except OSError as error:
            self._fail(error)
        else:
            self._take(self._socket, chunk)

    def _take(self, sock: socket.socket, chunk: bytes) -> None:
        """Add the received bytes to the reply. No bytes are the end of the connection."""
        if not chunk:
            self._end(FailureReason.CLOSED)
            return
        self._received += chunk
        if len(self._received) < framing.PREFIX_BYTES:
            self._wait(sock)
            return
        length = framing.read_prefix(bytes(self._received[: framing.PREFIX_BYTES]))
        # The high bit is reserved for extensions (RFC 4120 7.2.2), and makes the length too big as well.
        if length > self._max_reply_bytes:
            self._end(FailureReason.REPLY_TOO_BIG)
        elif len(self._received) < framing.PREFIX_BYTES + length:
            self._wait(sock)
        else:
            payload = bytes(self._received[framing.PREFIX_BYTES : framing.PREFIX_BYTES + length])
            self.close()
            self._events.received(self._attempt, payload)


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
