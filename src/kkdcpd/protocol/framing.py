"""Adds and reads the 4-byte length before a Kerberos message (RFC 4120 7.2.2).

No other module does. `ProxyRequest.payload` in `values` removes the length.
"""

from kkdcpd.errors import MalformedError

__all__ = ["PREFIX_BYTES", "add_prefix", "has_prefix", "read_prefix"]

PREFIX_BYTES = 4


def has_prefix(kerb_message: bytes) -> bool:
    """Whether the first four bytes are the length of the rest.

    This is never true of a message without a prefix. An AS-REQ or TGS-REQ begins with 6a or 6c, which would
    be a length of more than 1.6 GB. A kpasswd message begins with its own length in two bytes, which would be
    the upper half of a length.
    """
    return len(kerb_message) > PREFIX_BYTES and read_prefix(kerb_message) == len(kerb_message) - PREFIX_BYTES


def read_prefix(kerb_message: bytes) -> int:
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
