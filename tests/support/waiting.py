"""Waiting for what has no event to wait for, within a bound."""

import asyncio
from collections.abc import Awaitable, Callable

__all__ = ["eventually"]

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.005


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until the answer is yes."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await check():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(PAUSE_SECONDS)
