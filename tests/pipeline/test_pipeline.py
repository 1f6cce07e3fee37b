"""The life of a request, with a way in that needs no sockets, the real guard and relay, and a fake KDC."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from kkdcpd.config import Config, EndpointSpec, GuardConfig, PolicyConfig, RatesConfig, RealmConfig
from kkdcpd.endpoints import Transport
from kkdcpd.errors import BodyTooLargeError
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.columns import REQUESTS_IN_FLIGHT
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.pipeline.pipeline import IncomingRequest, Pipeline
from kkdcpd.values import ClientConnection, MessageKind, Mode, Outcome, ProxyRequest, RequestResult
from tests.support.fake_kdc import FakeKdc, reply, silent
from tests.support.messages import as_req, krb_error
from tests.support.shared import own_counts, own_table
from tests.support.upstream import request_of, running_relay

CLIENT = ClientConnection(address="192.0.2.99", network="192.0.2.99")
REQUEST = request_of(as_req())
ERROR = krb_error(25)


class BrokenFramingError(Exception):
    """The way in answers this request itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response of the test's way in."""

    result: RequestResult
    payload: bytes | None


class Incoming(IncomingRequest[Response]):
    """A request of the test's way in, read by the function that the test gives."""

    __slots__ = ("_read",)
    own_errors: ClassVar = (BrokenFramingError,)

    def __init__(self, read: Callable[[], Awaitable[ProxyRequest]]) -> None:
        super().__init__(CLIENT)
        self._read = read

    async def read(self) -> ProxyRequest:
        """Call the test's function."""
        self.bytes_in = 7
        return await self._read()

    def respond(self, result: RequestResult, payload: bytes | None) -> Response:
        """Keep all that the pipeline gives."""
        self.bytes_out = len(payload or b"")
        return Response(result=result, payload=payload)


async def good() -> ProxyRequest:
    return REQUEST


@dataclass(slots=True, kw_only=True)
class Running:
    """A pipeline that serves EXAMPLE.COM, and what it logs and counts."""

    pipeline: Pipeline
    reader: MetricsReader
    log: pytest.LogCaptureFixture
    tasks: asyncio.TaskGroup

    async def serve(self, read: Callable[[], Awaitable[ProxyRequest]] = good) -> Response:
        return await self.pipeline.serve(Incoming(read))

    def lines(self) -> list[dict[str, Any]]:
        """The fields of the lines in the access log."""
        return [line.fields for line in self.log.records if line.message == "exchange"]  # type: ignore[attr-defined]

    @property
    def in_flight(self) -> int:
        return self.reader.value(REQUESTS_IN_FLIGHT)


@contextlib.asynccontextmanager
async def running(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, *, guard: GuardConfig | None = None, **realm_settings: Any
) -> AsyncIterator[Running]:
    log.set_level(logging.INFO, "kkdcpd")
    realm = RealmConfig(
        name="EXAMPLE.COM",
        kdc=(EndpointSpec(host=kdc.host, port=kdc.port, transports=(Transport.TCP,)),),
        discovery="none",
        **realm_settings,
    )
    config = Config(realms=(realm,), guard=guard or GuardConfig())
    metrics = make_metrics(1)
    counters = Counters(metrics.take_row(0))
    async with running_relay(config) as relay, asyncio.TaskGroup() as tasks:
        pipeline = Pipeline(
            guard=Guard(config, own_table(), own_counts(), time.monotonic),
            relay=relay,
            counters=counters,
            config=config.guard,
        )
        yield Running(pipeline=pipeline, reader=MetricsReader(metrics), log=log, tasks=tasks)


async def test_reply_reaches_the_way_in_and_the_request_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeKdc(tcp=reply(ERROR)) as kdc, running(kdc, caplog) as subject:
        response = await subject.serve()
        (line,) = subject.lines()
    assert (response.result.outcome, response.payload) == (Outcome.ANSWERED, ERROR)
    assert (line["outcome"], line["kind"], line["in"], line["out"]) == ("answered", "AS_REQ", 7, len(ERROR))
    assert "status" not in line
    assert subject.in_flight == 0


async def test_request_that_cannot_be_read_ends_with_the_outcome_of_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def read() -> ProxyRequest:
        raise BodyTooLargeError("more than 7 bytes")

    async with FakeKdc(tcp=reply(ERROR)) as kdc, running(kdc, caplog) as subject:
        response = await subject.serve(read)
        (line,) = subject.lines()
        assert kdc.connections == 0
    assert (response.result.outcome, response.payload) == (Outcome.BODY_TOO_LARGE, None)
    assert (line["outcome"], line["detail"], "kind" in line) == ("body_too_large", "more than 7 bytes", False)


