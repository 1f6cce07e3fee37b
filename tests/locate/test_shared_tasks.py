"""Work that is shared."""

import asyncio
import logging

import pytest

from kkdcpd.errors import NoKdcKnownError
from kkdcpd.locate.shared_tasks import SharedTasks


class Work:
    """Ends when it may, and counts how often it was begun."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.error = error

    async def __call__(self) -> str:
        self.begun += 1
        await self.may_end.wait()
        if self.error:
            raise self.error
        return "done"


async def test_who_wants_the_same_shares_it() -> None:
    flights: SharedTasks[str, str] = SharedTasks("test")
    work = Work()
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(flights.share("a", work)) for _ in range(10)]
        await asyncio.sleep(0)
        assert "a" in flights
        work.may_end.set()
    assert [waiter.result() for waiter in waiters] == ["done"] * 10
    assert work.begun == 1
    assert len(flights) == 0


async def test_who_leaves_does_not_end_it_for_the_others() -> None:
    flights: SharedTasks[str, str] = SharedTasks("test")
    work = Work()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(flights.share("a", work))
        second = group.create_task(flights.share("a", work))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        work.may_end.set()
    assert first.cancelled()
    assert second.result() == "done"


async def test_closing_ends_what_is_under_way() -> None:
    flights: SharedTasks[str, str] = SharedTasks("test")
    task = flights.start("a", Work())
    await flights.close()
    assert task.cancelled()
    assert len(flights) == 0


@pytest.mark.parametrize(("error", "lines"), [(NoKdcKnownError("x"), 0), (ValueError("x"), 1)])
async def test_only_a_bug_is_logged_when_nobody_waits(
    error: Exception, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    flights: SharedTasks[str, str] = SharedTasks("test")
    work = Work(error)
    work.may_end.set()
    with caplog.at_level(logging.DEBUG, "kkdcpd"):
        task = flights.start("a", work)
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert len(caplog.records) == lines
