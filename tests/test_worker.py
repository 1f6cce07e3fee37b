"""The worker in the test's own event loop, from its listeners to its end."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from kkdcpd.config import TlsConfig
from kkdcpd.metrics.exposition import Exposition, ServiceFacts
from kkdcpd.metrics.memory import Metrics, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.process_messages import ServiceStatus
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_worker
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD
from tests.support.fake_kdc import FakeKdc, reply, silent
from tests.support.http_client import post
from tests.support.messages import as_req, envelope
from tests.support.waiting import eventually

IDLE_SECONDS = 1.0

SHORT_WHILE = 0.1
"""Time for the worker to handle an event."""


@pytest.fixture
async def kdc(may_answer: asyncio.Event) -> AsyncIterator[FakeKdc]:
    async with FakeKdc(tcp=reply(REPLY_PAYLOAD, when=may_answer)) as running:
        yield running


def settings(kdc: FakeKdc) -> str:
    return f'[realms."EXAMPLE.COM"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\n'


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("localhost", file_name="worker")
    return build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key))


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


async def test_every_listener_is_served(
    kdc: FakeKdc, server_context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with (
        listening() as plain,
        listening(host="::1", tls=server_context) as by_tls,
        running_worker(settings(kdc), plain, by_tls),
        Talk.to(plain) as first,
        Talk.to(by_tls, tls=trust) as second,
    ):
        for talk in (first, second):
            await talk.send(GOOD_REQUEST)
            assert await talk.response() == (200, GOOD_REPLY)


async def test_hundred_clients_are_served_at_the_same_time(kdc: FakeKdc, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with listening() as listener, running_worker(settings(kdc), listener):

        async def ask() -> tuple[int, bytes]:
            async with Talk.to(listener) as talk:
                await talk.send(GOOD_REQUEST)
                return await talk.response()

        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(ask(), name=f"client {number}") for number in range(100)]
            await kdc.wait_for_messages(100)
            may_answer.set()
        assert [client.result() for client in clients] == [(200, GOOD_REPLY)] * 100


async def test_stop_lets_a_request_finish(kdc: FakeKdc, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with (
        listening() as listener,
        running_worker(settings(kdc), listener) as stop,
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        stop.set()
        await asyncio.sleep(0)
        may_answer.set()
        assert await talk.response() == (200, GOOD_REPLY)
        assert await talk.rest() == b""


async def test_stop_lets_idle_connections_have_one_request_more(kdc: FakeKdc) -> None:
    """A client may send a request at this moment. It gets a response that closes the connection."""
    async with (
        listening() as listener,
        running_worker(settings(kdc), listener) as stop,
        Talk.to(listener) as used,
        Talk.to(listener) as unused,
    ):
        await used.send(GOOD_REQUEST)
        await used.response()
        stop.set()
        await asyncio.sleep(SHORT_WHILE)
        for talk in (used, unused):
            await talk.send(GOOD_REQUEST)
            assert await talk.response() == (200, GOOD_REPLY)
            assert await talk.rest() == b""


async def test_stop_lets_idle_connections_wait_until_their_idle_timeout(kdc: FakeKdc) -> None:
    idle = f"[http]\nkeepalive_timeout = {IDLE_SECONDS}\n"
    async with (
        listening() as listener,
        running_worker(settings(kdc) + idle, listener) as stop,
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await talk.response()
        stop.set()
        started = asyncio.get_running_loop().time()
        assert await talk.rest() == b""
        assert asyncio.get_running_loop().time() - started > IDLE_SECONDS / 2


async def test_stop_serves_a_request_whose_head_is_half_sent(kdc: FakeKdc) -> None:
    async with (
        listening() as listener,
        running_worker(settings(kdc), listener) as stop,
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST[:30])
        stop.set()
        await asyncio.sleep(SHORT_WHILE)
        await talk.send(GOOD_REQUEST[30:])
        assert await talk.response() == (200, GOOD_REPLY)
        assert await talk.rest() == b""


async def test_stop_sees_a_handshake_through_that_has_begun(
    kdc: FakeKdc, server_context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with (
        listening(tls=server_context) as listener,
        running_worker(settings(kdc), listener) as stop,
    ):
        reader, writer = await asyncio.open_connection(*listener.socket.getsockname())
        await asyncio.sleep(SHORT_WHILE)
        stop.set()
        await asyncio.sleep(SHORT_WHILE)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await writer.start_tls(trust, server_hostname="localhost")
        talk = Talk(reader, writer)
        await talk.send(GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
        assert await talk.rest() == b""
        writer.close()


async def test_connection_in_the_backlog_at_the_stop_is_served(kdc: FakeKdc) -> None:
    async with listening() as listener, running_worker(settings(kdc), listener) as stop:
        await asyncio.sleep(SHORT_WHILE)
        with socket.socket() as client:
            # The loop isn't run between this and the stop: the connection is in the kernel's queue.
            client.settimeout(0.0)
            client.connect_ex(listener.socket.getsockname())
            stop.set()
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await loop.sock_sendall(client, GOOD_REQUEST)
                assert (await loop.sock_recv(client, 65536)).startswith(b"HTTP/1.1 200 ")


async def test_drain_is_cut_off_when_its_time_is_over(
    kdc: FakeKdc, may_answer: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    may_answer.clear()
    caplog.set_level(logging.INFO, "kkdcpd")
    drain = f"[process]\ndrain_timeout = {IDLE_SECONDS}\n"
    async with (
        listening() as listener,
        running_worker(settings(kdc) + drain, listener) as stop,
        Talk.to(listener) as idle,
        Talk.to(listener) as busy,
    ):
        await busy.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        stop.set()
        assert (await idle.rest(), await busy.rest()) == (b"", b"")
    (line,) = (line for line in caplog.records if line.message == "drain_timed_out")
    assert line.fields == {"connections": 2}  # type: ignore[attr-defined]


async def test_stop_closes_the_listeners(kdc: FakeKdc) -> None:
    async with listening() as listener:
        place = listener.socket.getsockname()
        async with asyncio.timeout(PATIENCE_SECONDS), running_worker(settings(kdc), listener) as stop:
            stop.set()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*place)


def series(metrics: Metrics) -> dict[str, float]:
    """Return the series above zero that Prometheus gets, without times and the state of the service."""
    facts = ServiceFacts(
        status=ServiceStatus(generation=0, workers_ready=0, workers_wanted=0, started_at=0.0)
    )
    text = Exposition(MetricsReader(metrics), facts).render("")[0].decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {
        name: float(value)
        for name, _, value in lines
        if float(value) and "duration" not in name and "build" not in name and "reload" not in name
    }


async def test_all_that_happens_is_counted_once(
    kdc: FakeKdc, server_context: ssl.SSLContext, trust: ssl.SSLContext, may_answer: asyncio.Event
) -> None:
    metrics = make_metrics(1)
    metrics.take_row(0)
    unserved = post(envelope(as_req(), "OTHER.TEST"))
    async with (
        listening(tls=server_context) as listener,
        running_worker(settings(kdc), listener, metrics=metrics),
    ):
        async with Talk.to(listener, tls=trust) as talk:
            for request in (GOOD_REQUEST, unserved):
                await talk.send(request)
                await talk.response()
            may_answer.clear()
            await talk.send(GOOD_REQUEST)
            await kdc.wait_for_messages(2)
            during = series(metrics)
            talk.reset()
        for refused in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"no HTTP\r\n\r\n"):
            async with Talk.to(listener, tls=trust) as talk:
                await talk.send(refused)
                await talk.response()
        async with Talk.to(listener) as talk:
            await talk.send(b"no TLS\r\n\r\n")
            await talk.rest()

        async def is_idle() -> bool:
            return "kkdcpd_connections_open" not in series(metrics)

        await eventually(is_idle)
        after = series(metrics)
    assert (during["kkdcpd_connections_open"], during["kkdcpd_requests_in_flight"]) == (1, 1)
    labels = f'address="127.0.0.1",kdc="127.0.0.1:{kdc.port}",transport="tcp"'
    assert after == {
        'kkdcpd_requests_total{kind="AS_REQ",outcome="answered",realm="EXAMPLE.COM"}': 1,
        'kkdcpd_requests_total{kind="AS_REQ",outcome="realm_not_served",realm=""}': 1,
        'kkdcpd_requests_total{kind="AS_REQ",outcome="client_gone",realm=""}': 1,
        'kkdcpd_requests_total{kind="",outcome="path_not_found",realm=""}': 1,
        'kkdcpd_requests_total{kind="",outcome="malformed_http",realm=""}': 1,
        "kkdcpd_connections_opened_total": 4,
        'kkdcpd_tls_handshakes_total{result="full"}': 3,
        'kkdcpd_tls_handshakes_total{result="failed"}': 1,
        'kkdcpd_lookups_total{cache="route",result="miss"}': 1,
        'kkdcpd_lookups_total{cache="route",result="hit"}': 1,
        f"kkdcpd_kdc_attempts_total{{{labels}}}": 2,
        f"kkdcpd_kdc_replies_total{{{labels}}}": 1,
    }


async def test_resumed_session_is_counted_as_resumed(
    kdc: FakeKdc, server_context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    metrics = make_metrics(1)
    metrics.take_row(0)
    async with (
        listening(tls=server_context) as listener,
        running_worker(settings(kdc), listener, metrics=metrics),
    ):
        await asyncio.to_thread(_shake_hands_twice, listener.socket.getsockname(), trust)
        after = series(metrics)
    assert after['kkdcpd_tls_handshakes_total{result="full"}'] == 1
    assert after['kkdcpd_tls_handshakes_total{result="resumed"}'] == 1


def _shake_hands_twice(place: tuple[str, int], trust: ssl.SSLContext) -> None:
    session = None
    for _ in range(2):
        with (
            socket.create_connection(place, timeout=PATIENCE_SECONDS) as plain,
            trust.wrap_socket(plain, server_hostname="localhost", session=session) as client,
        ):
            client.sendall(GOOD_REQUEST)
            # TLS 1.3 has its tickets before the response.
            assert client.recv(65536)
            session = client.session


async def test_refused_connection_is_counted_by_its_reason(kdc: FakeKdc) -> None:
    metrics = make_metrics(1)
    metrics.take_row(0)
    bounded = f"connections.per_client = 1\n{settings(kdc)}"

    async def has_message() -> bool:
        return bool(kdc.tcp_messages)

    async with (
        listening() as listener,
        running_worker(bounded, listener, metrics=metrics),
        Talk.to(listener) as first,
    ):
        # A connection is never closed for another one while its request is being answered.
        kdc.tcp = silent()
        await first.send(GOOD_REQUEST)
        await eventually(has_message)
        async with Talk.to(listener) as second:
            assert await second.rest() == b""
        counts = series(metrics)
    assert counts['kkdcpd_connections_refused_total{reason="connections.per_client"}'] == 1
    assert counts["kkdcpd_connections_opened_total"] == counts["kkdcpd_connections_open"] == 1


async def test_connection_that_makes_room_is_counted_by_what_it_did(kdc: FakeKdc) -> None:
    metrics = make_metrics(1)
    metrics.take_row(0)
    bounded = f"connections.per_client = 1\n{settings(kdc)}"
    async with (
        listening() as listener,
        running_worker(bounded, listener, metrics=metrics),
        Talk.to(listener) as idle,
    ):
        await idle.send(GOOD_REQUEST)
        await idle.response()
        async with Talk.to(listener) as slow:
            await slow.send(GOOD_REQUEST[:20])
            assert await idle.rest() == b""
            async with Talk.to(listener) as third:
                await third.send(GOOD_REQUEST)
                assert (await third.response())[0] == 200
            assert await slow.rest() == b""
        counts = series(metrics)
    for activity in ("idle", "receiving"):
        assert counts[f'kkdcpd_connections_evicted_total{{activity="{activity}"}}'] == 1
    assert 'kkdcpd_connections_refused_total{reason="connections.per_client"}' not in counts


async def test_tunnel_is_open_only_at_a_configured_path(kdc: FakeKdc) -> None:
    """The answer 400 is for a request without the headers of a WebSocket."""
    request = b"GET /KdcTunnel HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    for tunnel, status in (("", 404), ('[tunnel]\npaths = ["/KdcTunnel"]\n', 400)):
        async with (
            listening() as listener,
            running_worker(tunnel + settings(kdc), listener),
            Talk.to(listener) as talk,
        ):
            await talk.send(request)
            assert (await talk.response())[0] == status
