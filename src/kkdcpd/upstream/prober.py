"""Probes unhealthy endpoints in the background, so that no request has to try them."""

import asyncio
import contextlib
import secrets

from kkdcpd.config import UpstreamConfig
from kkdcpd.endpoints import Transport
from kkdcpd.process_messages import ProbeTarget
from kkdcpd.protocol.probe import ENTRA_REALM, build_empty_probe, build_probe, judge_probe
from kkdcpd.protocol.resending import NO_FACTS
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.sockets import WayOut
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.values import Attempt, FailureFacts, FailureReason, ProxyRequest

__all__ = ["Prober"]

PROBES = ()
"""Probes belong to no client network. Their number is limited by their pace."""

NONCE_BITS = 31
"""A UInt32 by RFC 4120 5.4.1, but some KDCs read bit 32 as a sign."""


class Prober:
    """Sends an AS-REQ to an unhealthy KDC, and only connects to an unhealthy password server.

    A KDC proxy gets the same AS-REQ, so that a probe tests the KDCs behind it too. Entra Kerberos answers no
    AS-REQ and gets an empty request.

    No probe of a UDP-only password server exists that changes no password. When its probe is due, the server
    counts as healthy again, and the next request shows its state.
    """

    def __init__(self, config: UpstreamConfig, ways_out: WaysOut, health: HealthTable) -> None:
        self._principal = config.probe_principal
        self._ways_out = ways_out
        self._health = health
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look at the health table again: a probe may be due sooner than it was."""
        self._woken.set()

    async def run(self) -> None:
        """Send the probes that are due, until cancelled."""
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
        """Send one probe. It counts as unanswered after `answer_seconds`, but a late answer still counts."""
        sent_at = asyncio.get_running_loop().time()
        request = self._request_for(target)
        if request is None and target.endpoint.transport is Transport.UDP:
            self._report(target, None, sent_at)
            return
        probe = _Probe(request)
        # A probe tests the endpoint, so it needs a new connection.
        way = self._ways_out.open(
            Attempt(number=1, endpoint=target.endpoint), probe, networks=PROBES, may_repeat=False
        )
        try:
            probe.start(way)
            outcome = await self._outcome_of(probe)
            self._report(target, outcome, sent_at)
            if outcome is FailureReason.SILENT and await self._outcome_of(probe) is None:
                self._report(target, None, sent_at)
        finally:
            way.close()

    def _request_for(self, target: ProbeTarget) -> ProxyRequest | None:
        if target.realm is None:
            return None
        if target.endpoint.transport is Transport.HTTPS and target.realm.upper() == ENTRA_REALM:
            return build_empty_probe(target.realm)
        return build_probe(target.realm, self._principal, nonce=secrets.randbits(NONCE_BITS))

    async def _outcome_of(self, probe: "_Probe") -> FailureReason | None:
        done, _ = await asyncio.wait({probe.outcome}, timeout=self._health.answer_seconds)
        return probe.outcome.result() if done else FailureReason.SILENT

    def _report(self, target: ProbeTarget, failure: FailureReason | None, sent_at: float) -> None:
        self._health.probed(target, failure, asyncio.get_running_loop().time(), sent_at=sent_at)
        self._woken.set()


class _Probe:
    """One probe under way. Without a request, the probe only connects."""

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
        is_empty = self._request is not None and not self._request.kerb_message
        self._end(None if is_empty else judge_probe(payload))

    def failed(self, attempt: Attempt, reason: FailureReason, facts: FailureFacts = NO_FACTS) -> None:
        del attempt, facts
        # A KDC proxy whose policy refuses the probe is up, and more cannot be known.
        self._end(None if reason is FailureReason.PROXY_REFUSED else reason)

    def _end(self, outcome: FailureReason | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
