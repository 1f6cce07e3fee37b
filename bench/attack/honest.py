"""An honest client beside an attack: it asks again and again over new TLS connections, as MIT's does."""

import socket
import ssl
import time
from collections import Counter
from dataclasses import dataclass

from bench.attack.background import Background

__all__ = ["HonestClient", "Result"]

PATIENCE_SECONDS = 30.0
NO_RESPONSE = 0
"""The status that stands for a connection that ended without a response."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The statuses that the client got, with their number, and the latency of each request in seconds."""

    statuses: Counter[int]
    latencies: tuple[float, ...]

    @property
    def refused_share(self) -> float:
        """The part of all requests that got no 200."""
        return 1 - self.statuses[200] / max(self.statuses.total(), 1)

    @property
    def p99(self) -> float:
        """The 99th percentile of the latency, in seconds."""
        return sorted(self.latencies)[int(0.99 * len(self.latencies))] if self.latencies else 0.0


class HonestClient(Background):
    """Sends `request` from the address `source` every `interval` seconds until the context ends.

    It runs in a thread; `result` is complete at the end. `host` and `port` are kkdcpd's.
    """

    def __init__(
        self,
        request: bytes,
        *,
        port: int,
        tls: ssl.SSLContext | None,
        source: str = "127.200.0.1",
        host: str = "127.0.0.1",
        interval: float = 0.02,
    ) -> None:
        super().__init__("honest client")
        self._request = request
        self._place = host, port
        self._tls = tls
        self._source = source
        self._interval = interval
        self._statuses: Counter[int] = Counter()
        self._latencies: list[float] = []

    @property
    def result(self) -> Result:
        """Return what the client saw so far."""
        return Result(statuses=Counter(self._statuses), latencies=tuple(self._latencies))

    def _work_until_over(self) -> None:
        is_over = False
        while not is_over:
            started = time.perf_counter()
            self._statuses[self._ask()] += 1
            self._latencies.append(time.perf_counter() - started)
            is_over = self._is_over.wait(self._interval)

    def _ask(self) -> int:
        try:
            with socket.create_connection(self._place, PATIENCE_SECONDS, (self._source, 0)) as plain:
                sock = self._tls.wrap_socket(plain, server_hostname=self._place[0]) if self._tls else plain
                with sock:
                    sock.sendall(self._request)
                    return _status(sock)
        except OSError:
            return NO_RESPONSE


def _status(sock: socket.socket) -> int:
    received = b""
    while chunk := sock.recv(65536):
        received += chunk
        head, separator, body = received.partition(b"\r\n\r\n")
        if separator and len(body) >= _content_length(head):
            return int(head.split(b" ", 2)[1])
    return NO_RESPONSE


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0
