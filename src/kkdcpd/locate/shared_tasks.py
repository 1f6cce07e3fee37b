"""At most one piece of work at a time for each thing that is wanted, shared by all who want it.

Nothing here knows what the work is.
"""

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
    """Owns the tasks that it starts: who waits for one may leave, and the others still get its result.

    That is why they are in no TaskGroup: the group would be the first asker's, who is a client that may go.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: dict[_Key, asyncio.Task[_Result]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: _Key) -> bool:
        return key in self._tasks

    def start(self, key: _Key, work: Callable[[], Coroutine[Any, Any, _Result]]) -> asyncio.Task[_Result]:
        """Start the work unless it is under way; return its task, which must not be cancelled."""
        task = self._tasks.get(key)
        if task is None:
            loop = asyncio.get_running_loop()
            task = self._tasks[key] = loop.create_task(work(), name=f"{self._name} {key}")
            task.add_done_callback(lambda done: self._land(key, done))
        return task

    async def share(self, key: _Key, work: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Do the work, or wait for who does it already."""
        return await asyncio.shield(self.start(key, work))

    async def close(self) -> None:
        """End all work that is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _land(self, key: _Key, task: asyncio.Task[_Result]) -> None:
        del self._tasks[key]
        if task.cancelled():
            return
        # Work that nobody waits for may fail: who asks next will see. Only a bug must not go unnoticed.
        error = task.exception()
        if error is not None and not isinstance(error, KkdcpdError):
            logger.error(
                "bug_in_lookup", exc_info=error, sum_by=("bug_in_lookup", type(error)), task=task.get_name()
            )
