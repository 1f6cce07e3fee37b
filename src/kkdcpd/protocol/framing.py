"""Adds and reads the 4-byte length before a Kerberos message (RFC 4120 7.2.2).

No other module does. `ProxyRequest.payload` in `values` removes the length.
"""

from typing import ClassVar

from kkdcpd.errors import BodyTooLargeError, MalformedError

__all__ = ["PREFIX_BYTES", "MessageReader", "add_prefix", "has_prefix", "read_prefix"]

PREFIX_BYTES = 4


def has_prefix(kerb_message: bytes) -> bool:
    """Whether the first four bytes are the length of the rest.

    This is never true of a message without a prefix. An AS-REQ or TGS-REQ begins with 6a or 6c, which would
    be a length of more than 1.6 GB. A kpasswd message begins with its own length in two bytes, which would be
    the upper half of a length.
    """
    return len(kerb_message) > PREFIX_BYTES and read_prefix(kerb_message) == len(kerb_message) - PREFIX_BYTES


def read_prefix(kerb_message: bytes | bytearray) -> int:
    """Return the length in the first four bytes.

    Raises:
        MalformedError: fewer than four bytes.
    """
    if len(kerb_message) < PREFIX_BYTES:
        raise MalformedError(f"a kerb-message of {len(kerb_message)} bytes")
    return int.from_bytes(kerb_message[:PREFIX_BYTES], "big")


def add_prefix(payload: bytes) -> bytes:
    """Return `payload` with its length before it."""
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


class MessageReader:
    """Cuts the bytes of a TCP connection into messages of at most `max_bytes`, each with its length."""

    __slots__ = ("_buffer", "_max_bytes")

    reads_one: ClassVar = False
    """Whether a connection has one request only."""

    def __init__(self, max_bytes: int) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived."""
        self._buffer += data

    @property
    def held_bytes(self) -> int:
        """The number of bytes of messages that have not been returned."""
        return len(self._buffer)

    def next_message(self) -> bytes | None:
        """Return the next whole message, or None if more bytes must arrive first.

        Raises:
            BodyTooLargeError: the length is over the limit. A length with its high bit set is always over the
                limit: the bit is reserved for extensions (RFC 4120 7.2.2), and no extension exists.
        """
        if len(self._buffer) < PREFIX_BYTES:
            return None
        length = read_prefix(self._buffer)
        if length > self._max_bytes:
            raise BodyTooLargeError(f"a length of {length} bytes, which is more than {self._max_bytes}")
        end = PREFIX_BYTES + length
        if len(self._buffer) < end:
            return None
        message = bytes(self._buffer[:end])
        del self._buffer[:end]
        return message

    def frame(self, payload: bytes) -> bytes:
        """Return the bytes of a reply."""
        return add_prefix(payload)
