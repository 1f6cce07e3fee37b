"""Finds the end of a ClientHello, so that TLS takes no memory before the ClientHello is complete. Pure.

It reads the lengths only (RFC 8446 5.1 and 4.1.2). OpenSSL reads the contents.
"""

from kkdcpd.errors import MalformedError

__all__ = ["HEAD_BYTES", "MAX_HELLO_BYTES", "hello_bytes"]

_RECORD_HEAD_BYTES = 5
_HANDSHAKE_HEAD_BYTES = 4

HEAD_BYTES = _RECORD_HEAD_BYTES + _HANDSHAKE_HEAD_BYTES
"""All lengths are within these."""

_MAX_RECORD_BYTES = 16384

MAX_HELLO_BYTES = _RECORD_HEAD_BYTES + _MAX_RECORD_BYTES

_HANDSHAKE, _CLIENT_HELLO = 22, 1


def hello_bytes(head: bytes) -> int:
    """Return the number of bytes of a ClientHello with its headers; 0 if it is no ClientHello.

    `head` is the connection's first HEAD_BYTES, or less if it has ended.

    Raises:
        MalformedError: it is spread over several records. That is allowed, but no client has so much to say.
    """
    if len(head) < HEAD_BYTES or (head[0], head[5]) != (_HANDSHAKE, _CLIENT_HELLO):
        return 0
    record = int.from_bytes(head[3:5], "big")
    if record > _MAX_RECORD_BYTES:
        return 0
    if int.from_bytes(head[6:9], "big") > record - _HANDSHAKE_HEAD_BYTES:
        raise MalformedError("a ClientHello in several records")
    return _RECORD_HEAD_BYTES + record
