"""Connections that are closed to make room for another one, by the limit that is reached."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from kkdcpd.config import ConnectionsConfig
from kkdcpd.frontends.http.connection_limits import (
    LARGE_LOAD,
    LOAD,
    MOST_MEMBERS,
    PROXIES,
    ConnectionLimits,
)
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol.ip_addresses import networks_of
from kkdcpd.shared_memory.network_counts import NetworkCounts, clear_row
from kkdcpd.values import ConnectionActivity, ConnectionRefusal
from tests.support.shared import own_counts, shared_memory
from tests.support.waiting import eventually

IDLE, RECEIVING, SERVING = ConnectionActivity.IDLE, ConnectionActivity.RECEIVING, ConnectionActivity.SERVING
MAXIMUM, PER_CLIENT = ConnectionRefusal.MAXIMUM, ConnectionRefusal.PER_CLIENT
PER_NETWORK = ConnectionRefusal.PER_NETWORK


def limits_of(counts: NetworkCounts | None = None, **settings: Any) -> ConnectionLimits:
    return ConnectionLimits(counts or own_counts(), ConnectionsConfig(**settings), Counters.discarding())


class Connection:
    """A connection that does what a test says."""

    def __init__(
        self, limits: ConnectionLimits, address: str, activity: ConnectionActivity = SERVING
    ) -> None:
        self.activity = activity
        self.address = address
        self.evicted_for: ConnectionRefusal | None = None
        self._limits = limits
        self.refusal = limits.enter(self, networks_of(address) if address != "proxy" else PROXIES)

    def evict(self, reason: ConnectionRefusal) -> None:
        self.evicted_for = reason
        self._limits.leave(self)

    def leave(self) -> None:
        self._limits.leave(self)


def connect(
    limits: ConnectionLimits, *addresses: str, activity: ConnectionActivity = SERVING
) -> list[Connection]:
    """Connect from each address."""
    return [Connection(limits, address, activity) for address in addresses]


def refusals(connections: Iterable[Connection]) -> list[ConnectionRefusal | None]:
    return [connection.refusal for connection in connections]


def evicted(connections: Iterable[Connection]) -> list[int]:
    """Which of them were closed, by their position."""
    return [number for number, connection in enumerate(connections) if connection.evicted_for]


# -- The limits ----------------------------------------------------------------------------------------------


async def test_limits_hold_for_client_networks_and_all() -> None:
    limits = limits_of(per_client=2, per_network=4, maximum=16)
    assert refusals(connect(limits, *["192.0.2.1"] * 3)) == [None, None, PER_CLIENT]
    assert refusals(connect(limits, *["192.0.2.2"] * 3)) == [None, None, PER_CLIENT]
    assert refusals(connect(limits, "192.0.2.3", "192.0.3.1")) == [PER_NETWORK, None]
    assert limits.open == 5


@pytest.mark.parametrize(
    ("addresses", "reason"),
    [
        (["2001:db8::1", "2001:db8::2", "2001:db8::3"], PER_CLIENT),
        ([f"2001:db8:0:{n}::1" for n in range(5)], PER_NETWORK),  # one /56 has half of a /48's
        ([f"2001:db8:0:{n}00::1" for n in range(9)], PER_NETWORK),
    ],
)
async def test_ipv6_networks_of_every_width_have_their_limit(
    addresses: list[str], reason: ConnectionRefusal
) -> None:
    limits = limits_of(per_client=2, per_network=8)
    *admitted, last = refusals(connect(limits, *addresses))
    assert set(admitted) == {None}
    assert last is reason
    assert refusals(connect(limits, "2001:db8:1::1")) == [None]


async def test_network_has_no_less_than_a_client() -> None:
    limits = limits_of(per_client=9, per_network=4)
    assert refusals(connect(limits, *["2001:db8::1"] * 10)) == [None] * 9 + [PER_CLIENT]


async def test_proxies_have_only_the_limit_of_all() -> None:
    limits = limits_of(per_client=1, per_network=1, maximum=16)
    assert refusals(connect(limits, *["proxy"] * 17)) == [None] * 16 + [MAXIMUM]


async def test_ended_connection_no_longer_counts() -> None:
    limits = limits_of(per_client=2)
    first, _second, third = connect(limits, *["192.0.2.1"] * 3)
    assert third.refusal is PER_CLIENT
    first.leave()
    first.leave()
    assert refusals(connect(limits, "192.0.2.1")) == [None]
    assert limits.open == 2


async def test_processes_count_together() -> None:
    memory = shared_memory().connections
    settings = ConnectionsConfig(maximum=16, per_client=2)
    first, second = (
        ConnectionLimits(NetworkCounts(memory, row), settings, Counters.discarding()) for row in range(2)
    )
    assert refusals(connect(first, "192.0.2.1")) == refusals(connect(second, "192.0.2.1")) == [None]
    assert refusals(connect(first, "192.0.2.1")) == [PER_CLIENT]
    assert refusals(connect(second, *[f"198.51.{n}.1" for n in range(14)])) == [None] * 14
    assert refusals(connect(first, "203.0.113.1")) == [MAXIMUM]
    clear_row(memory, 1)
    assert refusals(connect(first, "192.0.2.1", "203.0.113.1")) == [None, None]


# -- Making room ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("activities", "closed"),
    [
        ([SERVING, IDLE, RECEIVING, IDLE], 1),
        ([RECEIVING, SERVING, IDLE, IDLE], 2),
        ([SERVING, RECEIVING, RECEIVING, SERVING], 1),
    ],
)
async def test_oldest_idle_connection_goes_first_then_the_oldest_that_receives(
    activities: list[ConnectionActivity], closed: int
) -> None:
    limits = limits_of(per_client=4)
    connections = [Connection(limits, "192.0.2.1", activity) for activity in activities]
    assert refusals(connect(limits, "192.0.2.1")) == [None]
    assert evicted(connections) == [closed]
    assert connections[closed].evicted_for is PER_CLIENT
    assert limits.open == 4


async def test_request_in_flight_is_never_closed() -> None:
    limits = limits_of(per_client=4, maximum=16)
    connections = connect(limits, *[f"192.0.{n}.1" for n in range(16)])
    assert refusals(connect(limits, "198.51.100.1")) == [MAXIMUM]
    assert evicted(connections) == []


async def test_limit_of_a_network_closes_connections_of_that_network_only() -> None:
    limits = limits_of(per_client=2, per_network=4, maximum=64)
    others = connect(limits, *["198.51.100.1"] * 2, *["198.51.100.2"] * 2, activity=IDLE)
    small = connect(limits, *["192.0.2.1"] * 2, "192.0.2.2", "192.0.2.3", activity=IDLE)
    assert refusals(connect(limits, "192.0.2.4")) == [None]
    assert (evicted(others), evicted(small)) == ([], [0])
    assert small[0].evicted_for is PER_NETWORK


@pytest.mark.parametrize(
    "attackers",
    [
        ["192.0.2.1"] * 12,
        [f"192.0.2.{n}" for n in range(12)],
        ["2001:db8::1"] * 12,
        [f"2001:db8:0:{n}::1" for n in range(12)],  # /64s of one /56
        [f"2001:db8:0:{n}00::1" for n in range(12)],  # /56s of one /48
    ],
)
async def test_largest_network_makes_room_whatever_its_width(attackers: list[str]) -> None:
    limits = limits_of(maximum=16)
    honest = connect(limits, *[f"203.0.{n}.1" for n in range(4)], activity=IDLE)
    attack = connect(limits, *attackers, activity=RECEIVING)
    assert refusals(connect(limits, *[f"198.51.{n}.1" for n in range(8)])) == [None] * 8
    assert (evicted(honest), evicted(attack)) == ([], list(range(8)))


async def test_larger_network_makes_no_room_by_a_smaller_one() -> None:
    limits = limits_of(maximum=16)
    small = connect(limits, *[f"203.0.{n}.1" for n in range(4)], activity=IDLE)
    large = connect(limits, *["192.0.2.1"] * 12)
    assert refusals(connect(limits, "192.0.2.1")) == [MAXIMUM]
    assert evicted(small) == []
    large[3].activity = IDLE
    assert refusals(connect(limits, "192.0.2.1")) == [None]
    assert evicted(large) == [3]


async def test_busy_network_leaves_making_room_to_the_next_one() -> None:
    limits = limits_of(maximum=16)
    connect(limits, *["192.0.2.1"] * 12)
    idle = connect(limits, *["198.51.100.1"] * 4, activity=IDLE)
    assert refusals(connect(limits, "203.0.113.1")) == [None]
    assert evicted(idle) == [0]


async def test_proxies_make_room_last() -> None:
    limits = limits_of(maximum=16)
    proxies = connect(limits, *["proxy"] * 14, activity=IDLE)
    clients = connect(limits, "192.0.2.1", "192.0.2.2", activity=IDLE)
    assert refusals(connect(limits, *[f"203.0.{n}.1" for n in range(3)])) == [None] * 3
    assert (evicted(clients), evicted(proxies)) == ([0, 1], [0])


async def test_idle_connection_behind_many_busy_ones_is_found() -> None:
    count = 2 * MOST_MEMBERS
    limits = limits_of(per_client=count)
    connections = connect(limits, *["192.0.2.1"] * count)
    connections[-1].activity = IDLE
    found = refusals(connect(limits, *["192.0.2.1"] * 2))
    assert None in found
    assert evicted(connections) == [count - 1]


# -- Keeping room --------------------------------------------------------------------------------------------


async def test_process_that_accepts_nothing_closes_its_share_before_the_maximum_is_reached() -> None:
    """As a worker that drains: the connections are its own, and those that come are another's."""
    memory = shared_memory().connections
    settings = ConnectionsConfig(maximum=64)
    draining, serving = (
        ConnectionLimits(NetworkCounts(memory, row), settings, Counters.discarding()) for row in range(2)
    )
    old = connect(draining, *["192.0.2.1"] * 60, activity=IDLE)
    connect(serving, *["198.51.100.1"] * 4)
    assert refusals(connect(serving, "203.0.113.1")) == [MAXIMUM]

    async def has_room() -> bool:
        return refusals(connect(serving, "203.0.113.1")) == [None]

    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(limits.keep_room(), name="room") for limits in (draining, serving)]
        await eventually(has_room)
        for task in keeping:
            task.cancel()
    assert evicted(old) == list(range(len(evicted(old))))
    assert 2 <= len(evicted(old)) <= 8


