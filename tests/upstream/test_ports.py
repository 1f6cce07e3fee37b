"""Local ports of abandoned datagrams, on real sockets."""

import asyncio
import contextlib
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config import UpstreamConfig
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.protocol.ip_addresses import limited_networks
from kkdcpd.upstream.ports import (
    ANSWERS_PER_PORT,
    PORTS_IN_ALL,
    WINDOW_AT_KDC,
    KdcPorts,
    PortCounts,
    PortPool,
    ports_within,
)
from kkdcpd.upstream.sockets import Readiness
from tests.support.waiting import eventually

KDC = KdcEndpoint(name="a", address="192.0.2.1", port=88, transport=Transport.UDP)
NETWORKS = ("192.0.2.77",)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A socket of ours, which the test hands over, and a socket of a KDC."""
    with socket.socket(type=socket.SOCK_DGRAM) as kdc, contextlib.ExitStack() as until_handed_over:
        kdc.setblocking(False)
        kdc.bind(("127.0.0.1", 0))
        ours = until_handed_over.enter_context(socket.socket(type=socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        ours.connect(kdc.getsockname())
        kdc.connect(ours.getsockname())
        yield ours, kdc


async def is_closed(sock: socket.socket) -> bool:
    return sock.fileno() == -1


async def test_socket_is_kept_until_its_answers_have_come(pair: Pair) -> None:
    sock, kdc = pair
    ports = KdcPorts(Readiness())
    pool = ports.pool(KDC)
    assert pool.take(sock, NETWORKS)
    pool.keep(sock)
    ports.keep(sock, pool, NETWORKS, answers=2, is_answered=False)
    kdc.send(b"first")
    await asyncio.sleep(0.05)
    assert not await is_closed(sock)
    kdc.send(b"second")
    await eventually(lambda: is_closed(sock))


async def test_socket_is_kept_for_a_bounded_time(pair: Pair) -> None:
    sock, _ = pair
    ports = KdcPorts(Readiness(), keep_seconds=0.05)
    pool = ports.pool(KDC)
    assert pool.take(sock, NETWORKS)
    pool.keep(sock)
    ports.keep(sock, pool, NETWORKS, answers=1, is_answered=False)
    assert not await is_closed(sock)
    await eventually(lambda: is_closed(sock))


async def test_socket_is_closed_when_the_port_of_the_kdc_is_closed(pair: Pair) -> None:
    sock, kdc = pair
    ports = KdcPorts(Readiness())
    pool = ports.pool(KDC)
    assert pool.take(sock, NETWORKS)
    pool.keep(sock)
    ports.keep(sock, pool, NETWORKS, answers=1, is_answered=False)
    kdc.close()
    sock.send(b"request")
    await eventually(lambda: is_closed(sock))


async def test_kept_sockets_end_with_the_process(pair: Pair) -> None:
    sock, _ = pair
    ports = KdcPorts(Readiness())
    pool = ports.pool(KDC)
    assert pool.take(sock, NETWORKS)
    pool.keep(sock)
    ports.keep(sock, pool, NETWORKS, answers=1, is_answered=True)
    ports.close()
    assert await is_closed(sock)


def pool_of(ports: int) -> PortPool:
    """Return a pool of this number of ports for one KDC."""
    return PortPool(PortCounts.in_all(2 * ports))


async def test_ports_are_bounded_per_kdc_and_in_all() -> None:
    ports = KdcPorts(Readiness(), in_all=20)
    pools = [ports.pool(replace(KDC, port=number)) for number in range(1, 4)]
    owners = [(pool, number) for pool in pools for number in range(20)]
    taken = [(pool, number) for pool, number in owners if pool.take((pool, number), [f"net {number}"])]
    assert Counter(pool for pool, _ in taken) == dict(zip(pools, (10, 10), strict=False))
    pools[0].give_back(taken[0])
    assert pools[2].take("newcomer", NETWORKS)


def test_one_network_may_have_all_requests_that_may_be_in_flight_at_a_kdc() -> None:
    pool = pool_of(PORTS_IN_ALL // 2)
    limit = UpstreamConfig().max_in_flight_per_kdc
    assert sum(pool.take(number, NETWORKS) for number in range(limit)) == limit


def abandon(pool: PortPool, networks: Sequence[str], number: int) -> int:
    """Abandon datagrams one after the other, without an answer; return the number of ports that they keep."""
    taken = 0
    while taken < number and pool.take("owner", networks):
        pool.keep("owner")
        taken += 1
    return taken


def take_together(pool: PortPool, networks: Sequence[str], number: int) -> int:
    """Abandon datagrams all at once, without an answer; return the number of ports that they keep."""
    owners = [(networks, each) for each in range(number)]
    taken = [owner for owner in owners if pool.take(owner, networks)]
    for owner in taken:
        pool.keep(owner)
    return len(taken)


@pytest.mark.parametrize("spend", [abandon, take_together], ids=["one after the other", "all at once"])
@pytest.mark.parametrize(
    "sources",
    [
        [f"2001:db8:1:{number:x}::1" for number in range(1000)],
        [f"2001:db8:1:{number:x}00::1" for number in range(256)],
        [f"2001:db8:{number:x}::1" for number in range(16, 716)],
        [f"203.0.{number // 250}.{number % 250}" for number in range(700)],
    ],
    ids=["/64s of a /48", "/56s of a /48", "/48s", "IPv4 addresses"],
)
def test_networks_that_abandon_datagrams_leave_ports_to_other_networks(
    sources: Sequence[str], spend: Callable[[PortPool, Sequence[str], int], int]
) -> None:
    """Each network takes what it can get, before the next begins."""
    pool = pool_of(PORTS_IN_ALL // 2)
    for source in sources:
        spend(pool, limited_networks(source), PORTS_IN_ALL)
    assert pool.take("first", limited_networks("198.51.100.1"))
    assert pool.take("second", limited_networks("2001:db8:2::1"))


async def test_attack_on_two_kdcs_leaves_ports_at_a_third() -> None:
    ports = KdcPorts(Readiness())
    first, second, third = (ports.pool(replace(KDC, port=number)) for number in range(1, 4))
    for number in range(500):
        for pool in (first, second):
            abandon(pool, [f"attacker {number}"], PORTS_IN_ALL)
    assert third.take("owner", NETWORKS)


def test_answers_make_the_window_of_their_network_larger_while_ports_are_short() -> None:
    pool = pool_of(400)
    pool.note_answer(["early"])
    attacker = 0
    while abandon(pool, [f"attacker {attacker}"], 400) > WINDOW_AT_KDC:
        attacker += 1
    for _ in range(2 * ANSWERS_PER_PORT):
        assert pool.take("owner", ["office"])
        pool.note_answer(["office"])
        pool.give_back("owner")
    assert sum(pool.take(("office", number), ["office"]) for number in range(9)) == WINDOW_AT_KDC + 2
    assert sum(pool.take(("early", number), ["early"]) for number in range(9)) == WINDOW_AT_KDC


def test_answers_of_many_networks_do_not_open_the_reserved_ports() -> None:
    """Each of many networks first earns as much as it can."""
    pool = pool_of(400)
    abandon(pool, ["attacker"], 400)
    networks = [[f"attacker {number}"] for number in range(50)]
    for _ in range(100):
        for each in networks:
            pool.note_answer(each)
    assert sum(abandon(pool, each, 400) for each in networks) <= 300 / 4 + 50 * WINDOW_AT_KDC


def test_probes_belong_to_no_network_and_need_only_a_free_port() -> None:
    pool = pool_of(40)
    assert [pool.take(number, ()) for number in range(41)] == [True] * 40 + [False]


def test_pool_is_idle_when_all_ports_are_given_back() -> None:
    pool = pool_of(10)
    networks = limited_networks("2001:db8::1")
    for is_kept in (False, True):
        assert pool.take("owner", networks)
        assert not pool.is_idle
        if is_kept:
            pool.keep("owner")
            assert not pool.is_idle
            pool.give_back_kept(networks)
        else:
            pool.give_back("owner")
        assert pool.is_idle


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=200))
def test_ports_are_never_more_than_the_limit(steps: list[tuple[str, bool]]) -> None:
    pool, taken = pool_of(20), Counter[str]()
    for network, wants in steps:
        if wants:
            was_taken = pool.take((network, taken[network]), [network])
            assert was_taken is (taken.total() < 5 or (taken.total() < 20 and taken[network] < WINDOW_AT_KDC))
            taken[network] += was_taken
        elif taken[network]:
            taken[network] -= 1
            pool.give_back((network, taken[network]))
    assert taken.total() <= 20


def test_ports_take_a_small_part_of_the_file_descriptors() -> None:
    assert ports_within(1024) == 170
    assert ports_within(65536) == ports_within(resource.RLIM_INFINITY) == PORTS_IN_ALL
