"""Writes responses in pieces, no sooner than the client takes them."""

import asyncio
import select
import socket
import struct
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["PIECE_BYTES", "Outgoing", "Owner"]

PIECE_BYTES = 16384
"""The most that is written at a time: a record of TLS (RFC 8446 5.1)."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""For SO_LINGER: what is not sent yet is dropped, so that the kernel holds no buffer for a client of ours."""


class Owner(Protocol):
    """The connection that the transport belongs to."""

    def end(self) -> None:
        """Note that the connection is being closed."""


T = TypeVar("T", bound=Owner)


class Outgoing(asyncio.Transport, Generic[T]):
    """The transport that aiohttp sees: it hands on what is written in pieces, no sooner than they are taken.

    TLS would encrypt a response whole, let its transport keep it, and not tell that the client does not read.
    """

    __slots__ = ("_is_closing", "_pending", "_wire", "is_paused", "is_reading_paused", "owner")

    def __init__(self, wire: asyncio.Transport, owner: T) -> None:
        super().__init__()
        self._wire = wire
        self._pending = bytearray()
        self._is_closing = False
        self.owner = owner
        self.is_paused = False
        self.is_reading_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes when they can be sent."""
        if not self._pending and not self.is_paused and len(data) <= PIECE_BYTES:
            self._wire.write(data)
            return
        self._pending += data
        self.go_on()

    def go_on(self) -> None:
        """Hand on what waits, as far as it is taken."""
        start = 0
        with memoryview(self._pending) as pending:
            while start < len(pending) and not self.is_paused:
                # A copy, since transports keep what they are given.
                self._wire.write(bytes(pending[start : start + PIECE_BYTES]))
                start += PIECE_BYTES
        del self._pending[:start]
        if self._is_closing and not self._pending:
            self._wire.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say how much may wait to be sent before the protocol is told."""
        self._wire.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """Return how much is not sent yet, as far as that can be known."""
        return len(self._pending) + self._wire.get_write_buffer_size()

    def close(self) -> None:
        """Close when all is handed on."""
        if self._is_closing:
            return
        self._is_closing = True
        self.owner.end()
        if not self._pending:
            self._wire.close()

    def abort(self) -> None:
        """Drop everything."""
        self._is_closing = True
        self._pending.clear()
        self._wire.abort()

    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._is_closing or self._wire.is_closing()

    def pause_reading(self) -> None:
        """Take no more bytes in."""
        self.is_reading_paused = True
        self._wire.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes in again."""
        if self.is_reading_paused:
            self.is_reading_paused = False
            self._wire.resume_reading()

    def reset(self) -> None:
        """Drop everything, and what is in the kernel's hands too."""
        sock = self._wire.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()

    def has_hung_up(self) -> bool:
        """Whether both directions are closed."""
        poll = select.poll()
        poll.register(self._wire.get_extra_info("socket").fileno(), 0)  # POLLHUP is always asked for
        return any(events & select.POLLHUP for _, events in poll.poll(0))

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401, ARG002 - asyncio's
        """Tell nothing: aiohttp would ask at each request, and set TCP_NODELAY, which uvloop has done."""
        return default
