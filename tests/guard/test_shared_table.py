"""Tests of the table in shared memory: its counts, its evictions, and races between processes."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from kkdcpd.guard.shared_table import SharedTable
from kkdcpd.guard.store import Block, Growth, Limit, Shortage
from kkdcpd.shared_memory.areas import Area, make_area
from kkdcpd.shared_memory.entries import entries_bytes

NOW = 5000.0
LIMIT = Limit(rate=50.0, burst=1000)
GROWTH = Growth(first=60.0, longest=3600.0, forgiven_after=600.0)
CLIENT = ("client", "192.0.2.1")
LOGINS = ("logins", "192.0.2.1")
BLOCKED = ("blocked", "192.0.2.1")
TOTAL = ("total",)


@pytest.fixture
def area() -> Area:
    return make_area(entries_bytes(1024))


@pytest.fixture
def table(area: Area) -> SharedTable:
    return SharedTable(area)


def take(table: SharedTable, count: int, limit: Limit = LIMIT, *, now: float = NOW) -> int:
    """Try to take `count` tokens, and return the number of tokens taken."""
    return sum(table.take(((CLIENT, limit),), now) is None for _ in range(count))


def names_of_one_bucket(table: SharedTable, count: int) -> list[str]:
    """Return names with entries in the same bucket."""
    names = (str(number) for number in range(1_000_000))
    first = table._table.names[("name", "0")].first
    found = (name for name in names if table._table.names[("name", name)].first == first)
    return [next(found) for _ in range(count)]


# Keys


def test_key_may_have_any_text_of_any_length(table: SharedTable) -> None:
    for name in ("", "\udcff", "x" * 100_000, "\0"):
        assert table.tally(("name", name), 0, None, window=600.0, now=NOW).counts[0] == 1
        assert table.tally(("name", name), 0, None, window=600.0, now=NOW).counts[0] == 2


# Tokens


def test_burst_passes_at_once_and_then_the_rate(table: SharedTable) -> None:
    assert take(table, 1100) == 1000
    assert take(table, 100, now=NOW + 1.0) == 50
    assert take(table, 2000, now=NOW + 1000.0) == 1000


@pytest.mark.parametrize("rate", [0.1, 3.0, 50.0, 1000.0, 100_000.0])
def test_burst_is_exact_for_every_rate(table: SharedTable, rate: float) -> None:
    assert take(table, 10_002, Limit(rate=rate, burst=10_000)) == 10_000


@pytest.mark.parametrize("rate", [0.1, 3.0, 50.0, 1000.0])
def test_rate_is_exact_in_the_long_run(table: SharedTable, rate: float) -> None:
    limit = Limit(rate=rate, burst=1)
    taken = sum(take(table, 1, limit, now=NOW + step / rate / 4) for step in range(8000))
    assert 1990 <= taken <= 2001


def test_shortage_names_the_bucket_and_the_wait(table: SharedTable) -> None:
    narrow = Limit(rate=0.5, burst=1)
    buckets = ((CLIENT, LIMIT), (TOTAL, narrow))
    assert table.take(buckets, NOW) is None
    assert table.take(buckets, NOW) == Shortage(index=1, wait=2.0)
    assert table.take(buckets, NOW + 1.5) == Shortage(index=1, wait=0.5)
    assert table.take(buckets, NOW + 2.0) is None


def test_request_that_finds_one_bucket_empty_takes_no_token_from_the_others(table: SharedTable) -> None:
    narrow = Limit(rate=0.001, burst=1)
    for _ in range(500):
        table.take(((CLIENT, LIMIT), (TOTAL, narrow)), NOW)
    assert take(table, 1000) == 999


def test_lower_limit_after_a_reload_does_not_wait_for_tokens_of_the_higher_limit(table: SharedTable) -> None:
    take(table, 10_000, Limit(rate=1.0, burst=10_000))
    lower = Limit(rate=1.0, burst=5)
    assert table.take(((CLIENT, lower),), NOW) == Shortage(index=0, wait=1.0)
    assert take(table, 10, lower, now=NOW + 5.0) == 5


# Tallies


def test_tally_counts_each_member_once_in_a_column(table: SharedTable) -> None:
    tallies = [
        table.tally(LOGINS, column, member, window=600.0, now=NOW)
        for column, member in [(0, "alice"), (0, "alice"), (0, "bob"), (1, "alice"), (2, "carol")]
    ]
    assert [tally.is_new for tally in tallies] == [True, False, True, True, True]
    assert tallies[-1].counts == (2, 1, 1)


def test_without_a_member_everything_counts(table: SharedTable) -> None:
    counts = [table.tally(LOGINS, 0, None, window=600.0, now=NOW).counts[0] for _ in range(5)]
    assert counts == [1, 2, 3, 4, 5]


def test_window_begins_with_the_first_and_ends_for_all_columns_together(table: SharedTable) -> None:
    table.tally(LOGINS, 0, "alice", window=600.0, now=NOW)
    table.tally(LOGINS, 1, "bob", window=600.0, now=NOW + 599.0)
    after = table.tally(LOGINS, 0, "alice", window=600.0, now=NOW + 600.0)
    assert after.counts == (1, 0, 0)
    assert after.is_new


def test_tally_begins_at_any_reading_of_the_clock(table: SharedTable) -> None:
    for now in (0.0, 0.1, 1e9):
        table.tally(LOGINS, 0, "alice", window=600.0, now=now)
        assert table.tally(LOGINS, 0, "bob", window=600.0, now=now).counts[0] == 2


def test_count_stays_at_its_maximum(table: SharedTable) -> None:
    table.tally(LOGINS, 0, None, window=600.0, now=NOW)
    name = table._table.names[LOGINS]
    at, _ = table._table.find(name)
    table._table.write(name, at, 1, name.seen[1] - 1 | (1 << 20) - 4)
    counts = [table.tally(LOGINS, 0, None, window=600.0, now=NOW).counts[0] for _ in range(4)]
    assert counts == [(1 << 20) - 3] + [(1 << 20) - 2] * 3


# Blocks


def test_block_ends_by_itself(table: SharedTable) -> None:
    assert table.blocked(BLOCKED, NOW) is None
    assert table.block(BLOCKED, 3, GROWTH, NOW) == 60.0
    assert table.blocked(BLOCKED, NOW + 59.0) == Block(reason=3, seconds=1.0)
    assert table.blocked(BLOCKED, NOW + 60.0) is None


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.12, 0.13, 0.24, 0.26, 0.37, 0.99])
def test_block_is_never_longer_than_its_seconds(table: SharedTable, fraction: float) -> None:
    """The client reads the rest in whole seconds: 60, not 61."""
    table.block(BLOCKED, 0, GROWTH, NOW + fraction)
    block = table.blocked(BLOCKED, NOW + fraction)
    assert block
    assert 59.75 <= block.seconds <= 60.0


def test_block_grows_each_time_up_to_a_maximum(table: SharedTable) -> None:
    now, lengths = NOW, []
    for _ in range(9):
        lengths.append(table.block(BLOCKED, 0, GROWTH, now))
        now += lengths[-1]
    assert lengths == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0, 3600.0]


def test_requests_in_flight_when_a_block_begins_do_not_prolong_it(table: SharedTable) -> None:
    table.block(BLOCKED, 0, GROWTH, NOW)
    assert [table.block(BLOCKED, 0, GROWTH, NOW + 1.0) for _ in range(100)] == [0.0] * 100
    assert table.block(BLOCKED, 0, GROWTH, NOW + 60.0) == 120.0


def test_quiet_time_takes_back_one_doubling_after_another(table: SharedTable) -> None:
    now = NOW
    for _ in range(9):
        now += table.block(BLOCKED, 0, GROWTH, now)
    # The block was doubled six times. After three windows three doublings are left, and this block adds one.
    assert table.block(BLOCKED, 0, GROWTH, now + 1800.0) == 960.0
    assert table.block(BLOCKED, 0, GROWTH, now + 100_000.0) == 60.0


# Eviction


def test_flood_of_addresses_takes_no_more_memory_and_evicts_no_count_in_use() -> None:
    area = make_area(entries_bytes(1024))
    table = SharedTable(area)
    take(table, 900)
    table.tally(LOGINS, 0, "alice", window=600.0, now=NOW)
    for number in range(50_000):
        table.take(((("client", str(number)), LIMIT),), NOW + number / 5000)
    assert len(area.memory) == entries_bytes(1024)
    after = SharedTable(area)
    assert not after.tally(LOGINS, 0, "alice", window=600.0, now=NOW + 10.0).is_new
    assert take(after, 1000, now=NOW + 10.0) == 600


def test_tally_whose_window_is_over_is_evicted_first(table: SharedTable) -> None:
    *names, late = names_of_one_bucket(table, 9)
    for name in names[:7]:
        table.tally(("name", name), 0, None, window=600.0, now=NOW)
    table.tally(("name", names[7]), 0, None, window=10.0, now=NOW + 1.0)
    table.tally(("name", late), 0, None, window=600.0, now=NOW + 20.0)
    counts = [
        table.tally(("name", name), 0, None, window=600.0, now=NOW + 21.0).counts[0] for name in names[:7]
    ]
    assert counts == [2] * 7


def test_block_is_evicted_only_for_another_block(table: SharedTable) -> None:
    *names, late = names_of_one_bucket(table, 200)
    early, tallied = names[:8], names[8:]
    for seconds, name in enumerate(early[:7]):
        table.block(("name", name), 0, GROWTH, NOW + seconds)
    for name in tallied:
        table.tally(("name", name), 0, None, window=600.0, now=NOW + 10.0)
    assert all(table.blocked(("name", name), NOW + 10.0) for name in early[:7])
    table.block(("name", early[7]), 0, GROWTH, NOW + 10.0)
    table.block(("name", late), 0, GROWTH, NOW + 10.0)
    blocked = [name for name in [*early, late] if table.blocked(("name", name), NOW + 10.0)]
    assert blocked == [*early[1:], late]


# Several processes


@contextmanager
def children(count: int, work: Callable[[], None]) -> Iterator[list[int]]:
    """Run processes that begin their work together, and wait for their ends."""
    start, go = os.pipe()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            os.close(go)
            os.read(start, 1)
            try:
                work()
            finally:
                os._exit(0)
        pids.append(pid)
    os.close(start)
    os.close(go)
    try:
        yield pids
    finally:
        for pid in pids:
            os.waitpid(pid, 0)


def test_processes_share_counts_and_blocks(table: SharedTable) -> None:
    def work() -> None:
        take(table, 400)
        table.tally(LOGINS, 0, f"principal of {os.getpid()}", window=600.0, now=NOW)
        table.block(BLOCKED, 1, GROWTH, NOW)

    for _ in range(2):
        with children(1, work):
            pass
    assert take(table, 1000) == 200
    assert table.tally(LOGINS, 0, "another", window=600.0, now=NOW).counts[0] == 3
    assert table.blocked(BLOCKED, NOW) == Block(reason=1, seconds=60.0)


def test_next_generation_finds_all_counts_and_blocks(area: Area) -> None:
    old = SharedTable(area)
    take(old, 900)
    old.tally(LOGINS, 0, "alice", window=600.0, now=NOW)
    old.block(BLOCKED, 1, GROWTH, NOW)
    new = SharedTable(area)
    assert take(new, 1000) == 100
    assert not new.tally(LOGINS, 0, "alice", window=600.0, now=NOW).is_new
    assert new.blocked(BLOCKED, NOW) == Block(reason=1, seconds=60.0)


def test_racing_processes_lose_few_counts_and_invent_none(table: SharedTable) -> None:
    each, processes = 5000, 4

    def work() -> None:
        for _ in range(each):
            table.tally(LOGINS, 0, None, window=600.0, now=NOW)

    with children(processes, work):
        pass
    counted = table.tally(LOGINS, 0, None, window=600.0, now=NOW).counts[0] - 1
    # The worst case: more processes than processors only count, under one key.
    assert each // 2 <= counted <= each * processes


def test_process_that_slept_between_reading_and_writing_takes_no_count_back(area: Area) -> None:
    awake = SharedTable(area)
    take(awake, 10)
    awake.tally(LOGINS, 0, None, window=600.0, now=NOW)
    stale = area.memory.tobytes()
    take(awake, 500)
    for _ in range(50):
        awake.tally(LOGINS, 0, None, window=600.0, now=NOW)
    area.memory[:] = stale
    assert take(awake, 1) == 1
    assert awake.tally(LOGINS, 0, None, window=600.0, now=NOW).counts[0] == 52
    assert take(SharedTable(area), 1000) == 489


def test_counts_continue_in_a_window_that_another_process_began(area: Area) -> None:
    area = make_area(entries_bytes(8))
    ours, theirs = SharedTable(area), SharedTable(area)

    def count(table: SharedTable, now: float) -> int:
        return table.tally(LOGINS, 0, None, window=600.0, now=NOW + now).counts[0]

    def displace(now: float) -> None:
        for number in range(16):
            ours.tally(("logins", str(number)), 0, None, window=600.0, now=NOW + now)

    assert count(theirs, 0) == 1
    displace(10)
    assert count(ours, 20) == 1
    assert count(theirs, 21) == 2
    displace(30)
    later = [count(theirs, 40 + number) for number in range(5)]
    assert later == list(range(later[0], later[0] + 5))
    assert later[0] >= 1


def test_processes_killed_while_they_write_leave_a_usable_table(area: Area) -> None:
    table = SharedTable(area)

    def work() -> None:
        number = 0
        while True:
            number += 1
            name = str(number % 3000)
            table.take(((("client", name), LIMIT), (TOTAL, LIMIT)), NOW + number / 1e4)
            table.tally(("logins", name), number % 3, name, window=600.0, now=NOW + number / 1e4)
            table.block(("blocked", name), 1, GROWTH, NOW + number / 1e4)

    for _ in range(20):
        before = area.memory.tobytes()
        with children(2, work) as pids:
            while area.memory == before:
                pass
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
    later = NOW + 1e6
    assert take(SharedTable(area), 1100, now=later) == 1000
    for number in range(3000):
        later += 1.0
        tallies = [
            table.tally(("logins", str(number)), 0, "alice", window=600.0, now=later) for _ in range(2)
        ]
        assert [tally.is_new for tally in tallies] == [True, False]
        assert table.block(("blocked", str(number)), 1, GROWTH, later) == 60.0
