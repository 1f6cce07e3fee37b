"""Running exchanges: their slots, their counters, and events at awkward moments."""

import asyncio
import contextlib
import resource
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kkdcpd.endpoints import Transport
from kkdcpd.errors import ExchangeError
from kkdcpd.metrics.columns import HEDGES, KDC_FAILURES
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.upstream.running import MAX_IDLE_ENDPOINTS
from kkdcpd.upstream.sockets import AttemptEvents, WayOut
from kkdcpd.values import Attempt, FailureReason, KdcReply, ProxyRequest
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import DROP, FakeKdc
from tests.support.upstream import endpoint, request_of, route_to, running_upstream

FIRST_AS_REQ = messages.as_req(padata=[(149, b""), (150, b"")])
PROOF = messages.as_req(padata=[(2, b"\x30\x00"), (149, b"")])
TGS_REQ = messages.tgs_req()
KPASSWD = messages.kpasswd_req()

REPLIES = {FIRST_AS_REQ: messages.krb_error(25), PROOF: messages.as_rep(), TGS_REQ: messages.tgs_rep()}
UNAVAILABLE = messages.krb_error(29)


async def test_too_many_requests_with_one_kdc_go_to_the_next() -> None:
    release = asyncio.Event()
    async with (
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF], when=release)) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as second,
        running_upstream(max_in_flight_per_kdc=2) as (upstream, _),
    ):
        route = route_to(first, second)
        async with asyncio.TaskGroup() as tasks:
            for number in range(2):
                tasks.create_task(upstream.exchange(request_of(PROOF), route), name=f"request {number}")
            await first.wait_for_messages(2)
            assert (await upstream.exchange(request_of(PROOF), route)).endpoint.port == second.port
            release.set()
        assert (await upstream.exchange(request_of(PROOF), route)).endpoint.port == first.port


async def test_largest_network_yields_when_all_slots_of_a_kdc_are_taken() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.silent()) as kdc,
        running_upstream(max_in_flight_per_kdc=4) as (upstream, _),
        asyncio.TaskGroup() as tasks,
    ):
        route = route_to(kdc)
        greedy = [
            tasks.create_task(
                _outcome(upstream.exchange(request_of(PROOF), route, network="greedy")), name="greedy"
            )
            for _ in range(4)
        ]
        await kdc.wait_for_messages(4)
        assert "busy" in await _outcome(upstream.exchange(request_of(PROOF), route, network="greedy"))
        kdc.tcp = fake_kdc.reply(REPLIES[PROOF])
        assert await _outcome(upstream.exchange(request_of(PROOF), route, network="honest")) == "answered"
        # The oldest request has yielded. The KDC had its message, so no other KDC may get it.
        assert "displaced" in await greedy[0]
        for task in greedy[1:]:
            assert not task.done()
            task.cancel()


async def test_request_at_a_udp_password_server_yields_after_the_usual_time_of_an_answer() -> None:
    """No probe shows the state of such a server. Each network has one request."""
    async with (
        FakeKdc(udp=fake_kdc.silent()) as server,
        running_upstream(max_in_flight_per_kdc=2, hedge_delay=0.05) as (upstream, _),
        asyncio.TaskGroup() as tasks,
    ):
        route = route_to(server, transport=Transport.UDP)
        waiting = [
            tasks.create_task(
                _outcome(upstream.exchange(request_of(KPASSWD), route, network=network)), name=network
            )
            for network in ("first", "second")
        ]
        await server.wait_for_messages(2)
        server.udp = fake_kdc.reply(messages.kpasswd_rep())
        await asyncio.sleep(0.2)  # longer than `hedge_delay`
        assert await _outcome(upstream.exchange(request_of(KPASSWD), route, network="honest")) == "answered"
        assert "displaced" in await waiting[0]
        assert not waiting[1].done()
        waiting[1].cancel()


async def _outcome(exchange: Coroutine[Any, Any, KdcReply]) -> str:
    try:
        await exchange
    except ExchangeError as error:
        return f"{type(error).__name__} {error}"
    return "answered"