async def test_error_that_the_way_in_answers_itself_is_passed_on_and_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def read() -> ProxyRequest:
        raise BrokenFramingError

    async with FakeKdc(tcp=reply(ERROR)) as kdc, running(kdc, caplog) as subject:
        with pytest.raises(BrokenFramingError):
            await subject.serve(read)
        assert not subject.log.records
        assert subject.in_flight == 0


async def test_bug_in_a_way_in_gets_a_response_and_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def read() -> ProxyRequest:
        raise LookupError("a bug")

    async with FakeKdc(tcp=reply(ERROR)) as kdc, running(kdc, caplog) as subject:
        response = await subject.serve(read)
        (line,) = subject.lines()
    assert response.result.outcome is Outcome.INTERNAL_ERROR
    assert (line["outcome"], line["detail"]) == ("internal_error", "LookupError")
    assert subject.in_flight == 0


async def test_client_that_leaves_is_logged_and_gives_its_slot_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rates = RatesConfig(client_concurrency=1)
    guard = GuardConfig(rates=rates)
    async with FakeKdc(tcp=silent()) as kdc, running(kdc, caplog, guard=guard) as subject:
        task = subject.tasks.create_task(subject.serve(), name="request")
        await kdc.wait_for_messages()
        assert (subject.in_flight, subject.lines()) == (1, [])
        assert (await subject.serve()).result.outcome is Outcome.RATE_LIMITED
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert [line["outcome"] for line in subject.lines()] == ["rate_limited", "client_gone"]
        assert subject.in_flight == 0
        kdc.tcp = reply(ERROR)
        assert (await subject.serve()).result.outcome is Outcome.ANSWERED


async def test_client_over_its_rate_is_refused_before_its_request_is_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reads = 0

    async def read() -> ProxyRequest:
        nonlocal reads
        reads += 1
        return REQUEST

    guard = GuardConfig(rates=RatesConfig(client_burst=1))
    async with FakeKdc(tcp=reply(ERROR)) as kdc, running(kdc, caplog, guard=guard) as subject:
        outcomes = [(await subject.serve(read)).result.outcome for _ in range(3)]
        lines = subject.lines()
    assert outcomes == [Outcome.ANSWERED, Outcome.RATE_LIMITED, Outcome.RATE_LIMITED]
    assert reads == 1
    assert [(line.get("rule"), line["in"]) for line in lines] == [
        (None, 7),
        ("client_rate", 0),
        ("client_rate", 0),
    ]


async def test_request_that_is_still_being_read_takes_no_slot(caplog: pytest.LogCaptureFixture) -> None:
    is_sent = asyncio.Event()

    async def slow() -> ProxyRequest:
        await is_sent.wait()
        return REQUEST

    guard = GuardConfig(rates=RatesConfig(client_concurrency=1))
    async with FakeKdc(tcp=reply(ERROR)) as kdc, running(kdc, caplog, guard=guard) as subject:
        task = subject.tasks.create_task(subject.serve(slow), name="slow")
        await asyncio.sleep(0)
        assert (await subject.serve()).result.outcome is Outcome.ANSWERED
        is_sent.set()
        assert (await task).result.outcome is Outcome.ANSWERED


@pytest.mark.parametrize(("refusal", "is_kerberos"), [("http", False), ("krb_error", True)])
async def test_refusal_is_a_kerberos_message_if_so_configured(
    caplog: pytest.LogCaptureFixture, refusal: Any, *, is_kerberos: bool
) -> None:
    guard = GuardConfig(refusal=refusal)
    policy = PolicyConfig(message_kinds=(MessageKind.TGS_REQ,))
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running(kdc, caplog, guard=guard, policy=policy) as subject,
    ):
        response = await subject.serve()
        assert kdc.connections == 0
    assert response.result.outcome is Outcome.REFUSED
    assert (response.payload is not None) is is_kerberos


async def test_rules_in_monitor_mode_are_named_once_in_the_order_of_the_steps(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rates = RatesConfig(mode=Mode.MONITOR, client_burst=1, client_concurrency=1)
    async with (
        FakeKdc(tcp=silent()) as kdc,
        running(kdc, caplog, guard=GuardConfig(rates=rates)) as subject,
    ):
        task = subject.tasks.create_task(subject.serve(), name="request")
        await kdc.wait_for_messages()
        kdc.tcp = reply(ERROR)
        await subject.serve()
        task.cancel()
        await asyncio.wait([task])
        line = subject.lines()[0]
    assert (line["outcome"], line["monitored"]) == ("answered", "client_rate,client_concurrency")
