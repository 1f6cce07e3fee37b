"""Reads the body of a request that is not whole when its head is."""

import asyncio
from collections.abc import Callable

from aiohttp import StreamReader

from kkdcpd.errors import BodyTimeoutError

__all__ = ["BrokenBodyError", "LateBody"]


class BrokenBodyError(Exception):
    """The body of a request breaks the rules of HTTP. The server answers this request by itself."""


class LateBody:
    """The body of a request while it arrives. The connection calls `wake` when bytes have come.

    `count` is the number of bytes that were read.
    """

    __slots__ = ("_body", "_has_failed", "_waiter", "count")

    def __init__(self, body: StreamReader, has_failed: Callable[[], bool]) -> None:
        self._body = body
        self._has_failed = has_failed
        self._waiter: asyncio.Future[None] | None = None
        self.count = 0

    async def read(self, limit: int) -> bytes:
        """Read up to the end, or until there is more than the limit.

        Raises:
            BodyTimeoutError: `time_out` was called.
            BrokenBodyError: the parser has failed.
        """
        body = self._body
        data = bytearray(body.read_nowait())
        self.count = len(data)
        while not body.is_eof() and len(data) <= limit:
            if self._has_failed():
                body.feed_eof()  # Otherwise aiohttp waits for the rest.
                raise BrokenBodyError
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
            data += body.read_nowait()
            self.count = len(data)
        return bytes(data)

    def wake(self) -> None:
        """Read the bytes that have come."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def time_out(self) -> None:
        """End `read`, because the client's time is over."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(BodyTimeoutError(f"{self.count} bytes so far"))
