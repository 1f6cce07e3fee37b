"""Copies of requests, with senders that need no sockets, the real pipeline, and a fake KDC that counts."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, field
from typing import Any

import pytest

from kkdcpd.config import Config, EndpointSpec, FailuresConfig, GuardConfig, RealmConfig
from kkdcpd.endpoints import Transport
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.joining import Answer, JoinableRequest, Joiner, JoiningLimits
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.protocol.messages import classify_bare
from kkdcpd.values import ClientConnection, Mode, Outcome, ProxyRequest, RequestResult
from tests.support.fake_kdc import FakeKdc, Link, close_after_message, reply
from tests.support.messages import (
    as_rep,
    as_req,
    kpasswd_error,
    kpasswd_rep,
    kpasswd_req,
    krb_error,
    prefixed,
)
from tests.support.shared import own_counts, own_table
from tests.support.upstream import running_relay
from tests.support.waiting import eventually

CLIENT = ClientConnection(address="127.0.0.1", network="127.0.0.1")
PROOF = as_req(padata=[(2, b"proof")])
FIRST, SECOND, THIRD = (kpasswd_req(version=0xFF80, cipher=bytes([number]) * 200) for number in range(3))
"""Requests for the same password change, each built anew."""

PATIENCE_SECONDS = 10.0


class Request(JoinableRequest):
    """A request of the test's way in. Its answers say what they are."""

    __slots__ = ()

    def __init__(self, payload: bytes) -> None:
        message = prefixed(payload)
        super().__init__(CLIENT, message, classify_bare(message).kind)

    async def read(self) -> ProxyRequest:
        return classify_bare(self.kerb_message)

    def respond(self, result: RequestResult, payload: bytes | None) -> Answer:
        return Answer(payload=payload or result.outcome.value.encode(), result=result)

    def answer_newer(self, answer: Answer) -> Answer:
        return Answer(payload=b"newer", result=answer.result)


@dataclass(eq=False)
class Program:
    """A sender that keeps its answers. `origin` is its socket."""

    origin: Hashable = field(default_factory=object)
    answers: list[bytes] = field(default_factory=list)

    dismissals: int = 0

    def deliver(self, answer: Answer) -> None:
        self.answers.append(answer.payload)

    def dismiss(self) -> None:
        self.dismissals += 1

    async def answer(self) -> bytes:
        async def has_answer() -> bool:
            return bool(self.answers)

        await eventually(has_answer)
        return self.answers[-1]


@dataclass(slots=True, kw_only=True)
class Running:
    joiner: Joiner
    log: pytest.LogCaptureFixture

    def send(self, payload: bytes, program: Program | None = None) -> Program:
        program = program or Program()
        self.joiner.submit(Request(payload), program)
        return program

    def lines(self) -> list[dict[str, Any]]:
        return [line.fields for line in self.log.records if line.message == "exchange"]  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def running(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, *, limits: JoiningLimits | None = None
) -> AsyncIterator[Running]:
    log.set_level(logging.INFO, "kkdcpd")
    endpoints = (EndpointSpec(host=kdc.host, port=kdc.port, transports=(Transport.TCP,)),)
    realm = RealmConfig(name="EXAMPLE.COM", kdc=endpoints, kpasswd=endpoints, discovery="none")
    config = Config(realms=(realm,), guard=GuardConfig(failures=FailuresConfig(mode=Mode.OFF)))
    async with running_relay(config) as relay:
        pipeline = Pipeline(
            guard=Guard(config, own_table(), own_counts(), time.monotonic),
            relay=relay,
            counters=Counters.discarding(),
            config=config.guard,
        )
        async with Joiner(pipeline, limits or JoiningLimits()) as joiner:
            yield Running(joiner=joiner, log=log)


