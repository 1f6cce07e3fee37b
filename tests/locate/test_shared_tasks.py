"""Callers with the same key share one task."""

import asyncio
import logging

import pytest

from kkdcpd.errors import NoKdcKnownError
from kkdcpd.locate.shared_tasks import SharedTasks


class Work:
    """Waits for `may_end`, and counts how often it was started."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started = 0
        self.may_end = asyncio.Event()
        self.error = error

    async def __call__(self) -> str:
        self.started += 1
        await self.may_end.wait()
        if self.error:
            raise self.error
        return "done"


async def test_callers_with_the_same_key_share_one_task() -> None:
    tasks: SharedTasks[str, str] = SharedTasks("test")
    work = Work()
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(tasks.run("a", work)) for _ in range(10)]
        await asyncio.sleep(0)
        assert "a" in tasks
        work.may_end.set()
    assert [waiter.result() for waiter in waiters] == ["done"] * 10
    assert work.started == 1
    assert len(tasks) == 0


async def test_cancelled_caller_does_not_cancel_the_task_of_the_others() -> None:
    tasks: SharedTasks[str, str] = SharedTasks("test")
    work = Work()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(tasks.run("a", work))
        second = group.create_task(tasks.run("a", work))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        work.may_end.set()
    assert first.cancelled()
    assert second.result() == "done"


async def test_close_cancels_all_tasks() -> None:
    tasks: SharedTasks[str, str] = SharedTasks("test")
    task = tasks.start("a", Work())
    await tasks.close()
    assert task.cancelled()
    assert len(tasks) == 0


@pytest.mark.parametrize(("error", "lines"), [(NoKdcKnownError("x"), 0), (ValueError("x"), 1)])
async def test_only_a_bug_is_logged_when_no_caller_waits(
    error: Exception, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    tasks: SharedTasks[str, str] = SharedTasks("test")
    work = Work(error)
    work.may_end.set()
    with caplog.at_level(logging.DEBUG, "kkdcpd"):
        task = tasks.start("a", work)
        await asyncio.wait([task])
        await asyncio.sleep(0)
    assert len(caplog.records) == lines
