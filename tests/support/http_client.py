"""A blocking HTTP client that sends exactly the given bytes and returns exactly the received bytes.

Every wait ends after PATIENCE_SECONDS.
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["HttpClient", "Response", "post"]

PATIENCE_SECONDS = 10.0
"""Longer than any answer takes on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP response with a Content-Length. Header names are in lower case."""

    version: str
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def request_id(self) -> str:
        """The request id, which the log line has too."""
        return self.headers["x-ms-request-id"]


def post(
    body: bytes,
    *headers: str,
    path: str = "/KdcProxy",
    version: str = "HTTP/1.1",
    method: str = "POST",
) -> bytes:
    """Build a request with Content-Length, for HTTP/1.1 with Host, and with the given headers."""
    host = ("Host: localhost",) if version == "HTTP/1.1" else ()
    lines = (f"{method} {path} {version}", *host, f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


class HttpClient:
    """One connection to a port of `host`, or to a UNIX socket; with a `tls` context it speaks TLS."""

    def __init__(
        self, target: int | Path, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:
        plain = socket.socket(socket.AF_UNIX if isinstance(target, Path) else _family(host))
        plain.settimeout(PATIENCE_SECONDS)
        try:
            plain.connect(str(target) if isinstance(target, Path) else (host, target))
            # An error shows a close without close_notify.
            self.socket = (
                tls.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False) if tls else plain
            )
        except BaseException:
            plain.close()
            raise
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send data."""
        self.socket.sendall(data)

    def send_until_closed(self, data: bytes) -> None:
        """Send data to a server that may close the connection before it has read all data."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, ssl.SSLError):
            return

    def ask(self, data: bytes) -> Response:
        """Send a request and wait for its response."""
        self.send(data)
        return self.response()

    def response(self, *, method: str = "POST") -> Response:
        """Wait for the next response."""
        head = self._take(self._find(b"\r\n\r\n")).decode("latin-1")
        status_line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)
        }
        length = 0 if method == "HEAD" else int(headers["content-length"])
        while len(self._received) < length:
            self._read()
        return Response(version=version, status=int(status), headers=headers, body=self._take(length))

    def wait_for(self, data: bytes) -> None:
        """Wait for exactly this data, and drop it."""
        assert self._take(self._find(data)) == data

    def is_closed_in_time(self) -> bool:
        """Wait for the end of the connection; return whether it is orderly and no data precedes it.

        Over TLS, an orderly end is a close_notify.
        """
        try:
            return not self._received and self.socket.recv(1) == b""
        except (TimeoutError, ssl.SSLEOFError, ConnectionResetError):
            return False

    def _find(self, data: bytes) -> int:
        while data not in self._received:
            self._read()
        return self._received.index(data) + len(data)

    def _read(self) -> None:
        chunk = self.socket.recv(65536)
        if not chunk:
            raise EOFError(f"the connection ended after {self._received!r}")
        self._received += chunk

    def _take(self, count: int) -> bytes:
        taken, self._received = self._received[:count], self._received[count:]
        return taken


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
