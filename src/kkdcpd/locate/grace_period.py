"""Waits for several look-ups at the same time, with a short grace period for late answers.

RFC 8305 3 describes the grace period for the two address families of a host. Here it applies to all DNS
questions.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["GRACE_SECONDS", "gather_with_grace"]

GRACE_SECONDS = 0.05
"""The time that late answers get once the others are sufficient (RFC 8305 3)."""

_Key = TypeVar("_Key")
_Result = TypeVar("_Result")


async def gather_with_grace(
    tasks: Mapping[_Key, asyncio.Task[_Result]], is_enough: Callable[[Mapping[_Key, _Result]], bool]
) -> Mapping[_Key, _Result]:
    """Wait until all tasks are done, or until GRACE_SECONDS after `is_enough` accepts the results so far.

    Return the results of the tasks that are done. The other tasks are cancelled: each only waits for a
    look-up, and the look-up itself continues in the background.
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
