"""One UDP attempt on real sockets. What an exchange makes of it is in test_driver.py."""

import asyncio
import socket

from kkdcpd.upstream.readiness import Readiness
from kkdcpd.upstream.udp import UdpAttempt
from kkdcpd.values import Attempt, Transport
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import FakeKdc, Link
from tests.support.recorder import EventRecorder
from tests.support.upstream import endpoint, request_of

REPLY = messages.as_rep()


def attempt_at(kdc: FakeKdc, events: EventRecorder) -> UdpAttempt:
    attempt = Attempt(number=1, endpoint=endpoint(kdc, Transport.UDP))
    return UdpAttempt(attempt, events, readiness=Readiness(), sources={})


async def test_datagram_goes_without_its_length_and_so_does_the_reply() -> None:
    events = EventRecorder()
    async with FakeKdc(udp=fake_kdc.reply(REPLY)) as kdc:
        way = attempt_at(kdc, events)
        way.start()
        assert await events.next() == "connected"
        way.send(request_of(messages.as_req()))
        assert await events.next() == REPLY
        assert kdc.messages == [messages.as_req()]


async def test_datagram_from_another_port_is_not_heard() -> None:
    """Only its sender knows the port of our socket: here the KDC passes it on to a stranger."""
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
        way = attempt_at(kdc, events)
        before = await asyncio.to_thread(_udp_ports)
        way.start()
        sent_from |= await asyncio.to_thread(_udp_ports) - before
        assert sent_from
        await events.next()
        way.send(request_of(messages.as_req()))
        assert await events.next() == REPLY


def _udp_ports() -> set[int]:
    with open("/proc/self/net/udp", encoding="ascii") as table:  # noqa: PTH123 - plain is plain here
        return {int(line.split()[1].rpartition(":")[2], 16) for line in table if ":" in line.split()[1]}


async def test_closed_port_is_told_as_refused() -> None:
    events = EventRecorder()
    async with FakeKdc() as kdc:
        way = attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        assert await events.next() == "refused"


async def test_message_too_big_for_a_datagram_is_told_and_not_sent() -> None:
    events = EventRecorder()
    async with FakeKdc(udp=fake_kdc.reply(REPLY)) as kdc:
        way = attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req(padata=[(149, bytes(70_000))])))
        assert await events.next() == "message_too_big"
        assert kdc.messages == []


async def test_closed_attempt_tells_nothing_more_and_may_be_closed_twice() -> None:
    events = EventRecorder()
    is_closed = asyncio.Event()
    async with FakeKdc(udp=fake_kdc.reply(REPLY, when=is_closed)) as kdc:
        way = attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        await kdc.wait_for_messages()
        way.close()
        way.close()
        is_closed.set()
        await asyncio.sleep(0)
        assert events.is_quiet