async def test_repeatable_message_that_yields_goes_to_the_next_kdc() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.silent()) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[TGS_REQ])) as second,
        running_upstream(max_in_flight_per_kdc=2, hedge_ratio=0) as (upstream, _),
        asyncio.TaskGroup() as tasks,
    ):
        route = route_to(first, second)
        greedy = [
            tasks.create_task(upstream.exchange(request_of(TGS_REQ), route, network="greedy"), name="greedy")
            for _ in range(2)
        ]
        await first.wait_for_messages(2)
        honest = tasks.create_task(
            upstream.exchange(request_of(PROOF), route, network="honest"), name="honest"
        )
        assert (await greedy[0]).endpoint.port == second.port
        assert str((await greedy[0]).failures[0]).endswith("displaced")
        for task in (greedy[1], honest):
            task.cancel()


@contextlib.contextmanager
def _few_descriptors(number: int) -> Iterator[None]:
    """Lower the soft limit of file descriptors, which also bounds the local UDP ports."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_request_without_a_port_takes_no_slot_from_another_request() -> None:
    async with FakeKdc(udp=fake_kdc.silent()) as kdc, contextlib.AsyncExitStack() as stack:
        with _few_descriptors(128):
            # 16 ports at the KDC, of which 12 are reserved.
            upstream, _ = await stack.enter_async_context(running_upstream(max_in_flight_per_kdc=2))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        route = route_to(kdc, transport=Transport.UDP)

        def begin(network: str) -> asyncio.Task[str]:
            exchange = upstream.exchange(request_of(PROOF), route, network=network)
            return tasks.create_task(_outcome(exchange), name=network)

        leaving = [begin("attacker") for _ in range(2)]
        await kdc.wait_for_messages(2)
        for task in leaving:
            task.cancel()
        await asyncio.wait(leaving)
        waiting = [begin("honest") for _ in range(2)]
        await kdc.wait_for_messages(4)
        assert "port_limit" in await begin("attacker")
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()


class _SilentWay:
    """A way out whose events the test makes."""

    def __init__(self, attempt: Attempt, events: AttemptEvents) -> None:
        self.attempt = attempt
        self.events = events

    def start(self) -> None:
        self.events.connected(self.attempt)

    def send(self, request: ProxyRequest) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "order", [["received", "also received"], ["received", "failed"], ["failed", "received"]]
)
async def test_events_in_the_moment_in_which_a_client_leaves_have_no_effect(
    order: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both KDCs answer, and the client leaves, in one poll of the event loop."""
    ways: asyncio.Queue[_SilentWay] = asyncio.Queue()

    def open_way(attempt: Attempt, events: AttemptEvents, **given: Any) -> WayOut:
        del given
        ways.put_nowait(way := _SilentWay(attempt, events))
        return way

    async with FakeKdc() as first, FakeKdc() as second, running_upstream(hedge_delay=0.01) as (upstream, _):
        monkeypatch.setattr(upstream.shared.ways_out, "open", open_way)
        slots = [upstream.shared.slots_of(endpoint(kdc)) for kdc in (first, second)]
        async with asyncio.TaskGroup() as tasks:
            exchange = upstream.exchange(request_of(TGS_REQ), route_to(first, second))
            task = tasks.create_task(exchange, name="request")
            opened = {name: await ways.get() for name in order}
            task.cancel()
            for name, way in opened.items():
                if name.endswith("received"):
                    way.events.received(way.attempt, REPLIES[TGS_REQ])
                else:
                    way.events.failed(way.attempt, FailureReason.CLOSED)
        assert task.cancelled()
        assert [each.taken for each in slots] == [0, 0]


async def test_only_slots_of_idle_kdcs_are_forgotten() -> None:
    async with running_upstream() as (upstream, _), FakeKdc(tcp=fake_kdc.silent()) as busy:
        idle = endpoint(FakeKdc(host="idle"))
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(upstream.exchange(request_of(PROOF), route_to(busy)), name="request")
            await busy.wait_for_messages()
            busy_slots, idle_slots = upstream.shared.slots_of(endpoint(busy)), upstream.shared.slots_of(idle)
            assert upstream.shared.slots_of(idle) is idle_slots
            for number in range(1, MAX_IDLE_ENDPOINTS + 1):
                upstream.shared.slots_of(replace(idle, port=number))
            assert upstream.shared.slots_of(endpoint(busy)) is busy_slots
            assert upstream.shared.slots_of(idle) is not idle_slots
            request.cancel()


