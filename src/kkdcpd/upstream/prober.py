"""Probes endpoints that are in trouble, in the background, so that no request has to."""

import asyncio
import contextlib
import secrets

from kkdcpd.config import UpstreamConfig
from kkdcpd.protocol.probe import build_probe, judge_probe
from kkdcpd.upstream.attempt import WayOut
from kkdcpd.upstream.health import HealthTable, ProbeTarget
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.values import Attempt, FailureReason, ProxyRequest, Transport

__all__ = ["Prober"]

NONCE_BITS = 31
"""UInt32 by RFC 4120 5.4.1, but there are KDCs that take the 32nd for a sign."""


class Prober:
    """Sends a KDC in trouble an AS-REQ now and then; a password server only a connect.

    A password server that speaks UDP alone can't be probed without changing a password: when its probe is
    due it counts as well again, and the next request tells.
    """

    def __init__(self, config: UpstreamConfig, ways_out: WaysOut, health: HealthTable) -> None:
        self._principal = config.probe_principal
        self._timeout = config.reach_timeout
        self._ways_out = ways_out
        self._health = health
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at the health table again: a probe may be due sooner than was thought."""
        self._woken.set()

    async def run(self) -> None:
        """Probe whoever is due, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._woken.clear()
                for target in self._health.probes_due(loop.time()):
                    tasks.create_task(self._probe(target), name=f"probe {target.endpoint}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._health.next_probe_at):
                        await self._woken.wait()

    async def _probe(self, target: ProbeTarget) -> None:
        failure = None
        if target.realm is not None:
            probe = build_probe(target.realm, self._principal, nonce=secrets.randbits(NONCE_BITS))
            failure = await self._ask(target, probe)
        elif target.endpoint.transport is Transport.TCP:
            failure = await self._ask(target, None)
        self._health.probed(target, failure, asyncio.get_running_loop().time())
        self._woken.set()

    async def _ask(self, target: ProbeTarget, request: ProxyRequest | None) -> FailureReason | None:
        probe = _Probe(request)
        way = self._ways_out.open(Attempt(number=1, endpoint=target.endpoint), probe)
        probe.start(way)
        try:
            async with asyncio.timeout(self._timeout):
                return await probe.outcome
        except TimeoutError:
            return FailureReason.SILENT
        finally:
            way.close()


class _Probe:
    """One probe under way: without a request, being connected is all that is asked."""

    def __init__(self, request: ProxyRequest | None) -> None:
        self.outcome: asyncio.Future[FailureReason | None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._way: WayOut | None = None

    def start(self, way: WayOut) -> None:
        self._way = way
        way.start()

    def connected(self, attempt: Attempt) -> None:
        del attempt
        assert self._way
        if self._request:
            self._way.send(self._request)
        else:
            self._end(None)

    def received(self, attempt: Attempt, payload: bytes) -> None:
        del attempt
        self._end(judge_probe(payload))

    def failed(self, attempt: Attempt, reason: FailureReason) -> None:
        del attempt
        self._end(reason)

    def _end(self, outcome: FailureReason | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
