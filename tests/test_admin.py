"""A real admin process: forked, with memory in which other processes count."""

import asyncio
import http.client
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import WORKER_DEATHS, Metrics, make_metrics
from kkdcpd.values import KdcState, MessageKind, Outcome, RequestResult
from tests.frontends.inside import Talk, listening
from tests.support.admin import PLAIN, STATUS, forked_admin, running_admin

SETTINGS = (
    f'{PLAIN}[admin]\nready_realms = ["EXAMPLE.COM"]\n[realms."EXAMPLE.COM"]\nkdc = ["tcp://192.0.2.1"]\n'
)
KDC = KdcEndpoint(name="192.0.2.1", address="192.0.2.1", port=88, transport=Transport.TCP)
ANSWERED = RequestResult(outcome=Outcome.ANSWERED, realm="EXAMPLE.COM", upstream_seconds=0.001)
PATIENCE_SECONDS = 10.0


@pytest.fixture
def metrics() -> Metrics:
    return make_metrics(4)


@pytest.fixture
def port(metrics: Metrics) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock, forked_admin(SETTINGS, metrics, sock):
        yield sock.getsockname()[1]


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    connection.request("GET", path)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def answered(port: int) -> float:
    series = 'kkdcpd_requests_total{kind="AS_REQ",outcome="answered",realm="EXAMPLE.COM"} '
    return sum(
        float(line.removeprefix(series))
        for line in get(port, "/metrics")[1].splitlines()
        if line.startswith(series)
    )


def work(metrics: Metrics, row: int, requests: int) -> None:
    """Count in a process of its own, as a worker does, and die without a word."""
    child = os.fork()
    if not child:
        counters = Counters(metrics.take_row(row))
        for _ in range(requests):
            counters.request_ended(ANSWERED, MessageKind.AS_REQ, 0.002)
        counters.connections_are(9)
        os._exit(9)
    os.waitpid(child, 0)


def test_counters_never_decrease_when_processes_come_and_go(metrics: Metrics, port: int) -> None:
    seen = [answered(port)]
    for number in range(10):
        row = number % 2
        work(metrics, row, 100)
        seen.append(answered(port))
        metrics.clear_gauges(row)
        metrics.add(WORKER_DEATHS)
        seen.append(answered(port))
    assert seen == [0, *(100 * (number // 2 + 1) for number in range(20))]
    text = get(port, "/metrics")[1]
    assert "\nkkdcpd_connections_open 0.0\n" in text
    assert "\nkkdcpd_worker_deaths_total 10.0\n" in text


def test_readiness_follows_what_workers_meet(metrics: Metrics, port: int) -> None:
    counters = Counters(metrics.take_row(0))
    assert get(port, "/readyz") == (200, "ready\n")
    counters.kdc_changed(KDC, KdcState.DOWN)
    assert get(port, "/readyz") == (
        503,
        "EXAMPLE.COM: all KDCs are down: tcp://192.0.2.1:88 (192.0.2.1)\n",
    )
    assert get(port, "/livez")[0] == 200
    status = json.loads(get(port, "/status")[1])
    assert (status["ready"], status["realms"]["EXAMPLE.COM"]["kdc"][0]["state"]) == (False, "down")
    counters.kdc_changed(KDC, KdcState.HEALTHY)
    assert get(port, "/readyz")[0] == 200


async def test_status_is_the_last_report_of_the_parent(metrics: Metrics) -> None:
    async with listening() as listener, running_admin(SETTINGS, listener, metrics) as admin:
        for status, expected in ((STATUS, 200), (replace(STATUS, is_draining=True), 503), (STATUS, 200)):
            admin.handle(status)
            async with Talk.to(listener) as talk:
                await talk.send(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await talk.response())[0] == expected


async def test_request_on_an_open_connection_is_answered_at_the_end(metrics: Metrics) -> None:
    """A reload replaces the admin process between the connect of a client and its request."""
    stop = asyncio.Event()
    async with (
        listening() as listener,
        running_admin(SETTINGS, listener, metrics, stop=stop),
        Talk.to(listener) as waiting,
        Talk.to(listener) as talk,
    ):
        await waiting.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await waiting.response())[0] == 200
        stop.set()
        await asyncio.sleep(0.05)
        await talk.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await talk.response())[0] == 200
        assert await talk.rest() == b""
        assert await waiting.rest() == b""
