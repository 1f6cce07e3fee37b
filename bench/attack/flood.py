"""Sends requests at a steady rate from several addresses; each client leaves when its patience is over."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Sequence

from bench.attack.background import Background

__all__ = ["Flood", "http_request"]

GONE = 0
"""The status of a request without a response: the client left, or could not connect."""


def http_request(body: bytes) -> bytes:
    """Build the POST of one message, over a connection that ends with its response."""
    head = (
        "POST /KdcProxy HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/kerberos\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Flood(Background):
    """Sends the requests that `make` returns at a steady rate, in turn from each source.

    The flood runs in a thread until its context ends. Each request has a plain HTTP connection of its own.
    `statuses` are complete at the end.
    """

    def __init__(
        self,
        make: Callable[[int], bytes],
        *,
        port: int,
        sources: Sequence[str],
        rate: float,
        patience: float,
    ) -> None:
        super().__init__("flood")
        self.statuses: Counter[int] = Counter()
        self.sent = 0
        self._make = make
        self._port = port
        self._sources = sources
        self._interval = 1 / rate
        self._patience = patience

    def _work_until_over(self) -> None:
        asyncio.run(self._send_until_over())

    async def _send_until_over(self) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        requests: set[asyncio.Task[None]] = set()
        while not self._is_over.is_set():
            if self.sent * self._interval <= loop.time() - started:
                task = loop.create_task(self._send(self.sent), name=f"request {self.sent}")
                requests.add(task)
                task.add_done_callback(requests.discard)
                self.sent += 1
            else:
                await asyncio.sleep(self._interval)
        for task in requests:
            task.cancel()
        await asyncio.gather(*requests, return_exceptions=True)

    async def _send(self, number: int) -> None:
        source = self._sources[number % len(self._sources)]
        status = GONE
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))
            try:
                writer.write(self._make(number))
                async with asyncio.timeout(self._patience):
                    status = int((await reader.readuntil(b"\r\n")).split(b" ", 2)[1])
            finally:
                writer.transport.abort()
        self.statuses[status] += 1
