"""The 4-octet length before a Kerberos message over TCP (RFC 4120 7.2.2): the one place that converts."""

from kkdcpd.errors import MalformedError

__all__ = ["PREFIX_OCTETS", "add_prefix", "has_prefix", "read_prefix"]

PREFIX_OCTETS = 4


def has_prefix(octets: bytes) -> bool:
    """Whether the first four octets are the length of the rest.

    No Kerberos message without a prefix looks so: an AS-REQ or TGS-REQ would begin 6a or 6c, a length of more
    than 1.6 GB; a kpasswd message begins with its own length in two octets, which are the upper half here.
    """
    return len(octets) > PREFIX_OCTETS and read_prefix(octets) == len(octets) - PREFIX_OCTETS


def read_prefix(octets: bytes) -> int:
    """Return the length that the first four octets announce.

    Raises:
        MalformedError: fewer than four octets.
    """
    if len(octets) < PREFIX_OCTETS:
        raise MalformedError(f"a kerb-message of {len(octets)} octets")
    return int.from_bytes(octets[:PREFIX_OCTETS], "big")


def add_prefix(payload: bytes) -> bytes:
    """Return `payload` after its length."""
    return len(payload).to_bytes(PREFIX_OCTETS, "big") + payload
