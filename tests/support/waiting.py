"""Waits, within a bound, for conditions that no event reports."""

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["eventually", "wait_until"]

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.005


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Repeat the check until it is true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await check():  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(PAUSE_SECONDS)


def wait_until(check: Callable[[], bool], *, timeout: float = PATIENCE_SECONDS) -> None:
    """Repeat the check until it is true, in a test without an event loop."""
    end = time.monotonic() + timeout
    while not check():
        if time.monotonic() > end:
            raise TimeoutError(f"the condition is not true after {timeout} s")
        time.sleep(PAUSE_SECONDS)