async def test_copies_in_flight_are_one_message_and_all_senders_get_the_reply(
    caplog: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with FakeKdc(tcp=reply(as_rep(), when=may_answer)) as kdc, running(kdc, caplog) as subject:
        programs = [subject.send(PROOF) for _ in range(4)]
        await kdc.wait_for_messages()
        programs.append(subject.send(PROOF))
        may_answer.set()
        assert [await program.answer() for program in programs] == [as_rep()] * 5
        assert len(kdc.messages) == 1
        (line,) = subject.lines()
        assert (line["outcome"], line["copies"]) == ("answered", 4)


async def test_sender_of_the_same_bytes_twice_gets_one_answer(
    caplog: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with FakeKdc(tcp=reply(as_rep(), when=may_answer)) as kdc, running(kdc, caplog) as subject:
        program = subject.send(PROOF)
        subject.send(PROOF, program)
        may_answer.set()
        await program.answer()
    assert program.answers == [as_rep()]


async def test_late_copy_gets_the_kept_reply_without_a_line_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeKdc(tcp=reply(as_rep())) as kdc, running(kdc, caplog) as subject:
        await subject.send(PROOF).answer()
        assert await subject.send(PROOF).answer() == as_rep()
        assert len(kdc.messages) == 1
        assert len(subject.lines()) == 1


async def test_different_bytes_are_never_joined(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeKdc(tcp=reply(as_rep())) as kdc, running(kdc, caplog) as subject:
        programs = [subject.send(as_req(nonce=number)) for number in range(3)]
        for program in programs:
            await program.answer()
        assert len(kdc.messages) == 3


async def test_reply_is_dropped_after_its_time(caplog: pytest.LogCaptureFixture) -> None:
    limits = JoiningLimits(keep_seconds=0.1)
    async with FakeKdc(tcp=reply(as_rep())) as kdc, running(kdc, caplog, limits=limits) as subject:
        await subject.send(PROOF).answer()

        async def is_dropped() -> bool:
            return not subject.joiner._kept

        await eventually(is_dropped)
        await subject.send(PROOF).answer()
        assert len(kdc.messages) == 2


@pytest.mark.parametrize("limits", [JoiningLimits(kept_answers=2), JoiningLimits(kept_bytes=4500)])
async def test_oldest_replies_are_dropped_at_the_limits(
    caplog: pytest.LogCaptureFixture, limits: JoiningLimits
) -> None:
    """A kept reply counts with 1 KiB beside its bytes."""
    answer = as_rep(cipher=bytes(700))
    async with FakeKdc(tcp=reply(answer)) as kdc, running(kdc, caplog, limits=limits) as subject:
        for number in (1, 2, 3, 3, 2, 1):
            await subject.send(as_req(nonce=number)).answer()
        assert len(subject.joiner._kept) == 2
        assert len(kdc.messages) == 4


async def test_failure_is_not_kept_if_the_message_may_be_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeKdc(tcp=close_after_message()) as kdc, running(kdc, caplog) as subject:
        assert await subject.send(as_req()).answer() == b"no_kdc_reply"
        kdc.tcp = reply(as_rep())
        assert await subject.send(as_req()).answer() == as_rep()


async def test_message_that_a_kdc_may_have_is_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeKdc(tcp=close_after_message()) as kdc, running(kdc, caplog) as subject:
        assert await subject.send(PROOF).answer() == b"no_kdc_reply"
        kdc.tcp = reply(as_rep())
        assert await subject.send(PROOF).answer() == b"no_kdc_reply"
        assert kdc.messages.count(PROOF) == 1  # the KDC gets probes too


async def test_kdc_that_is_not_available_may_get_the_message_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeKdc(tcp=reply(krb_error(29))) as kdc, running(kdc, caplog) as subject:
        assert await subject.send(PROOF).answer() == krb_error(29)
        kdc.tcp = reply(as_rep())
        assert await subject.send(PROOF).answer() == as_rep()


async def test_exchange_over_the_limit_is_refused_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    limits = JoiningLimits(in_flight=2)
    async with FakeKdc(tcp=reply(as_rep())) as kdc, running(kdc, caplog, limits=limits) as subject:
        kdc.tcp = reply(as_rep(), when=(gate := asyncio.Event()))
        for number in (1, 2):
            subject.send(as_req(nonce=number))
        copy = subject.send(as_req(nonce=1))
        assert await subject.send(as_req(nonce=3)).answer() == b"overloaded"
        gate.set()
        assert await copy.answer() == as_rep()
        assert "overloaded" in {line["outcome"] for line in subject.lines()}


async def test_senders_over_the_limit_get_no_answer(
    caplog: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    limits = JoiningLimits(senders=2)
    async with (
        FakeKdc(tcp=reply(as_rep(), when=may_answer)) as kdc,
        running(kdc, caplog, limits=limits) as subject,
    ):
        programs = [subject.send(PROOF) for _ in range(3)]
        may_answer.set()
        await programs[1].answer()
        assert [program.answers for program in programs] == [[as_rep()], [as_rep()], []]
        assert [program.dismissals for program in programs] == [0, 0, 1]


async def test_newer_password_change_of_a_socket_is_held_back_until_the_first_has_its_reply(
    caplog: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with FakeKdc(tcp=reply(kpasswd_rep(), when=may_answer)) as kdc, running(kdc, caplog) as subject:
        program = subject.send(FIRST)
        await kdc.wait_for_messages()
        for newer in (SECOND, THIRD):
            subject.send(newer, program)
        may_answer.set()

        async def has_both() -> bool:
            return len(program.answers) == 2

        await eventually(has_both)
        assert program.answers == [kpasswd_rep(), b"newer"]
        assert program.dismissals == 1  # SECOND's
        assert len(kdc.messages) == 1
        (line,) = subject.lines()
        assert line["copies"] == 2


async def test_newest_password_change_is_forwarded_if_the_first_gets_no_reply(
    caplog: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()

    async def close_when_allowed(link: Link) -> None:
        await link.message()
        await may_answer.wait()

    async with FakeKdc(tcp=close_when_allowed) as kdc, running(kdc, caplog) as subject:
        program = subject.send(FIRST)
        await kdc.wait_for_messages()
        for newer in (SECOND, THIRD):
            subject.send(newer, program)
        kdc.tcp = reply(kpasswd_rep())
        may_answer.set()
        assert await program.answer() == kpasswd_rep()
        assert program.answers == [kpasswd_rep()]
        assert program.dismissals == 2
        assert kdc.messages == [FIRST, THIRD]
        assert [line["outcome"] for line in subject.lines()] == ["no_kdc_reply", "answered"]


async def test_password_changes_of_two_sockets_are_served_side_by_side(
    caplog: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with FakeKdc(tcp=reply(kpasswd_rep(), when=may_answer)) as kdc, running(kdc, caplog) as subject:
        programs = [subject.send(FIRST), subject.send(SECOND)]
        # Password servers are tried one after the other, and requests are not.
        await kdc.wait_for_messages(2)
        may_answer.set()
        assert [await program.answer() for program in programs] == [kpasswd_rep()] * 2


async def test_socket_may_change_a_password_again_after_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    async with FakeKdc(tcp=reply(kpasswd_error(3), kpasswd_rep())) as kdc, running(kdc, caplog) as subject:
        program = subject.send(FIRST)
        await program.answer()
        subject.send(SECOND, program)

        async def has_both() -> bool:
            return len(program.answers) == 2

        await eventually(has_both)
        assert program.answers == [kpasswd_error(3), kpasswd_rep()]


async def test_bug_in_a_sender_does_not_end_other_exchanges(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Program):
        def deliver(self, answer: Answer) -> None:
            raise LookupError(answer.payload)

    async with FakeKdc(tcp=reply(as_rep())) as kdc, running(kdc, caplog) as subject:
        subject.send(as_req(nonce=1), Broken())

        async def is_logged() -> bool:
            return "bug_in_request" in caplog.messages

        await eventually(is_logged)
        assert await subject.send(as_req(nonce=2)).answer() == as_rep()


async def test_end_waits_for_exchanges_in_flight(
    caplog: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with FakeKdc(tcp=reply(as_rep(), when=may_answer)) as kdc, running(kdc, caplog) as subject:
        program = subject.send(PROOF)
        await kdc.wait_for_messages()
        may_answer.set()
    assert program.answers == [as_rep()]
    assert subject.lines()[0]["outcome"] == Outcome.ANSWERED.value
