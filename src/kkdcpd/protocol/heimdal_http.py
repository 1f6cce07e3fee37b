"""Reads requests in Heimdal's own form of HTTP, and frames the replies (krb5.conf: `kdc = http/HOST`).

The request is `GET /`, the message in base64, and ` HTTP/1.0`. The client escapes nothing and sends no
header. It takes all after the first empty line of the response for the length and the message (RFC 4120
7.2.2). A forward proxy may add headers, escape characters, and get a whole URL from the client.
"""

import base64
import binascii
import re
from typing import ClassVar
from urllib.parse import unquote_to_bytes

from kkdcpd.errors import BodyTooLargeError, MalformedError
from kkdcpd.protocol.framing import add_prefix

__all__ = ["HttpReader"]

HTTP_START = b"G"
"""No length of a message by TCP begins with this byte: it would announce more than a gigabyte."""

HEAD_END = b"\r\n\r\n"

MAX_OTHER_BYTES = 8192
"""The bytes of a head beside the message."""

_REQUEST_LINE = re.compile(rb"GET (?:http://[^/ ]*)?/([A-Za-z0-9+/=%]*) HTTP/1\.[01]\r\n", re.IGNORECASE)


class HttpReader:
    """Reads the one request of a connection. The message has at most `max_bytes`."""

    __slots__ = ("_buffer", "_is_read", "_max_bytes", "_max_head_bytes", "_searched_bytes")

    reads_one: ClassVar = True
    """Whether a connection has one request only."""

    def __init__(self, max_bytes: int) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes
        # Base64 makes four bytes of three, and escapes make three of one.
        self._max_head_bytes = max_bytes * 4 + MAX_OTHER_BYTES
        self._searched_bytes = 0
        self._is_read = False

    @staticmethod
    def fits(data: bytes) -> bool:
        """Whether a connection that begins with these bytes is HTTP."""
        return data.startswith(HTTP_START)

    def feed(self, data: bytes) -> None:
        """Add bytes that have arrived. Bytes after the request are dropped."""
        if not self._is_read:
            self._buffer += data

    @property
    def held_bytes(self) -> int:
        """The number of bytes of a request that is not complete."""
        return len(self._buffer)

    def next_message(self) -> bytes | None:
        """Return the message with its length, once; None if more bytes must arrive first.

        Raises:
            MalformedError: the request has another form.
            BodyTooLargeError: the request is longer than allowed.
        """
        if self._buffer.find(HEAD_END, self._searched_bytes) < 0:
            self._searched_bytes = max(0, len(self._buffer) - len(HEAD_END))
            if len(self._buffer) > self._max_head_bytes:
                raise BodyTooLargeError(f"a head of HTTP with more than {self._max_head_bytes} bytes")
            return None
        self._is_read = True
        line = _REQUEST_LINE.match(self._buffer)
        self._buffer = bytearray()
        if line is None:
            raise MalformedError("an HTTP request in another form than that of Heimdal")
        return add_prefix(self._decode(line[1]))

    def _decode(self, encoded: bytes) -> bytes:
        try:
            message = base64.b64decode(unquote_to_bytes(encoded), validate=True)
        except binascii.Error as error:
            raise MalformedError(f"an HTTP request with invalid base64: {error}") from error
        if len(message) > self._max_bytes:
            raise BodyTooLargeError(
                f"a message of {len(message)} bytes, which is more than {self._max_bytes}"
            )
        return message

    def frame(self, payload: bytes) -> bytes:
        """Return the whole response. It must leave in one write.

        Heimdal 7.8 takes a reply for complete when up to four of its bytes are still missing.
        """
        body = add_prefix(payload)
        head = (
            "HTTP/1.0 200 OK\r\nCache-Control: no-cache\r\nPragma: no-cache\r\n"
            f"Content-Type: application/kerberos\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body
