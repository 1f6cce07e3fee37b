"""Wraps a connection's transport: sends in pieces, and limits the client's time to read."""

import asyncio
import select
import socket
import struct
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

__all__ = ["PIECE_BYTES", "RECEIVE_BYTES", "Owner", "Wire", "receive_buffer"]

PIECE_BYTES = 16384
"""The largest piece that is sent at a time: one TLS record (RFC 8446 5.1)."""

RECEIVE_BYTES = 65536
"""The largest piece that is received at a time."""

receive_buffer = memoryview(bytearray(RECEIVE_BYTES))
"""The buffer into which all connections receive. Each copies its bytes before another connection receives.

Without a buffer of ours, uvloop's TLS maps 256 KiB for each read, shrinks and unmaps them.
"""

REPLY_NOT_READ = "the client does not read its reply"

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""For SO_LINGER: the kernel drops what is not sent yet, and keeps no buffer for the client."""


class Owner(asyncio.BufferedProtocol, ABC):
    """The protocol that the transport belongs to."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer to receive into."""
        del sizehint
        return receive_buffer

    @abstractmethod
    def end(self) -> None:
        """Handle the beginning of the connection's end: the owner takes no more bytes in."""

    @abstractmethod
    def cut_off(self, reason: str) -> None:
        """Abort the connection, because the client has passed a limit or another one needs the room."""


T = TypeVar("T", bound=Owner)
NextOwner = TypeVar("NextOwner", bound=Owner)


class Wire(asyncio.Transport, Generic[T]):
    """The transport that aiohttp sees.

    TLS encrypts whatever is written at once, and its transport keeps it: a response of a megabyte takes two.
    So the wire writes the next piece only when the transport has sent the one before it. The owner calls
    `pause` and `resume` when its transport does; the client then has `write_timeout` seconds to read.
    """

    __slots__ = (
        "_deadline",
        "_end_deadline",
        "_is_closing",
        "_is_passed_on",
        "_pending",
        "_transport",
        "_write_timeout",
        "is_paused",
        "is_reading_paused",
        "owner",
    )

    def __init__(self, transport: asyncio.Transport, owner: T, write_timeout: float) -> None:
        super().__init__()
        self._transport = transport
        self._pending = bytearray()
        self._is_closing = False
        self._is_passed_on = False
        self._write_timeout = write_timeout
        self._deadline: asyncio.TimerHandle | None = None
        self._end_deadline: asyncio.TimerHandle | None = None
        self.owner = owner
        self.is_paused = False
        self.is_reading_paused = False

    # -- Sending ---------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes as soon as the client takes them."""
        if not self._pending and not self.is_paused and len(data) <= PIECE_BYTES:
            self._transport.write(data)
            return
        self._pending += data
        self._send_pending()

    def pause(self) -> bool:
        """Send no more until `resume`. Return whether the client's time to read begins now."""
        self.is_paused = True
        if self._deadline:
            return False
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._write_timeout, self.owner.cut_off, REPLY_NOT_READ)
        return True

    def resume(self) -> bool:
        """Go on, and return whether all is sent, which ends the client's time."""
        self.is_paused = False
        self._send_pending()
        if self.is_paused:
            return False
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
        return True

    def _send_pending(self) -> None:
        start = 0
        with memoryview(self._pending) as pending:
            while start < len(pending) and not self.is_paused:
                # A copy, because transports keep what is written.
                self._transport.write(bytes(pending[start : start + PIECE_BYTES]))
                start += PIECE_BYTES
        del self._pending[:start]
        if self._is_closing and not self._pending:
            self._transport.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how many unsent bytes pause the owner."""
        self._transport.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the process holds that are not sent yet."""
        return len(self._pending) + self._transport.get_write_buffer_size()

    # -- Receiving -------------------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Receive no more bytes."""
        self.is_reading_paused = True
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive bytes again."""
        if self.is_reading_paused:
            self.is_reading_paused = False
            self._transport.resume_reading()

    # -- The end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection when all is sent."""
        if self._is_closing:
            return
        self._is_closing = True
        self.owner.end()
        if not self._pending and not self._is_passed_on:
            self._transport.close()

    def close_within_write_timeout(self) -> None:
        """Abort the connection if the client does not read the rest in time."""
        self.close_within(self._write_timeout, REPLY_NOT_READ)

    def close_within(self, seconds: float, reason: str) -> None:
        """Abort the connection if it has not ended by itself after this time. The first call counts."""
        if not self._end_deadline:
            loop = asyncio.get_running_loop()
            self._end_deadline = loop.call_later(seconds, self.owner.cut_off, reason)

    def abort(self) -> None:
        """Drop everything that the process holds."""
        self._is_closing = True
        self._pending.clear()
        self._transport.abort()

    def reset(self) -> None:
        """Drop everything, and what the kernel holds too."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()

    def pass_on(self, owner: NextOwner) -> "Wire[NextOwner]":
        """Return the wire of the connection's next owner. This wire does nothing from now on."""
        self._is_closing = self._is_passed_on = True
        self.stop_deadlines()
        self._transport.set_protocol(owner)
        if self.is_reading_paused:
            self._transport.resume_reading()
        return Wire(self._transport, owner, self._write_timeout)

    def stop_deadlines(self) -> None:
        """Forget both deadlines, because the connection is lost."""
        for deadline in (self._deadline, self._end_deadline):
            if deadline:
                deadline.cancel()

    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._is_closing or self._transport.is_closing()

    def has_hung_up(self) -> bool:
        """Whether both directions of a unix socket are closed."""
        poll = select.poll()
        # POLLHUP is always reported.
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401, ARG002 - asyncio's
        """Return nothing: aiohttp would ask at each request, and set TCP_NODELAY, which uvloop has set."""
        return default
