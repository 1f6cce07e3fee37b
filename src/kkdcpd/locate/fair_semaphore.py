"""Limits how many operations run at the same time, with fair shares for groups that compete for the slots.

A group is a realm or a client network. A freed slot goes to the waiting groups in turn: a group that asks for
much delays another by one turn, however long its own queue is.
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
        """Groups that wait, the next one first."""

    @asynccontextmanager
    async def hold(self, group: Hashable) -> AsyncIterator[None]:
        """Hold a slot for the group while the context lasts; wait for one if there is none."""
        await self._take(group)
        try:
            yield
        finally:
            self._give_back(group)

    async def _take(self, group: Hashable) -> None:
        if self._free and self._taken[group] < self._share:
            self._grant(group)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(group, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._give_back(group)
            raise

    def _grant(self, group: Hashable) -> None:
        self._free -= 1
        self._taken[group] += 1

    def _give_back(self, group: Hashable) -> None:
        self._free += 1
        self._taken[group] -= 1
        if not self._taken[group]:
            del self._taken[group]
        self._serve_next()

    def _serve_next(self) -> None:
        """Give the free slot to the first group in turn that is below its share."""
        for group in [each for each in self._queues if self._taken[each] < self._share]:
            turn = self._next_turn(group)
            if turn is not None:
                self._grant(group)
                turn.set_result(None)
                return

    def _next_turn(self, group: Hashable) -> asyncio.Future[None] | None:
        """Take the group's next turn, and put the group behind the others."""
        queue = self._queues.pop(group)
        turn = queue.popleft()
        while turn.cancelled() and queue:
            turn = queue.popleft()
        if queue:
            self._queues[group] = queue
        return None if turn.cancelled() else turn
