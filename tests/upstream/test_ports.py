"""Local ports of abandoned datagrams, on real sockets."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

import pytest

from kkdcpd.upstream.ports import PORTS_IN_ALL, KdcPorts, ports_within
from kkdcpd.upstream.readiness import Readiness
from kkdcpd.values import KdcEndpoint, Transport
from tests.support.waiting import eventually

OWNER = (KdcEndpoint(name="a", address="192.0.2.1", port=88, transport=Transport.UDP), "net-a")
OTHER = (KdcEndpoint(name="b", address="192.0.2.2", port=88, transport=Transport.UDP), "net-b")

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A socket of ours, which the test gives away, and a KDC's."""
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
    assert ports.take(*OWNER)
    ports.keep(sock, *OWNER, answers=2, is_answered=False)
    kdc.send(b"first")
    await asyncio.sleep(0.05)
    assert not await is_closed(sock)
    kdc.send(b"second")
    await eventually(lambda: is_closed(sock))


async def test_socket_is_kept_for_a_bounded_time(pair: Pair) -> None:
    sock, _ = pair
    ports = KdcPorts(Readiness(), keep_seconds=0.05)
    ports.take(*OWNER)
    ports.keep(sock, *OWNER, answers=1, is_answered=False)
    assert not await is_closed(sock)
    await eventually(lambda: is_closed(sock))


async def test_closed_port_of_the_kdc_will_not_answer(pair: Pair) -> None:
    sock, kdc = pair
    ports = KdcPorts(Readiness())
    ports.take(*OWNER)
    ports.keep(sock, *OWNER, answers=1, is_answered=False)
    kdc.close()
    sock.send(b"request")
    await eventually(lambda: is_closed(sock))


async def test_kept_sockets_end_with_the_process(pair: Pair) -> None:
    sock, _ = pair
    ports = KdcPorts(Readiness())
    ports.take(*OWNER)
    ports.keep(sock, *OWNER, answers=1, is_answered=True)
    ports.close()
    assert await is_closed(sock)


async def test_ports_are_bounded_per_kdc_and_in_all_and_shared_between_networks() -> None:
    ports = KdcPorts(Readiness(), per_kdc=8, in_all=20)
    assert sum(ports.take(*OWNER) for _ in range(20)) == 4
    assert ports.take(OWNER[0], "net-b")
    assert sum(ports.take(*OTHER) for _ in range(20)) == 4
    for number in range(5):
        endpoint = KdcEndpoint(name="c", address=f"192.0.2.{number}", port=89, transport=Transport.UDP)
        while ports.take(endpoint, "net-a"):
            pass
    assert not ports.take(OTHER[0], "net-a")
    ports.give_back(*OWNER)
    assert ports.take(OTHER[0], "net-c")


def test_ports_take_a_small_part_of_the_file_descriptors() -> None:
    assert ports_within(1024) == 128
    assert ports_within(65536) == ports_within(resource.RLIM_INFINITY) == PORTS_IN_ALL
