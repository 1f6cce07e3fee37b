"""A TCP connection that may turn to TLS, driven by `Readiness` as the sockets of all ways out are.

The event loop's TLS has buffers of its own, so it does not report whether bytes of a message have left. Here
`bytes_sent` counts the bytes that the kernel has taken.
"""

import errno
import os
import socket
import ssl
from typing import Protocol

from kkdcpd.upstream.sockets import READABLE, WRITABLE, Readiness, receive

__all__ = ["Stream", "StreamEvents"]

RECORD_BYTES = 16384  # RFC 8446 5.1

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


class StreamEvents(Protocol):
    """The receiver of a stream's events. No event follows `ended` or a call of `close`."""

    def connected(self) -> None:
        """Take the news that TCP is connected."""

    def secured(self) -> None:
        """Take the news that the TLS handshake is complete."""

    def received(self, data: bytes) -> None:
        """Take received bytes; none if the peer sends no more."""

    def ended(self, error: OSError) -> None:
        """Take the news that the connection has failed. An ssl.SSLError is one of TLS."""


class Stream:
    """One connection. Bytes that are written before `secure` leave in clear."""

    def __init__(self, sock: socket.socket, readiness: Readiness, events: StreamEvents) -> None:
        self.bytes_sent = 0
        self.tls: ssl.SSLObject | None = None
        self._socket = sock
        self._readiness = readiness
        self._events = events
        self._is_open = True
        self._is_secure = False
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = memoryview(b"")

    def connect(self, address: SocketAddress) -> None:
        """Begin to connect. The event `connected` or `ended` follows, perhaps before the return."""
        try:
            # Each request is written whole: Nagle's algorithm has nothing to wait for.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = self._socket.connect_ex(address)
        except OSError as error:
            self._end(error)
            return
        if code in (0, errno.EINPROGRESS):
            self._readiness.call_once(self._socket, WRITABLE, self._finish_connect)
        else:
            self._end(OSError(code, os.strerror(code)))

    def secure(
        self, context: ssl.SSLContext, server_name: str, session: ssl.SSLSession | None = None
    ) -> None:
        """Begin the TLS handshake. The event `secured` or `ended` follows."""
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name, session=session
        )
        self._proceed()

    def write(self, data: bytes) -> None:
        """Send data, encrypted once the connection is secure. A part that the kernel refuses leaves later."""
        try:
            if self.tls:
                self.tls.write(data)
                self._flush()
            else:
                self._send(data)
        except OSError as error:
            self._end(error)
        else:
            self._wait()

    def poll(self) -> None:
        """Take what has arrived on an idle connection. Its events come before the return."""
        if self._is_open:
            self._on_ready()

    def close(self) -> None:
        """Close the connection without close_notify. Idempotent."""
        if self._is_open:
            self._is_open = False
            self._readiness.close_socket(self._socket)

    def _end(self, error: OSError) -> None:
        if self._is_open:
            self.close()
            self._events.ended(error)

    def _finish_connect(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._end(OSError(code, os.strerror(code)))
        else:
            self._events.connected()

    def _on_ready(self) -> None:
        try:
            if self._unsent or self._outgoing.pending:
                self._flush()
            data = receive(self._socket)
        except BlockingIOError:
            self._wait()
        except OSError as error:
            self._end(error)
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        """Pass on received bytes, of TLS when they are decrypted. No bytes are the end of the connection."""
        if self.tls is None:
            if data:
                self._wait()
            self._events.received(data)
            return
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self._proceed()

    def _proceed(self) -> None:
        """Continue the handshake, or else decrypt."""
        assert self.tls
        try:
            if not self._is_secure:
                self.tls.do_handshake()
                self._is_secure = True
                self._flush()
                self._events.secured()
            # The receiver of an event may have closed the connection.
            while self._is_open and self._decrypt(self.tls):
                pass
        except ssl.SSLWantReadError:
            self._flush_and_wait()
        except OSError as error:
            self._send_alert()
            self._end(error)

    def _decrypt(self, tls: ssl.SSLObject) -> bool:
        """Pass on the bytes of one record; return whether there may be more."""
        try:
            data = tls.read(RECORD_BYTES)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            data = b""
        self._events.received(data)
        return bool(data)

    def _flush_and_wait(self) -> None:
        try:
            self._flush()
        except OSError as error:
            self._end(error)
        else:
            self._wait()

    def _send_alert(self) -> None:
        """Send the alert that OpenSSL has written, so that the server's log has the reason of the failure."""
        try:
            self._flush()
        except OSError:
            return

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._send(self._outgoing.read())
        elif self._unsent:
            self._send(b"")

    def _send(self, data: bytes) -> None:
        unsent = memoryview(bytes(self._unsent) + data) if self._unsent else memoryview(data)
        try:
            sent = self._socket.send(unsent)
        except BlockingIOError:
            sent = 0
        self.bytes_sent += sent
        self._unsent = unsent[sent:]

    def _wait(self) -> None:
        if self._is_open:
            events = READABLE | WRITABLE if self._unsent else READABLE
            self._readiness.call_once(self._socket, events, self._on_ready)
