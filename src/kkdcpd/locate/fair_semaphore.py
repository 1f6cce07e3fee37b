"""Limits how many operations run at the same time, with fair shares for the groups that compete for slots.

A group is a realm or a client network. A freed slot goes to the waiting groups in turn. So a group with many
operations delays another group by one turn only, with a queue of any length.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

__all__ = ["FairSemaphore"]


class FairSemaphore:
    """Has `total` slots. One group holds at most `share` of them."""

    def __init__(self, total: int, *, share: int) -> None:
        self._free = total
        self._share = share
        self._taken: Counter[Hashable] = Counter()
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """The groups that wait, in the order of their turns."""

    @asynccontextmanager
    async def hold(self, group: Hashable) -> AsyncIterator[None]:
        """Hold a slot for the group while the context lasts; wait until a slot is free."""
        await self._acquire(group)
        try:
            yield
        finally:
            self._release(group)

    async def _acquire(self, group: Hashable) -> None:
        if self._free and self._taken[group] < self._share:
            self._grant(group)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(group, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._release(group)
            raise

    def _grant(self, group: Hashable) -> None:
        self._free -= 1
        self._taken[group] += 1

    def _release(self, group: Hashable) -> None:
        self._free += 1
        self._taken[group] -= 1
        if not self._taken[group]:
            del self._taken[group]
        self._grant_next()

    def _grant_next(self) -> None:
        """Give the free slot to the first group in turn that is below its share."""
        for group in [each for each in self._queues if self._taken[each] < self._share]:
            turn = self._next_turn(group)
            if turn is not None:
                self._grant(group)
                turn.set_result(None)
                return

    def _next_turn(self, group: Hashable) -> asyncio.Future[None] | None:
        """Remove the next waiting operation of the group, and move the group behind the other groups."""
        queue = self._queues.pop(group)
        turn = queue.popleft()
        while turn.cancelled() and queue:
            turn = queue.popleft()
        if queue:
            self._queues[group] = queue
        return None if turn.cancelled() else turn
