"""One TCP attempt on real sockets. Tests of whole exchanges are in test_driver.py."""

import asyncio
import socket
from pathlib import Path

import pytest

from kkdcpd.upstream.sockets import Readiness
from kkdcpd.upstream.tcp import TcpAttempt
from kkdcpd.values import Attempt
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import FakeKdc, Link
from tests.support.recorder import EventRecorder
from tests.support.upstream import endpoint, request_of

REPLY = messages.as_rep()


def attempt_at(kdc: FakeKdc, events: EventRecorder, *, max_reply_bytes: int = 65536) -> TcpAttempt:
    attempt = Attempt(number=1, endpoint=endpoint(kdc))
    return TcpAttempt(attempt, events, readiness=Readiness(), sources={}, max_reply_bytes=max_reply_bytes)


async def test_nothing_is_sent_before_the_call_of_send() -> None:
    events = EventRecorder()
    async with FakeKdc(tcp=fake_kdc.reply(REPLY)) as kdc:
        way = attempt_at(kdc, events)
        way.start()
        assert await events.next() == "connected"
        assert kdc.messages == []
        way.send(request_of(messages.as_req()))
        assert await events.next() == REPLY
        assert kdc.messages == [messages.as_req()]


async def test_closed_attempt_has_no_events_and_may_be_closed_twice() -> None:
    events = EventRecorder()
    is_closed = asyncio.Event()
    async with FakeKdc(tcp=fake_kdc.reply(REPLY, when=is_closed)) as kdc:
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


async def test_message_larger_than_the_sockets_buffer_is_sent_whole() -> None:
    events = EventRecorder()
    request = request_of(messages.as_req(padata=[(149, bytes(8_000_000))]))
    async with FakeKdc(tcp=fake_kdc.reply(REPLY)) as kdc:
        way = attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request)
        assert await events.next() == REPLY
        assert kdc.messages == [request.payload]


async def test_reply_of_a_kdc_that_has_not_read_the_whole_message_is_received() -> None:
    events = EventRecorder()
    request = request_of(messages.as_req(padata=[(149, bytes(8_000_000))]))

    async def answer_at_once(link: Link) -> None:
        await link.reply(REPLY)
        await link.hold()

    async with FakeKdc(tcp=answer_at_once) as kdc:
        way = attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request)
        assert await events.next() == REPLY


async def test_reply_over_the_limit_is_refused_by_its_length_alone() -> None:
    events = EventRecorder()
    async with FakeKdc(tcp=fake_kdc.announce(1025)) as kdc:
        way = attempt_at(kdc, events, max_reply_bytes=1024)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        assert await events.next() == "reply_too_big"


async def test_end_in_the_middle_of_a_reply_is_no_reply() -> None:
    events = EventRecorder()
    async with FakeKdc(tcp=fake_kdc.send(messages.prefixed(REPLY)[:-1])) as kdc:
        way = attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        assert await events.next() == "closed"


async def test_refused_connect_is_reported() -> None:
    events = EventRecorder()
    async with FakeKdc() as kdc:
        attempt_at(kdc, events).start()
        assert await events.next() == "refused"


TIME_WAIT = "06"


async def test_no_local_port_stays_in_time_wait() -> None:
    events, late = EventRecorder(), EventRecorder()
    async with FakeKdc(tcp=fake_kdc.silent()) as kdc:
        unused, abandoned = attempt_at(kdc, late), attempt_at(kdc, late)
        for way in (unused, abandoned):
            way.start()
            await late.next()
        abandoned.send(request_of(messages.as_req()))
        await kdc.wait_for_messages()
        unused.close()
        abandoned.close()
        kdc.tcp = fake_kdc.reply(REPLY)
        way = attempt_at(kdc, events)
        way.start()
        await events.next()
        way.send(request_of(messages.as_req()))
        assert await events.next() == REPLY
        assert TIME_WAIT not in await asyncio.to_thread(_states_of_peers, kdc.port)


def _states_of_peers(port: int) -> set[str]:
    """The states of the sockets that are or were connected to the port (/proc/net/tcp)."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return {line[3] for line in lines if line[2] == f"0100007F:{port:04X}"}


async def test_error_of_this_host_is_reported_as_local(caplog: pytest.LogCaptureFixture) -> None:
    events = EventRecorder()
    async with FakeKdc(tcp=fake_kdc.reply(REPLY)) as kdc:
        TcpAttempt(
            Attempt(number=1, endpoint=endpoint(kdc)),
            events,
            readiness=Readiness(),
            sources={socket.AF_INET: "192.0.2.1"},
            max_reply_bytes=65536,
        ).start()
        assert await events.next() == "local_error"
    (record,) = [record for record in caplog.records if record.message == "local_error"]
    assert record.fields["error"] == "EADDRNOTAVAIL"  # type: ignore[attr-defined]
    assert "upstream.source_addresses" in record.fields["advice"]  # type: ignore[attr-defined]
