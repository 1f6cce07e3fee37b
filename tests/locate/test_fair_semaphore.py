"""Groups get fair shares of the slots."""

import asyncio
from contextlib import AsyncExitStack

from kkdcpd.locate.fair_semaphore import FairSemaphore


class Slots(FairSemaphore):
    """Holds slots until `free` is called. `held` lists the groups that got a slot, in order."""

    def __init__(self, total: int, share: int) -> None:
        super().__init__(total, share=share)
        self.held: list[str] = []
        self._stacks: list[AsyncExitStack] = []

    async def request(self, *groups: str) -> list[asyncio.Task[None]]:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._hold(group)) for group in groups]
        await asyncio.sleep(0)
        return tasks

    async def _hold(self, group: str) -> None:
        stack = AsyncExitStack()
        await stack.enter_async_context(self.hold(group))
        self.held.append(group)
        self._stacks.append(stack)

    async def free(self) -> None:
        await self._stacks.pop(0).aclose()
        for _ in range(3):
            await asyncio.sleep(0)


async def test_group_gets_no_more_than_its_share() -> None:
    slots = Slots(4, share=3)
    await slots.request(*"aaaaa", "b")
    assert slots.held == [*"aaa", "b"]


async def test_freed_slots_go_to_the_groups_in_turn() -> None:
    slots = Slots(2, share=2)
    await slots.request(*"aaaaa", "b", "c", "b")
    for _ in range(6):
        await slots.free()
    assert slots.held == [*"aa", "a", "b", "c", "a", "b", "a"]


async def test_group_at_its_share_does_not_delay_another_group() -> None:
    slots = Slots(3, share=2)
    await slots.request(*"aa", "b", *"aa", "b", "c")
    assert slots.held == [*"aa", "b"]
    for _ in range(4):
        await slots.free()
    assert slots.held[3:] == ["a", "b", "c", "a"]


async def test_waiter_that_leaves_loses_no_slot() -> None:
    slots = Slots(1, share=1)
    await slots.request("a")
    (second, third) = await slots.request("a", "b")
    second.cancel()
    await asyncio.sleep(0)
    await slots.free()
    assert slots.held == ["a", "b"]
    (fourth,) = await slots.request("a")
    # The fourth operation gets the slot, and is cancelled before it runs.
    slots._stacks[0].pop_all()
    slots._release("b")
    fourth.cancel()
    await asyncio.wait([third, fourth])
    await slots.request("c")
    assert slots.held == ["a", "b", "c"]
