"""Counts of who is here: exact over processes, and rid of those that were killed."""

import mmap
import os
import signal
import time

import pytest

from kkdcpd.guard.occupancy import MAX_ROWS, SECRET_BYTES, Occupancy, clear_row, make_memory

CLIENT = "192.0.2.1"
OTHER = "2001:db8::/64"


@pytest.fixture
def memory() -> mmap.mmap:
    return make_memory(4, os.urandom(SECRET_BYTES))


def counts(occupancy: Occupancy) -> tuple[int, int, int]:
    return occupancy.count(CLIENT), occupancy.count(OTHER), occupancy.total


def test_who_enters_counts_until_it_leaves(memory: mmap.mmap) -> None:
    here = Occupancy(memory, 0)
    assert counts(here) == (0, 0, 0)
    for client in (CLIENT, CLIENT, OTHER):
        here.enter(client)
    assert counts(here) == (2, 1, 3)
    here.leave(CLIENT)
    assert counts(here) == (1, 1, 2)
    here.leave(CLIENT)
    here.leave(OTHER)
    assert counts(here) == (0, 0, 0)


def test_wider_networks_are_counted_with_their_client(memory: mmap.mmap) -> None:
    here, there = Occupancy(memory, 0), Occupancy(memory, 1)
    here.enter("2001:db8:0:1::/64", "2001:db8::/56", "2001:db8::/48")
    there.enter("2001:db8:0:2::/64", "2001:db8::/56", "2001:db8::/48")
    there.enter("2001:db8:0:100::/64", "2001:db8:0:100::/56", "2001:db8::/48")
    wide = "2001:db8::/56", "2001:db8::/48"
    assert [here.count(network) for network in ("2001:db8:0:1::/64", *wide)] == [1, 2, 3]
    assert here.total == there.total == 3
    there.leave("2001:db8:0:2::/64", "2001:db8::/56", "2001:db8::/48")
    assert [here.count(network) for network in ("2001:db8:0:2::/64", *wide)] == [0, 1, 2]
    assert here.total == 2


def test_who_never_entered_does_not_leave(memory: mmap.mmap) -> None:
    here = Occupancy(memory, 0)
    with pytest.raises(KeyError):
        here.leave(CLIENT)
    assert counts(here) == (0, 0, 0)


def test_rows_add_up(memory: mmap.mmap) -> None:
    one, two = Occupancy(memory, 0), Occupancy(memory, 1)
    assert one.enter(CLIENT) == (1, 1)
    assert two.enter(CLIENT) == (2, 2)
    assert two.enter(OTHER) == (1, 3)
    assert counts(one) == counts(two) == (2, 1, 3)


def test_row_that_is_cleared_counts_no_more_and_its_next_process_begins_anew(memory: mmap.mmap) -> None:
    one, two = Occupancy(memory, 0), Occupancy(memory, 1)
    one.enter(CLIENT)
    two.enter(CLIENT)
    clear_row(memory, 1)
    assert counts(one) == (1, 0, 1)
    again = Occupancy(memory, 1)
    assert counts(one) == counts(again) == (1, 0, 1)
    again.enter(OTHER)
    assert counts(one) == (1, 1, 2)


def test_row_with_clients_of_a_killed_process_but_none_in_its_total_begins_anew_too(
    memory: mmap.mmap,
) -> None:
    """It may be killed between the two counts."""
    one = Occupancy(memory, 0)
    one.enter(CLIENT)
    one._words[one._own] = 0
    clear_row(memory, 0)
    assert counts(Occupancy(memory, 0)) == (0, 0, 0)


def test_counts_of_processes_at_work_are_exact(memory: mmap.mmap) -> None:
    """Each enters and leaves many times, and stays with what its number says."""
    here = Occupancy(memory, 0)
    pids = []
    for row in (1, 2, 3):
        pid = os.fork()
        if not pid:
            there = Occupancy(memory, row)
            for _ in range(5000):
                there.enter(CLIENT)
                there.enter(OTHER)
                there.leave(CLIENT)
                there.leave(OTHER)
            for _ in range(row):
                there.enter(CLIENT)
            signal.pause()
        pids.append(pid)
    end = time.monotonic() + 20
    while counts(here) != (6, 0, 6):
        assert time.monotonic() < end
        time.sleep(0.01)
    for row, pid in enumerate(pids, start=1):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        clear_row(memory, row)
    assert counts(here) == (0, 0, 0)


@pytest.mark.parametrize(("rows", "secret"), [(MAX_ROWS + 1, bytes(SECRET_BYTES)), (1, b"short")])
def test_what_does_not_fit_is_refused(rows: int, secret: bytes) -> None:
    with pytest.raises(ValueError, match="rows"):
        make_memory(rows, secret)


def test_memory_that_nobody_writes_to_takes_none() -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * mmap.PAGESIZE

    big = make_memory(128, bytes(SECRET_BYTES))
    before = resident()
    here = Occupancy(big, 5)
    for number in range(10):
        here.enter(f"192.0.2.{number}")
    assert resident() - before < 1048576
