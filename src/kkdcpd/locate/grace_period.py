"""How long a request waits for DNS: not at all for what is missing, once it has something to go by.

RFC 8305 3 has this for the addresses of a host; here it holds for every question.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["GRACE_SECONDS", "gather_with_grace"]

GRACE_SECONDS = 0.05
"""What the answers that are missing may still take, once there are enough (RFC 8305 3)."""

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")


async def gather_with_grace(
    tasks: Mapping[_Key, asyncio.Task[_Result]], is_enough: Callable[[Mapping[_Key, _Result]], bool]
) -> Mapping[_Key, _Result]:
    """Return the results that there are when all are there, or GRACE_SECONDS after `is_enough` says so.

    A task that is late is cancelled: it only waits for a look-up, which goes on in the background.
    """
    try:
        waiting = set(tasks.values())
        while waiting and not is_enough(_results(tasks)):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if waiting:
            await asyncio.wait(waiting, timeout=GRACE_SECONDS)
        return _results(tasks)
    finally:
        for task in tasks.values():
            task.cancel()


def _results(tasks: Mapping[_Key, asyncio.Task[_Result]]) -> Mapping[_Key, _Result]:
    return {key: task.result() for key, task in tasks.items() if task.done()}
