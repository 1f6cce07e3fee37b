"""An `Upstream` over real sockets, as the worker builds it, and routes to fake KDCs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from kkdcpd.config import Config, SystemFiles, UpstreamConfig
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.guard.guard import Guard
from kkdcpd.locate.locator import build_locator
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.relay import Relay
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify
from kkdcpd.upstream.driver import Upstream
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.password_changes import PasswordChanges
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.upstream.wss import WssOptions
from kkdcpd.values import Candidate, ProxyRequest, Route
from tests.support import messages
from tests.support.fake_kdc import FakeKdc
from tests.support.shared import own_counts, own_notes, own_table

__all__ = [
    "candidate",
    "endpoint",
    "health_table",
    "request_of",
    "route_to",
    "running_relay",
    "running_upstream",
]


def request_of(payload: bytes) -> ProxyRequest:
    """A request as the way in would make it."""
    return classify(decode_proxy_message(messages.envelope(payload)))


def endpoint(kdc: FakeKdc, transport: Transport = Transport.TCP) -> KdcEndpoint:
    return KdcEndpoint(name=kdc.host, address=kdc.host, port=kdc.port, transport=transport)


def candidate(kdc: FakeKdc, transport: Transport = Transport.TCP, **fields: Any) -> Candidate:
    return Candidate(endpoint=endpoint(kdc, transport), source="test", **fields)


def route_to(*kdcs: FakeKdc, transport: Transport = Transport.TCP) -> Route:
    """A route on which the first is preferred to the second, and so on."""
    candidates = [candidate(kdc, transport, priority=number) for number, kdc in enumerate(kdcs)]
    return Route(realm="EXAMPLE.COM", kerberos_realm="EXAMPLE.COM", candidates=tuple(candidates))


def health_table(reach_timeout: float = 5.0) -> HealthTable:
    return HealthTable(
        turn=0,
        probe_interval=0.05,
        probe_interval_maximum=0.2,
        reach_timeout=reach_timeout,
        notify=lambda _: None,
        note_change=lambda *_: None,
    )


@contextlib.asynccontextmanager
async def running_relay(config: Config) -> AsyncIterator[Relay]:
    """A relay for a whole configuration, without the system's own hosts and nameservers."""
    async with (
        build_locator(config, SystemFiles()) as locator,
        _running(config.upstream) as (upstream, _),
    ):
        table = own_table(config.guard.table_entries)
        guard = Guard(config, table, own_counts(), time.monotonic)
        changes = PasswordChanges(own_notes(), config.upstream.password_change_preference, time.monotonic)
        yield Relay(guard=guard, locator=locator, upstream=upstream, password_changes=changes)


@contextlib.asynccontextmanager
async def running_upstream(
    *,
    counters: Counters | None = None,
    wss: WssOptions | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Upstream, HealthTable]]:
    """Run an upstream with its prober; `settings` are the settings of [upstream]."""
    async with _running(replace(UpstreamConfig(), **settings), counters, wss) as running:
        yield running


@contextlib.asynccontextmanager
async def _running(
    config: UpstreamConfig,
    counters: Counters | None = None,
    wss: WssOptions | None = None,
) -> AsyncIterator[tuple[Upstream, HealthTable]]:
    health = health_table(config.reach_timeout)
    ways_out = WaysOut(config, wss)
    prober = Prober(config, ways_out, health)
    with contextlib.closing(ways_out):
        async with asyncio.TaskGroup() as tasks:
            probing = tasks.create_task(prober.run(), name="prober")
            yield Upstream(config, ways_out, health, prober, counters or Counters.discarding()), health
            probing.cancel()
