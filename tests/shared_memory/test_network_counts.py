import mmap
import os
import signal
import time

import pytest

from kkdcpd.shared_memory.areas import Area, make_area
from kkdcpd.shared_memory.network_counts import HEADER_BYTES, NetworkCounts, clear_row, counts_bytes

CLIENT = "192.0.2.1"
OTHER = "2001:db8::/64"


@pytest.fixture
def area() -> Area:
    return make_area(counts_bytes(4))


def counts(view: NetworkCounts) -> tuple[int, int, int]:
    return view.count(CLIENT), view.count(OTHER), view.total


def test_networks_count_until_they_are_removed(area: Area) -> None:
    here = NetworkCounts(area, 0)
    assert counts(here) == (0, 0, 0)
    for network in (CLIENT, CLIENT, OTHER):
        here.add(network)
    assert counts(here) == (2, 1, 3)
    here.remove(CLIENT)
    assert counts(here) == (1, 1, 2)
    here.remove(CLIENT)
    here.remove(OTHER)
    assert counts(here) == (0, 0, 0)


def test_wider_networks_are_counted_with_the_client_network(area: Area) -> None:
    here, there = NetworkCounts(area, 0), NetworkCounts(area, 1)
    here.add("2001:db8:0:1::/64", "2001:db8::/56", "2001:db8::/48")
    there.add("2001:db8:0:2::/64", "2001:db8::/56", "2001:db8::/48")
    there.add("2001:db8:0:100::/64", "2001:db8:0:100::/56", "2001:db8::/48")
    wide = "2001:db8::/56", "2001:db8::/48"
    assert [here.count(network) for network in ("2001:db8:0:1::/64", *wide)] == [1, 2, 3]
    assert here.total == there.total == 3
    there.remove("2001:db8:0:2::/64", "2001:db8::/56", "2001:db8::/48")
    assert [here.count(network) for network in ("2001:db8:0:2::/64", *wide)] == [0, 1, 2]
    assert here.total == 2


def test_network_that_was_never_added_cannot_be_removed(area: Area) -> None:
    here = NetworkCounts(area, 0)
    with pytest.raises(ValueError, match="format"):
        here.remove(CLIENT)
    assert counts(here) == (0, 0, 0)


def test_rows_add_up(area: Area) -> None:
    one, two = NetworkCounts(area, 0), NetworkCounts(area, 1)
    assert one.add(CLIENT) == (1, 1)
    assert two.add(CLIENT) == (2, 2)
    assert two.add(OTHER) == (1, 3)
    assert counts(one) == counts(two) == (2, 1, 3)


def test_cleared_row_does_not_count_and_its_next_process_begins_at_zero(area: Area) -> None:
    one, two = NetworkCounts(area, 0), NetworkCounts(area, 1)
    one.add(CLIENT)
    two.add(CLIENT)
    clear_row(area, 1)
    assert counts(one) == (1, 0, 1)
    again = NetworkCounts(area, 1)
    assert counts(one) == counts(again) == (1, 0, 1)
    again.add(OTHER)
    assert counts(one) == (1, 1, 2)


def test_row_of_a_process_killed_between_two_counters_begins_at_zero(
    area: Area,
) -> None:
    """The network is counted, the total is not."""
    one = NetworkCounts(area, 0)
    one.add(CLIENT)
    one._words[one._own] = 0
    clear_row(area, 0)
    assert counts(NetworkCounts(area, 0)) == (0, 0, 0)


def test_counts_are_exact_while_processes_work(area: Area) -> None:
    """Each process adds and removes many times, and keeps as many as the number of its row."""
    here = NetworkCounts(area, 0)
    pids = []
    for row in (1, 2, 3):
        pid = os.fork()
        if not pid:
            there = NetworkCounts(area, row)
            for _ in range(5000):
                there.add(CLIENT)
                there.add(OTHER)
                there.remove(CLIENT)
                there.remove(OTHER)
            for _ in range(row):
                there.add(CLIENT)
            signal.pause()
        pids.append(pid)
    end = time.monotonic() + 20
    while counts(here) != (6, 0, 6):
        assert time.monotonic() < end
        time.sleep(0.01)
    for row, pid in enumerate(pids, start=1):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        clear_row(area, row)
    assert counts(here) == (0, 0, 0)


def test_header_limits_the_rows() -> None:
    with pytest.raises(ValueError, match="rows"):
        counts_bytes(HEADER_BYTES + 1)


def test_unused_rows_take_no_memory() -> None:
    def resident() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * mmap.PAGESIZE

    big = make_area(counts_bytes(128))
    before = resident()
    here = NetworkCounts(big, 5)
    for number in range(10):
        here.add(f"192.0.2.{number}")
    assert resident() - before < 1048576
