"""Sends and receives whole binary messages over an open WebSocket (RFC 6455), for both of its ends.

The library `websockets` reads and writes frames. This module joins the fragments of a message, sends pings,
and closes the connection: in order, or after a time when the peer is silent.
"""

import asyncio
from typing import Protocol as TypingProtocol

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, State

__all__ = ["CloseCode", "MessageHandler", "WebSocket"]

HEARTBEAT_SECONDS = 25.0
"""The interval of pings. Proxies close a connection that is idle for 60 s. A peer from which nothing came for
two intervals is gone."""

CLOSE_SECONDS = 2.0
"""How long the peer may take to answer a close frame."""

MAX_UNSENT_BYTES = 4 * 1024 * 1024
"""The bytes that may wait for a peer that does not read."""


class MessageHandler(TypingProtocol):
    """The user of a WebSocket."""

    def message_received(self, message: bytes) -> None:
        """Take a message."""

    def heartbeat(self) -> None:
        """Note that one interval of heartbeats has passed."""


class WebSocket:
    """An open WebSocket on a transport. `protocol` is in the state OPEN. Make it in a running event loop.

    Call `receive` with each piece of data, `receive_eof` at its end, and `stop` when the connection is lost.
    """

    def __init__(self, protocol: Protocol, transport: asyncio.Transport, handler: MessageHandler) -> None:
        self._protocol = protocol
        self._transport = transport
        self._handler = handler
        self._loop = asyncio.get_running_loop()
        self._fragments = bytearray()
        self._is_peer_alive = True
        self._has_closed = False
        self._is_closing = False
        self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self._protocol.state is State.OPEN

    def receive(self, data: bytes) -> None:
        """Take data in, and give each whole message to the handler."""
        self._is_peer_alive = True
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            # The peer's close frame may follow in the same data. The messages before it count.
            if isinstance(event, Frame) and not self._has_closed:
                self._take(event)
        self._flush()

    def receive_eof(self) -> None:
        """Take the end of the peer's data in."""
        self._protocol.receive_eof()
        self._flush()

    def send(self, message: bytes) -> None:
        """Send a message. A peer that does not read loses its connection."""
        if not self.is_open:
            return
        self._protocol.send_binary(message)
        self._flush()
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._transport.abort()

    def ping(self) -> None:
        """Let the peer show that it is there: it answers with a pong."""
        if self.is_open:
            self._protocol.send_ping(b"")
            self._flush()

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Close the connection in order: the peer has a moment to answer."""
        if self.is_open:
            self._has_closed = True
            self._protocol.send_close(code, reason)
            self._flush()

    def stop(self) -> None:
        """Forget the timer: the connection is lost."""
        self._timer.cancel()

    def _take(self, frame: Frame) -> None:
        match frame.opcode:
            case Opcode.TEXT:
                self.close(CloseCode.UNSUPPORTED_DATA, "binary messages only")
            case Opcode.BINARY | Opcode.CONT:
                self._fragments += frame.data
                if frame.fin:
                    message = bytes(self._fragments)
                    self._fragments.clear()
                    self._handler.message_received(message)

    def _beat(self) -> None:
        if not self._is_peer_alive:
            self._transport.abort()
            return
        self._is_peer_alive = False
        self._timer = self._loop.call_later(HEARTBEAT_SECONDS, self._beat)
        self.ping()
        self._handler.heartbeat()

    def _flush(self) -> None:
        """Write, and see that the connection ends if the protocol has ended."""
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._protocol.close_rcvd:  # both sides have ended
                self._transport.close()
        # A peer that breaks the protocol may still be sending: a close at once would be a reset, and the peer
        # would not read the reason.
        if self._protocol.close_expected() and not self._is_closing:
            self._is_closing = True
            self._timer.cancel()
            self._timer = self._loop.call_later(CLOSE_SECONDS, self._transport.abort)
