"""Slots are shared fairly by groups."""

import asyncio
from contextlib import AsyncExitStack

from kkdcpd.locate.fair_semaphore import FairSemaphore


class Slots(FairSemaphore):
    """Slots that are held until `free` is called; `held` are the groups that hold one, in order."""

    def __init__(self, total: int, share: int) -> None:
        super().__init__(total, share=share)
        self.held: list[str] = []
        self._stacks: list[AsyncExitStack] = []

    async def ask(self, *groups: str) -> list[asyncio.Task[None]]:
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


async def test_one_group_has_its_share_and_no_more() -> None:
    slots = Slots(4, share=3)
    await slots.ask(*"aaaaa", "b")
    assert slots.held == [*"aaa", "b"]


async def test_freed_slots_go_to_the_groups_in_turn() -> None:
    slots = Slots(2, share=2)
    await slots.ask(*"aaaaa", "b", "c", "b")
    for _ in range(6):
        await slots.free()
    assert slots.held == [*"aa", "a", "b", "c", "a", "b", "a"]


async def test_a_group_at_its_share_does_not_hold_up_another() -> None:
    slots = Slots(3, share=2)
    await slots.ask(*"aa", "b", *"aa", "b", "c")
    assert slots.held == [*"aa", "b"]
    for _ in range(4):
        await slots.free()
    assert slots.held[3:] == ["a", "b", "c", "a"]


async def test_a_waiter_that_leaves_loses_no_slot() -> None:
    slots = Slots(1, share=1)
    await slots.ask("a")
    (second, third) = await slots.ask("a", "b")
    second.cancel()
    await asyncio.sleep(0)
    await slots.free()
    assert slots.held == ["a", "b"]
    (fourth,) = await slots.ask("a")
    # It is granted the slot and leaves before it runs.
    slots._stacks[0].pop_all()
    slots._give_back("b")
    fourth.cancel()
    await asyncio.wait([third, fourth])
    await slots.ask("c")
    assert slots.held == ["a", "b", "c"]
