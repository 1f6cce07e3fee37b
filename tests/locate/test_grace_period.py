"""A request waits for DNS until it has a sufficient answer, and a grace period longer."""

import asyncio
from collections.abc import Mapping

from kkdcpd.locate.grace_period import gather_with_grace


async def _late(event: asyncio.Event, result: str) -> str:
    await event.wait()
    return result


def _has_good(results: Mapping[str, str]) -> bool:
    return "good" in results.values()


async def test_all_tasks_are_awaited_while_the_results_are_insufficient() -> None:
    loop = asyncio.get_running_loop()
    events = [asyncio.Event(), asyncio.Event()]
    tasks = {name: loop.create_task(_late(events[number], "bad")) for number, name in enumerate("ab")}
    loop.call_soon(events[0].set)
    loop.call_later(0.2, events[1].set)
    assert await gather_with_grace(tasks, _has_good) == {"a": "bad", "b": "bad"}


async def test_late_task_is_cancelled_once_the_results_are_sufficient() -> None:
    loop = asyncio.get_running_loop()
    ready, never = asyncio.Event(), asyncio.Event()
    ready.set()
    tasks = {
        "a": loop.create_task(_late(ready, "good")),
        "b": loop.create_task(_late(never, "bad")),
    }
    async with asyncio.timeout(10):
        assert await gather_with_grace(tasks, _has_good) == {"a": "good"}
    await asyncio.wait([tasks["b"]])
    assert tasks["b"].cancelled()


async def test_result_within_the_grace_period_is_included() -> None:
    loop = asyncio.get_running_loop()
    ready, soon = asyncio.Event(), asyncio.Event()
    ready.set()
    tasks = {
        "a": loop.create_task(_late(ready, "good")),
        "b": loop.create_task(_late(soon, "better")),
    }
    loop.call_later(0.005, soon.set)
    assert (await gather_with_grace(tasks, _has_good)).keys() >= {"a"}
    assert await gather_with_grace({}, _has_good) == {}
