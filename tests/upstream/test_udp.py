"""One UDP attempt on real sockets. Tests of whole exchanges are in test_driver.py."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.endpoints import Transport
from kkdcpd.upstream.ports import KdcPorts
from kkdcpd.upstream.sockets import Readiness
from kkdcpd.upstream.udp import UdpAttempt
from kkdcpd.values import Attempt
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import FakeKdc, Link
from tests.support.recorder import EventRecorder
from tests.support.upstream import endpoint, request_of
from tests.support.waiting import eventually

REPLY = messages.as_rep()


@dataclass
class Ways:
    """Makes attempts over one set of local ports."""

    ports: KdcPorts
    readiness: Readiness

    def attempt_at(self, kdc: FakeKdc, events: EventRecorder) -> UdpAttempt:
        attempt = Attempt(number=1, endpoint=endpoint(kdc, Transport.UDP))
        return UdpAttempt(
            attempt, events, networks=("net",), readiness=self.readiness, ports=self.ports, sources={}
        )


@contextlib.contextmanager
def open_ways(**bounds: Any) -> Iterator[Ways]:
    readiness = Readiness()
    with contextlib.closing(KdcPorts(readiness, **bounds)) as ports:
        yield Ways(ports, readiness)


@pytest.fixture
async def ways() -> AsyncIterator[Ways]:
    with open_ways() as ways:
        yield ways


async def test_datagram_goes_without_its_length_and_so_does_the_reply(ways: Ways) -> None:
    events = EventRecorder()
    async with FakeKdc(udp=fake_kdc.reply(REPLY)) as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        assert await events.next() == "connected"
        way.send(request_of(messages.as_req()))
        assert await events.next() == REPLY
        assert kdc.messages == [messages.as_req()]


async def test_datagram_from_another_port_is_dropped(ways: Ways) -> None:
    """Only the KDC knows the port of our socket. Here the KDC gives the port to another sender."""
    events = EventRecorder()

    async def betray(link: Link) -> None:
        await link.message()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setblocking(False)
            stranger.bind(("127.0.0.1", 0))
            for port in sent_from:
                stranger.sendto(b"stray", ("127.0.0.1", port))
        await link.reply(REPLY)

    sent_from: set[int] = set()
    async with FakeKdc(udp=betray) as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        sent_from |= await asyncio.to_thread(_ports_to, kdc)
        assert sent_from
        await events.next()
        way.send(request_of(messages.as_req()))
        assert await events.next() == REPLY


def _ports_to(kdc: FakeKdc) -> set[int]:
    """Return the local UDP ports that are connected to the KDC."""
    sockets = [line.split() for line in Path("/proc/self/net/udp").read_text("ascii").splitlines()[1:]]
    return {_port(fields[1]) for fields in sockets if _port(fields[2]) == kdc.port}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


async def test_closed_port_is_reported_as_refused(ways: Ways) -> None:
    events = EventRecorder()
    async with FakeKdc() as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        assert await events.next() == "refused"


async def test_message_too_big_for_a_datagram_is_reported_and_not_sent(ways: Ways) -> None:
    events = EventRecorder()
    async with FakeKdc(udp=fake_kdc.reply(REPLY)) as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req(padata=[(149, bytes(70_000))])))
        assert await events.next() == "message_too_big"
        assert kdc.messages == []


async def test_closed_attempt_has_no_events_and_may_be_closed_twice(ways: Ways) -> None:
    events = EventRecorder()
    is_closed = asyncio.Event()
    async with FakeKdc(udp=fake_kdc.reply(REPLY, when=is_closed)) as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        await kdc.wait_for_messages()
        way.close()
        way.close()
        is_closed.set()
        await asyncio.sleep(0)
        assert events.is_quiet


async def test_message_may_be_sent_again_and_every_answer_comes_to_the_same_port(ways: Ways) -> None:
    events = EventRecorder()

    async def answer_the_second(link: Link) -> None:
        await link.message()
        if len(kdc.messages) == 2:
            await link.reply(REPLY)

    async with FakeKdc(udp=answer_the_second) as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        await events.next()
        for _ in range(2):
            way.send(request_of(messages.as_req()))
        assert await events.next() == REPLY
        assert kdc.messages == [messages.as_req()] * 2


@pytest.mark.parametrize(
    ("request_", "foreign", "reply"),
    [
        (messages.as_req(), messages.tgs_rep(), messages.as_rep()),
        (messages.tgs_req(), messages.as_rep(), messages.tgs_rep()),
    ],
    ids=["AS-REQ", "TGS-REQ"],
)
async def test_reply_to_another_kind_of_request_is_dropped(
    ways: Ways, request_: bytes, foreign: bytes, reply: bytes
) -> None:
    events = EventRecorder()

    async def mistake(link: Link) -> None:
        await link.message()
        await link.reply(foreign)
        await link.reply(reply)

    async with FakeKdc(udp=mistake) as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(request_))
        assert await events.next() == reply


async def test_datagram_from_before_the_message_is_dropped(ways: Ways) -> None:
    """Another process of this host may have just closed a socket with this port."""
    events = EventRecorder()
    stale = messages.krb_error(25)

    with socket.socket(type=socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as kdc:
        kdc.bind(("127.0.0.1", 0))
        fake = FakeKdc()
        fake.port = kdc.getsockname()[1]
        way = ways.attempt_at(fake, events)
        way.start()
        (port,) = await asyncio.to_thread(_ports_to, fake)
        kdc.sendto(stale, ("127.0.0.1", port))
        way.send(request_of(messages.as_req()))
        _, peer = kdc.recvfrom(65536)
        kdc.sendto(REPLY, peer)
        await events.next()
        assert await events.next() == REPLY


async def test_port_of_an_abandoned_datagram_is_not_free_before_its_answer_came(ways: Ways) -> None:
    events = EventRecorder()
    may_answer = asyncio.Event()
    async with FakeKdc(udp=fake_kdc.reply(REPLY, when=may_answer)) as kdc:
        way = ways.attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        await kdc.wait_for_messages()
        way.close()
        assert len(await asyncio.to_thread(_ports_to, kdc)) == 1
        may_answer.set()

        async def is_free() -> bool:
            return not await asyncio.to_thread(_ports_to, kdc)

        await eventually(is_free)
        assert events.is_quiet


async def test_attempt_fails_when_its_network_has_its_share_of_ports(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events = EventRecorder()
    async with FakeKdc(udp=fake_kdc.silent()) as kdc:
        with open_ways(in_all=2) as ways:
            first = ways.attempt_at(kdc, events)
            first.start()
            await events.next()
            first.send(request_of(messages.as_req()))
            first.close()
            ways.attempt_at(kdc, events).start()
            assert await events.next() == "port_limit"
    (record,) = [record for record in caplog.records if record.message == "port_limit"]
    assert "TCP" in record.fields["advice"]  # type: ignore[attr-defined]
    assert "ip_local_port_range" not in record.fields["advice"]  # type: ignore[attr-defined]


async def test_answered_and_unused_ports_are_free_at_once(ways: Ways) -> None:
    events = EventRecorder()
    async with FakeKdc(udp=fake_kdc.reply(REPLY)) as kdc:
        unused, answered = ways.attempt_at(kdc, events), ways.attempt_at(kdc, events)
        for way in (unused, answered):
            way.start()
            await events.next()
        answered.send(request_of(messages.as_req()))
        assert await events.next() == REPLY
        unused.close()
        assert not await asyncio.to_thread(_ports_to, kdc)
