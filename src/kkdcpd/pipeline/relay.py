"""Relays one request to a KDC of its realm, and decides with the guard whether request and reply may pass."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from kkdcpd.errors import ExchangeError, LocateError
from kkdcpd.guard.guard import Guard, Verdict
from kkdcpd.locate.locator import Locator
from kkdcpd.locate.realms import ServedRealm
from kkdcpd.protocol.dclocator import flags_of
from kkdcpd.upstream.driver import Upstream
from kkdcpd.upstream.password_changes import PasswordChanges
from kkdcpd.values import ClientConnection, DcLocatorFlags, Outcome, ProxyRequest, RequestResult, Rule

__all__ = ["Relay", "refused", "with_monitored"]


class Relay:
    """Finds the realm, admits the request, exchanges it with a KDC and reviews the reply."""

    def __init__(
        self, *, guard: Guard, locator: Locator, upstream: Upstream, password_changes: PasswordChanges
    ) -> None:
        self._guard = guard
        self._locator = locator
        self._upstream = upstream
        self._password_changes = password_changes

    async def relay(
        self, request: ProxyRequest, client: ClientConnection, *, on_sent: Callable[[], object] | None = None
    ) -> RequestResult:
        """Relay a request. Every failure is an outcome of the result, never an exception.

        `on_sent` is called before a KDC gets the message.
        """
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
            result = await self._exchange(request, client, served_realm, flags, on_sent)
        except asyncio.CancelledError:
            self._guard.note_departure(request, client, realm, seconds=time.perf_counter() - started)
            raise
        if result.reply:
            review = self._guard.review(request, client, realm, result.reply.facts)
            if review.refusal:
                result = _withheld(result, review)
            elif review.monitored:
                result = with_monitored(result, review.monitored)
        return with_monitored(result, verdict.monitored) if verdict.monitored else result

    async def _exchange(
        self,
        request: ProxyRequest,
        client: ClientConnection,
        realm: ServedRealm,
        flags: DcLocatorFlags,
        on_sent: Callable[[], object] | None,
    ) -> RequestResult:
        name = realm.config.name
        try:
            route = await self._locator.route(realm, request.service, flags, network=client.network)
        except LocateError as error:
            return RequestResult(outcome=error.outcome, realm=name, detail=str(error))
        host = self._password_changes.host_for(request, realm.name, client.network)
        started = time.perf_counter()
        try:
            reply = await self._upstream.exchange(
                request, route, network=client.network, host=host, on_sent=on_sent
            )
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


def refused(verdict: Verdict, realm: str | None = None) -> RequestResult:
    """Return the result of a request that the guard refuses."""
    assert verdict.refusal
    return RequestResult(
        outcome=verdict.refusal.outcome,
        realm=realm,
        detail=verdict.refusal.detail,
        refusal=verdict.refusal,
        monitored=verdict.monitored,
    )


def with_monitored(result: RequestResult, rules: tuple[Rule, ...]) -> RequestResult:
    """Add broken rules in monitor mode before those of the result. Each rule is named once."""
    return replace(result, monitored=tuple(dict.fromkeys(rules + result.monitored)))


def _withheld(result: RequestResult, review: Verdict) -> RequestResult:
    """Return the result of a request after the guard refuses its reply. The reply stays in it for the log."""
    return replace(
        refused(review, result.realm),
        reply=result.reply,
        attempts=result.attempts,
        upstream_seconds=result.upstream_seconds,
    )