async def test_bug_in_a_later_step_ends_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeKdc(tcp=DROP) as first, FakeKdc(tcp=DROP) as second, running_upstream() as (upstream, _):
        way_out = upstream.shared.ways_out.open

        def open_or_fail(attempt: Attempt, events: AttemptEvents, **given: Any) -> WayOut:
            if attempt.number > 1:
                raise RuntimeError("a bug")
            return way_out(attempt, events, **given)

        monkeypatch.setattr(upstream.shared.ways_out, "open", open_or_fail)
        with pytest.raises(RuntimeError, match="a bug"):
            await upstream.exchange(request_of(FIRST_AS_REQ), route_to(first, second))


def counts_of(metrics: Metrics, kdc: FakeKdc) -> dict[str, int]:
    """The counters of a KDC's endpoint that are not zero."""
    words = MetricsReader(metrics).kdcs().get(endpoint(kdc), [])
    names = ("tried", "replied", "state", *(reason for (reason,) in KDC_FAILURES.series))
    return {name: count for name, count in zip(names, words, strict=False) if count and name != "state"}


async def test_attempts_and_their_results_are_counted() -> None:
    metrics = make_metrics(rows=1)
    metrics.take_row(0)
    async with (
        FakeKdc() as refuses,
        FakeKdc(tcp=fake_kdc.reply(messages.krb_error(25))) as answers,
        running_upstream(counters=Counters(metrics.row(0))) as (upstream, _),
    ):
        for _ in range(2):
            await upstream.exchange(request_of(PROOF), route_to(refuses, answers))
    # The second time the first is known to be down.
    assert counts_of(metrics, refuses) == {"tried": 1, "refused": 1}
    assert counts_of(metrics, answers) == {"tried": 2, "replied": 2}


async def test_reply_of_an_unavailable_kdc_counts_as_its_failure() -> None:
    metrics = make_metrics(rows=1)
    metrics.take_row(0)
    async with (
        FakeKdc(tcp=fake_kdc.reply(messages.krb_error(29))) as kdc,
        running_upstream(counters=Counters(metrics.row(0))) as (upstream, _),
    ):
        assert (await upstream.exchange(request_of(PROOF), route_to(kdc))).facts.error_code == 29
    assert counts_of(metrics, kdc) == {"tried": 1, "service_unavailable": 1}


async def test_hedge_is_counted() -> None:
    metrics = make_metrics(rows=1)
    metrics.take_row(0)
    async with (
        FakeKdc(tcp=fake_kdc.silent()) as silent,
        FakeKdc(tcp=fake_kdc.reply(messages.krb_error(25))) as answers,
        running_upstream(counters=Counters(metrics.row(0)), hedge_delay=0.05) as (upstream, _),
    ):
        await upstream.exchange(request_of(FIRST_AS_REQ), route_to(silent, answers))
    assert MetricsReader(metrics).value(HEDGES) == 1
    assert counts_of(metrics, silent)["tried"] == 1
    assert counts_of(metrics, answers) == {"tried": 1, "replied": 1}


async def test_caller_learns_that_the_message_is_sent_before_the_kdc_has_it() -> None:
    async with FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as kdc, running_upstream() as (upstream, _):
        messages_at_kdc: list[int] = []
        await upstream.exchange(
            request_of(PROOF), route_to(kdc), on_sent=lambda: messages_at_kdc.append(len(kdc.messages))
        )
        assert messages_at_kdc == [0]


async def test_caller_learns_of_each_kdc_that_gets_the_message() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.reply(UNAVAILABLE)) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as second,
        running_upstream() as (upstream, _),
    ):
        sent: list[str] = []
        await upstream.exchange(
            request_of(PROOF), route_to(first, second), on_sent=lambda: sent.append("sent")
        )
        assert len(sent) == 2


async def test_caller_learns_that_no_kdc_gets_the_message() -> None:
    async with FakeKdc(tcp=fake_kdc.silent()) as kdc:
        route = route_to(kdc)
    sent: list[str] = []
    async with running_upstream() as (upstream, _):
        with pytest.raises(ExchangeError):
            await upstream.exchange(request_of(PROOF), route, on_sent=lambda: sent.append("sent"))
    assert not sent
