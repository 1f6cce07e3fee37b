"""Local ports of abandoned datagrams, on real sockets."""

import asyncio
import contextlib
import resource
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config import UpstreamConfig
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.protocol.ip_addresses import limited_networks
from kkdcpd.upstream.ports import CHARGE_IN_USE, PORTS_IN_ALL, PORTS_PER_KDC, KdcPorts, PortPool, ports_within
from kkdcpd.upstream.sockets import Readiness
from tests.support.waiting import eventually

KDC = KdcEndpoint(name="a", address="192.0.2.1", port=88, transport=Transport.UDP)
NETWORKS = ("192.0.2.77",)

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A local socket, which the test gives away, and the socket of a KDC."""
    with socket.socket(type=socket.SOCK_DGRAM) as kdc, contextlib.ExitStack() as unless_given_away:
        kdc.setblocking(False)
        kdc.bind(("127.0.0.1", 0))
        ours = unless_given_away.enter_context(socket.socket(type=socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
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


async def test_closed_port_of_the_kdc_will_not_answer(pair: Pair) -> None:
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


async def test_ports_are_bounded_per_kdc_and_in_all() -> None:
    ports = KdcPorts(Readiness(), per_kdc=8, in_all=20)
    pools = [ports.pool(replace(KDC, port=number)) for number in range(1, 4)]
    owners = [(pool, number) for pool in pools for number in range(20)]
    taken = [(pool, number) for pool, number in owners if pool.take((pool, number), [f"net {number}"])]
    assert Counter(pool for pool, _ in taken) == dict(zip(pools, (8, 8, 4), strict=True))
    pools[0].give_back(taken[0])
    assert pools[2].take("newcomer", NETWORKS)


async def test_one_network_may_have_all_requests_that_may_be_in_flight_at_a_kdc() -> None:
    pool = PortPool(PORTS_PER_KDC)
    assert (
        sum(pool.take(number, NETWORKS) for number in range(1000)) == UpstreamConfig().max_in_flight_per_kdc
    )


def abandon(pool: PortPool, networks: Sequence[str], number: int) -> int:
    """Take ports without answers, one after the other. Return the number of taken ports."""
    taken = 0
    while taken < number and pool.take("owner", networks):
        pool.keep("owner")
        taken += 1
    return taken


@pytest.mark.parametrize(
    "sources",
    [
        [f"2001:db8:1:{number:x}::1" for number in range(1000)],
        [f"2001:db8:1:{number:x}00::1" for number in range(256)],
        [f"192.0.2.{number}" for number in range(40)],
    ],
    ids=["/64s of a /48", "/56s of a /48", "IPv4 addresses"],
)
def test_networks_that_abandon_datagrams_leave_ports_to_other_networks(sources: Sequence[str]) -> None:
    """Each network takes all ports that it can get before the next network begins."""
    pool = PortPool(PORTS_PER_KDC)
    for source in sources:
        abandon(pool, limited_networks(source), PORTS_PER_KDC)
    assert pool.take("first", limited_networks("198.51.100.1"))
    assert pool.take("second", limited_networks("2001:db8:2::1"))


def test_pool_is_idle_and_remembers_no_network_once_all_ports_are_given_back() -> None:
    pool = PortPool(10)
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
    pool, taken = PortPool(20), Counter[str]()
    for network, wants in steps:
        if wants:
            free = 20 - taken.total()
            was_taken = pool.take((network, taken[network]), [network])
            assert was_taken is (CHARGE_IN_USE * taken[network] < free)
            taken[network] += was_taken
        elif taken[network]:
            taken[network] -= 1
            pool.give_back((network, taken[network]))
    assert taken.total() <= 20


def test_ports_take_a_small_part_of_the_file_descriptors() -> None:
    assert ports_within(1024) == 128
    assert ports_within(65536) == ports_within(resource.RLIM_INFINITY) == PORTS_IN_ALL
