import asyncio
import logging
from typing import Any

from kkdcpd.log.repeats import MAX_KEYS, RepeatSummer

SECONDS = 0.2


class Log:
    """A logger whose events are written at once or as sums."""

    def __init__(self) -> None:
        self.repeats = RepeatSummer(self.write, seconds=SECONDS)
        self.written: list[dict[str, Any]] = []

    def write(self, record: logging.LogRecord) -> None:
        self.written.append(record.fields)  # type: ignore[attr-defined]

    def log_event(self, number: int, key: str = "key") -> None:
        record = logging.LogRecord("kkdcpd.test", logging.WARNING, "", 0, "event", (), None)
        record.fields = {"number": number}
        if not self.repeats.is_held_back(record, key):
            self.write(record)


async def test_first_event_is_written_at_once_and_a_single_event_has_no_sum() -> None:
    log = Log()
    log.log_event(1)
    assert log.written == [{"number": 1}]
    await asyncio.sleep(2 * SECONDS)
    assert log.written == [{"number": 1}]


async def test_later_events_are_written_as_sums_with_the_fields_of_the_last() -> None:
    log = Log()
    for number in range(5):
        log.log_event(number)
    await asyncio.sleep(1.5 * SECONDS)
    assert log.written == [{"number": 0}, {"number": 4, "count": 4}]
    log.log_event(5)
    assert len(log.written) == 2  # a sum is a line too: the next comes after as long a time
    await asyncio.sleep(SECONDS)
    assert log.written[2:] == [{"number": 5, "count": 1}]


async def test_first_event_after_a_pause_is_written_at_once() -> None:
    log = Log()
    log.log_event(0)
    await asyncio.sleep(1.5 * SECONDS)
    log.log_event(1)
    assert log.written == [{"number": 0}, {"number": 1}]


async def test_each_key_is_summed_by_itself() -> None:
    log = Log()
    for number in range(4):
        log.log_event(number, "even" if number % 2 == 0 else "odd")
    assert log.written == [{"number": 0}, {"number": 1}]
    log.repeats.flush()
    assert log.written[2:] == [{"number": 2, "count": 1}, {"number": 3, "count": 1}]


async def test_many_keys_are_summed_by_event() -> None:
    log = Log()
    for number in range(3 * MAX_KEYS):
        log.log_event(number, f"client {number}")
    assert len(log.written) == MAX_KEYS + 1
    log.repeats.flush()
    assert log.written[MAX_KEYS + 1 :] == [{"number": 3 * MAX_KEYS - 1, "count": 2 * MAX_KEYS - 1}]


def test_without_an_event_loop_every_line_is_written() -> None:
    log = Log()
    for number in range(3):
        log.log_event(number)
    assert len(log.written) == 3


def test_sum_of_an_ended_event_loop_delays_no_line() -> None:
    log = Log()

    async def log_two() -> None:
        log.log_event(1)
        log.log_event(2)

    asyncio.run(log_two())

    async def tell_later() -> None:
        await asyncio.sleep(1.1 * SECONDS)
        log.log_event(3)

    asyncio.run(tell_later())
    log.repeats.flush()
    assert log.written == [{"number": 1}, {"number": 2, "count": 1}, {"number": 3, "count": 1}]
