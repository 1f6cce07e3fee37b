"""What happens to a request between a way in and a way out. No octets of HTTP, TLS or sockets here."""

import asyncio
import time
from dataclasses import replace

from kkdcpd.config import RealmConfig
from kkdcpd.errors import ExchangeError, LocateError
from kkdcpd.guard.guard import Guard, Verdict
from kkdcpd.locate.locator import Locator
from kkdcpd.locate.realms import ServedRealm
from kkdcpd.protocol.dclocator import flags_of
from kkdcpd.upstream.driver import Upstream
from kkdcpd.upstream.password_changes import PasswordChanges
from kkdcpd.values import ClientConnection, DcLocatorFlags, KdcReply, Outcome, ProxyRequest, RequestResult

__all__ = ["Pipeline", "refused"]


class Pipeline:
    """Asks the guard, locates the realm's KDCs, exchanges the request with one, asks the guard again."""

    def __init__(
        self, *, guard: Guard, locator: Locator, upstream: Upstream, password_changes: PasswordChanges
    ) -> None:
        self._guard = guard
        self._locator = locator
        self._upstream = upstream
        self._password_changes = password_changes
        self.charge = guard.charge
        """Charges a client for the head of a request; the verdict is on their rate."""
        self.visit = guard.visit
        """Counts a request of a client for as long as its context lasts; its verdict is on their number."""

    async def serve(self, request: ProxyRequest, client: ClientConnection) -> RequestResult:
        """Serve one request; whatever keeps it from a reply is in the outcome, never raised."""
        flags = flags_of(request.dclocator_hint, is_armored=request.is_armored)
        try:
            served_realm = self._locator.match(request.target_domain, flags)
        except LocateError as error:
            return RequestResult(outcome=error.outcome, detail=str(error))
        realm = served_realm.config
        verdict = self._guard.admit(request, client, realm)
        if verdict.refusal:
            return refused(verdict, realm.name)
        started = time.perf_counter()
        try:
            served = await self._exchange(request, client, served_realm, flags)
        except asyncio.CancelledError:
            self._guard.note_departure(request, client, realm, seconds=time.perf_counter() - started)
            raise
        if served.reply:
            served = self._review(request, client, realm, served, served.reply)
        if not verdict.monitored:
            return served
        # Some rules look at both, and are told once.
        return replace(served, monitored=tuple(dict.fromkeys(verdict.monitored + served.monitored)))

    async def _exchange(
        self, request: ProxyRequest, client: ClientConnection, realm: ServedRealm, flags: DcLocatorFlags
    ) -> RequestResult:
        name = realm.config.name
        try:
            route = await self._locator.route(realm, request.service, flags, network=client.network)
        except LocateError as error:
            return RequestResult(outcome=error.outcome, realm=name, detail=str(error))
        host = self._password_changes.host_for(request, realm.name, client.network)
        started = time.perf_counter()
        try:
            reply = await self._upstream.exchange(request, route, network=client.network, host=host)
        except ExchangeError as error:
            return RequestResult(
                outcome=error.outcome,
                realm=name,
                attempts=len(error.failures),
                detail=str(error),
                upstream_seconds=time.perf_counter() - started,
            )
        self._password_changes.learn(request, reply, realm.name, client.network)
        return RequestResult(
            outcome=Outcome.ANSWERED,
            realm=name,
            reply=reply,
            attempts=reply.attempts,
            detail=", ".join(map(str, reply.failures)) if reply.failures else None,
            upstream_seconds=time.perf_counter() - started,
        )

    def _review(
        self,
        request: ProxyRequest,
        client: ClientConnection,
        realm: RealmConfig,
        served: RequestResult,
        reply: KdcReply,
    ) -> RequestResult:
        verdict = self._guard.review(request, client, realm, reply.facts)
        if not verdict.refusal:
            return replace(served, monitored=verdict.monitored) if verdict.monitored else served
        return replace(
            refused(verdict, realm.name),
            reply=reply,
            attempts=reply.attempts,
            upstream_seconds=served.upstream_seconds,
        )


def refused(verdict: Verdict, realm: str | None = None) -> RequestResult:
    """Make of a verdict with a refusal what a request comes to."""
    assert verdict.refusal
    return RequestResult(
        outcome=verdict.refusal.outcome,
        realm=realm,
        detail=verdict.refusal.detail,
        refusal=verdict.refusal,
        monitored=verdict.monitored,
    )
