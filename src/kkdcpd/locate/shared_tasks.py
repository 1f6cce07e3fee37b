"""Runs at most one task for each key; all callers that need the result share the task."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from kkdcpd.errors import KkdcpdError
from kkdcpd.log.events import EventLogger

__all__ = ["SharedTasks"]

logger = EventLogger(__name__)

_Key = TypeVar("_Key", bound=Hashable)
_Result = TypeVar("_Result")


class SharedTasks(Generic[_Key, _Result]):
    """Owns the tasks. A caller that is cancelled leaves its task running for the other callers.

    The tasks are in no TaskGroup, because the group would belong to the first caller, and this caller serves
    a client that may leave.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: dict[_Key, asyncio.Task[_Result]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: _Key) -> bool:
        return key in self._tasks

    def start(self, key: _Key, work: Callable[[], Coroutine[Any, Any, _Result]]) -> asyncio.Task[_Result]:
        """Start the work unless a task for this key runs. Return the task; the caller must not cancel it."""
        task = self._tasks.get(key)
        if task is None:
            loop = asyncio.get_running_loop()
            task = self._tasks[key] = loop.create_task(work(), name=f"{self._name} {key}")
            task.add_done_callback(lambda done: self._finish(key, done))
        return task

    async def run(self, key: _Key, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Return the result of the work; wait for the task that runs already, if there is one."""
        return await asyncio.shield(self.start(key, work))

    async def close(self) -> None:
        """Cancel all tasks and wait for their end."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finish(self, key: _Key, task: asyncio.Task[_Result]) -> None:
        del self._tasks[key]
        if task.cancelled():
            return
        # The next caller meets an expected error itself. Only a bug must be logged, as no caller may wait for
        # it.
        error = task.exception()
        if error is not None and not isinstance(error, KkdcpdError):
            logger.error(
                "bug_in_lookup", exc_info=error, sum_by=("bug_in_lookup", type(error)), task=task.get_name()
            )
