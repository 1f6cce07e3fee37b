"""Waiting for what has no event to wait for, within a bound."""

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["eventually", "wait_until"]

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.005


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the answer is yes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await check():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(PAUSE_SECONDS)


def wait_until(check: Callable[[], bool], *, timeout: float = PATIENCE_SECONDS) -> None:
    """Ask again and again until the answer is yes, where no event loop runs."""
    end = time.monotonic() + timeout
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {timeout} s")
        time.sleep(PAUSE_SECONDS)
