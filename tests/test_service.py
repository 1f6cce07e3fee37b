"""Readiness with its reasons, and the fields of `/status`."""

import contextlib
import datetime
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import DatedItem, DatedKind, SystemFiles, read_config
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.locate.locator import build_locator
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.exposition import ServiceFacts
from kkdcpd.metrics.memory import Metrics, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.process_messages import ReloadResult, ServiceStatus
from kkdcpd.service import Service
from kkdcpd.values import KdcState
from tests.support.admin import PLAIN, STATUS

REALMS = """
[realms."EXAMPLE.COM"]
kdc = ["tcp://192.0.2.1", "tcp://192.0.2.2:1088"]
kpasswd = ["192.0.2.1"]
[realms."FOUND.TEST"]
discovery = "dns"
[realms."*.FOREST.TEST"]
discovery = "active_directory"
"""
NO_NAMESERVER = '[locate]\nnameservers = ["127.0.0.1:1"]\ndns_timeout = 0.2\n'


def kdc(address: str, port: int = 88) -> KdcEndpoint:
    return KdcEndpoint(name=address, address=address, port=port, transport=Transport.TCP)


@pytest.fixture
def metrics() -> Metrics:
    return make_metrics(2)


@pytest.fixture
def counters(metrics: Metrics) -> Counters:
    """The counters of a worker process."""
    return Counters(metrics.take_row(0))


EXPIRED = DatedItem(
    kind=DatedKind.SERVER,
    key="tls.certificate",
    path=Path("/etc/certificate.pem"),
    subject="CN=kdc",
    start=None,
    end=datetime.datetime(2001, 3, 17, 17, 46, 40, tzinfo=datetime.UTC),
)


@contextlib.asynccontextmanager
async def service(
    metrics: Metrics, status: ServiceStatus = STATUS, ready_realms: str = "[]"
) -> AsyncIterator[Service]:
    text = f"{PLAIN}{NO_NAMESERVER}[admin]\nready_realms = {ready_realms}\n{REALMS}"
    config = read_config(text, source=Path("/nowhere/config.toml"))
    facts = ServiceFacts(status=status, dated=[EXPIRED])
    async with build_locator(config, SystemFiles()) as locator:
        yield Service(config, locator, MetricsReader(metrics), facts)


async def reasons(metrics: Metrics, status: ServiceStatus = STATUS, ready_realms: str = "[]") -> list[str]:
    async with service(metrics, status, ready_realms) as running:
        return await running.reasons_against()


async def test_service_is_ready_when_a_worker_is_ready(metrics: Metrics) -> None:
    assert await reasons(metrics, replace(STATUS, workers_ready=1)) == []


async def test_service_is_not_ready_while_it_drains_or_no_worker_is_ready(metrics: Metrics) -> None:
    assert await reasons(metrics, replace(STATUS, is_draining=True, workers_ready=0)) == [
        "the service drains: it finishes the requests in flight, and ends",
        "no worker process is ready",
    ]


async def test_required_realm_needs_one_kdc_that_is_not_down(metrics: Metrics, counters: Counters) -> None:
    listed = '["EXAMPLE.COM"]'
    counters.kdc_changed(kdc("192.0.2.1"), KdcState.DOWN)
    counters.kdc_changed(kdc("192.0.2.2", 1088), KdcState.SUSPECT)
    assert await reasons(metrics, ready_realms=listed) == []
    counters.kdc_changed(kdc("192.0.2.2", 1088), KdcState.DOWN)
    assert await reasons(metrics, ready_realms=listed) == [
        "EXAMPLE.COM: all KDCs are down: tcp://192.0.2.1:88 (192.0.2.1), tcp://192.0.2.2:1088 (192.0.2.2)"
    ]
    assert await reasons(metrics) == []
    counters.kdc_changed(kdc("192.0.2.1"), KdcState.HEALTHY)
    assert await reasons(metrics, ready_realms=listed) == []


async def test_required_realm_must_be_found(metrics: Metrics) -> None:
    (reason,) = await reasons(metrics, ready_realms='["EXAMPLE.COM", "FOUND.TEST"]')
    assert reason.startswith("FOUND.TEST: ")
    assert "\n" not in reason


async def test_status_has_all_facts(metrics: Metrics, counters: Counters) -> None:
    counters.connections_are(5)
    counters.request_begins()
    counters.kdc_changed(kdc("192.0.2.1"), KdcState.SUSPECT)
    reload = ReloadResult(at=1800000100.0, is_ok=False, problems=("log.level: is wrong; mend it",))
    async with service(metrics, replace(STATUS, last_reload=reload)) as running:
        described: dict[str, Any] = json.loads(json.dumps(await running.describe()))
    assert described["connections"] == {"open": 5, "maximum": 8192}
    assert (described["requests_in_flight"], described["generation"], described["draining"]) == (1, 1, False)
    assert described["started"] == "2027-01-15T08:00:00Z"
    assert described["last_reload"] == {
        "at": "2027-01-15T08:01:40Z",
        "ok": False,
        "problems": ["log.level: is wrong; mend it"],
    }
    (certificate,) = described["certificates"]
    assert (certificate["file"], certificate["expires"]) == ("/etc/certificate.pem", "2001-03-17T17:46:40Z")
    assert (certificate["valid"], certificate["seconds_left"] < 0) == (False, True)
    assert certificate["problem"].startswith(
        "the certificate in /etc/certificate.pem expired on 2001-03-17 17:46 UTC; renew it; or "
    )
    realms = described["realms"]
    assert realms["EXAMPLE.COM"]["kdc"] == [
        {
            "kdc": "tcp://192.0.2.1:88",
            "address": "192.0.2.1",
            "state": "suspect",
            "source": realms["EXAMPLE.COM"]["kdc"][0]["source"],
        },
        {
            "kdc": "tcp://192.0.2.2:1088",
            "address": "192.0.2.2",
            "state": "unknown",
            "source": realms["EXAMPLE.COM"]["kdc"][1]["source"],
        },
    ]
    assert [each["kdc"] for each in realms["EXAMPLE.COM"]["kpasswd"]] == [
        "tcp://192.0.2.1:464",
        "udp://192.0.2.1:464",
    ]
    assert list(realms["FOUND.TEST"]["kdc"]) == ["error"]
    assert realms["*.FOREST.TEST"] == {"discovery": "active_directory"}