# -- Many networks -------------------------------------------------------------------------------------------


async def test_limits_hold_again_after_the_load_has_come_and_gone() -> None:
    """The state for evictions is kept only near a limit."""
    limits = limits_of(per_client=4, per_network=4, maximum=6)
    for _ in range(3):
        held = connect(limits, *["192.0.2.1"] * 4, *["198.51.100.1"] * 2, activity=IDLE)
        (newcomer,) = connect(limits, "203.0.113.1")
        assert (newcomer.refusal, evicted(held)) == (None, [0])
        for connection in [*held[1:], newcomer]:
            connection.leave()
    assert refusals(connect(limits, *["192.0.2.1"] * 5)) == [None] * 4 + [PER_CLIENT]


async def test_state_goes_with_the_connections() -> None:
    limits = limits_of(maximum=16)
    for number in range(2000):
        (connection,) = connect(limits, f"2001:db8:{number:x}::1", activity=IDLE)
        connection.leave()
    assert limits.open == 0
    for level in limits._all_levels:
        assert (level.members, level._by_size, level._largest) == ({}, {}, 0)


# -- Memory that a load leaves behind ------------------------------------------------------------------------


async def test_load_has_dropped_once_when_half_of_it_is_gone() -> None:
    limits = limits_of(maximum=1000, per_client=1000)
    assert not limits.has_load_dropped()
    connections = connect(limits, *["192.0.2.1"] * LOAD)
    assert not limits.has_load_dropped()
    for connection in connections[: LOAD // 2]:
        connection.leave()
    assert [limits.has_load_dropped() for _ in range(2)] == [True, False]
    for connection in connections[LOAD // 2 :]:
        connection.leave()
    assert not limits.has_load_dropped()


async def test_large_load_is_outlived_when_hardly_any_connection_is_left() -> None:
    limits = limits_of(maximum=1000, per_client=1000)
    connections = connect(limits, *["192.0.2.1"] * (LARGE_LOAD - 1))
    connections.pop().leave()
    assert not limits.has_outlived_load
    connections += connect(limits, *["192.0.2.1"] * 2)
    while limits.open > LARGE_LOAD / 10:
        assert not limits.has_outlived_load
        connections.pop().leave()
    assert limits.has_outlived_load
    connect(limits, "192.0.2.1")
    assert not limits.has_outlived_load
