"""One request to its reply: who is tried when, who gets the message, and what ends it.

A state machine fed with events and clock readings; it asks for commands to be carried out and does nothing.

Connect to many, send to one. Connects start staggered, the next at once when one fails (RFC 8305 section 5);
the first that connects gets the message and the others are closed unused. A kpasswd request is served by one
after the other, for a change that is made twice reports failure on success.

Once a KDC has the message, nobody else gets it: a doubled proof of a password counts twice toward a lockout,
burns a one-time password, or comes back as KRB_AP_ERR_REPEAT. Exceptions are what the protocol itself asks
for, KRB_ERR_RESPONSE_TOO_BIG (the same KDC, by TCP: RFC 4120 7.2.1) and KDC_ERR_SVC_UNAVAILABLE (the next
KDC; if all say so it is relayed), and messages that prove nothing and so may be repeated.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kkdcpd.errors import ExchangeError, MalformedError, NoKdcReachedError, NoKdcReplyError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import messages
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.values import (
    Attempt,
    AttemptFailure,
    Candidate,
    FailureReason,
    KdcEndpoint,
    KdcReply,
    MessageKind,
    ProxyRequest,
    Transport,
)

__all__ = [
    "Abandon",
    "Command",
    "Connect",
    "Exchange",
    "ExchangeLimits",
    "HedgeBudget",
    "Report",
    "Send",
    "is_repeatable",
]

HARMLESS_PADATA = frozenset(
    {
        128,  # PA-PAC-REQUEST ([MS-KILE] 2.2.3)
        149,  # PA-REQ-ENC-PA-REP (RFC 6806 11)
        150,  # PA-AS-FRESHNESS, as an empty request for a token (RFC 8070 2)
        167,  # PA-PAC-OPTIONS ([MS-KILE] 2.2.10)
    }
)
"""Padata that prove nothing. What isn't here may prove something, what FAST hides included."""


def is_repeatable(request: ProxyRequest) -> bool:
    """Whether it does no harm when two KDCs get the request: an allow-list.

    A ticket proves its bearer as often as it likes, so a TGS-REQ may; an AS-REQ may if nothing in it can be a
    proof of a password.
    """
    if request.kind is MessageKind.AS_REQ:
        return HARMLESS_PADATA.issuperset(request.padata_types)
    return request.kind is MessageKind.TGS_REQ


@frozen
class ExchangeLimits:
    """All in seconds: [upstream] of the configuration, where each has its reason."""

    connect_timeout: float
    reach_timeout: float
    reply_timeout: float
    stagger: float
    hedge_delay: float


_NOT_TAKEN = frozenset({FailureReason.REFUSED, FailureReason.MESSAGE_TOO_BIG})
"""A datagram to a closed port reached a host, but no KDC; one that is too big went nowhere."""

_NOBODYS_FAULT = frozenset({FailureReason.BUSY, FailureReason.MESSAGE_TOO_BIG})


class HedgeBudget(Protocol):
    """Who keeps hedges from doubling the load of KDCs that have a slow day."""

    def take(self) -> bool:
        """Take one hedge out of the budget, if there is one left."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Get ready to send to the attempt's endpoint; then tell `connected` or `failed`."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Send:
    """Write the message; then tell `received` or `failed`."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Abandon:
    """Close the attempt and tell nothing more of it."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Report:
    """What was learnt about an endpoint's health: how it failed, or (None) that it is well."""

    endpoint: KdcEndpoint
    failure: FailureReason | None


Command = Connect | Send | Abandon | Report


@dataclass(slots=True, kw_only=True)
class _Running:
    """An attempt under way: until when we wait for it, and when we say that it is silent (None: we did)."""

    attempt: Attempt
    deadline: float
    silent_at: float | None


class Exchange:
    """The attempts of one request.

    Carry out what `due` asks for after each event and at `wakes_at`, until there is a `reply` or an `error`.
    Attempts under way are kept by their number.
    """

    def __init__(
        self,
        request: ProxyRequest,
        candidates: Sequence[Candidate],
        *,
        limits: ExchangeLimits,
        hedges: HedgeBudget,
        now: float,
    ) -> None:
        self.reply: KdcReply | None = None
        self.error: ExchangeError | None = None
        self.failures: list[AttemptFailure] = []
        self.wakes_at = now
        self._request = request
        self._is_serial = request.kind is MessageKind.KPASSWD_REQ
        self._limits = limits
        self._hedges = hedges
        self._untried: list[KdcEndpoint] = []
        self._fallbacks: list[KdcEndpoint] = []
        for candidate in candidates:
            (self._fallbacks if candidate.is_fallback else self._untried).append(candidate.endpoint)
        self._connecting: dict[int, _Running] = {}
        self._holders: dict[int, _Running] = {}
        self._seeks_holder = True
        self._was_taken = False
        self._next_connect_at = now
        self._reach_deadline = now + limits.reach_timeout
        self._reply_deadline = now + limits.reply_timeout
        self._deadline = self._reach_deadline  # the one of both that counts now
        self._attempts = 0
        self._unavailable: KdcReply | None = None
        self._commands: list[Command] = []

    # --- events

    def connected(self, attempt: Attempt, now: float) -> None:
        """Learn that the attempt can send. The first of which we learn that gets the message."""
        running = self._connecting.pop(attempt.number)
        if not self._seeks_holder:
            self._commands.append(Abandon(attempt))
            return
        self._seeks_holder = False
        self._deadline = self._reply_deadline
        running.deadline = self._reply_deadline
        running.silent_at = now + self._limits.hedge_delay
        self._holders[attempt.number] = running
        self._commands.append(Send(attempt))
        if self._connecting:
            self._abandon_connects()
        self.wakes_at = self._next_moment()

    def failed(self, attempt: Attempt, reason: FailureReason, now: float) -> None:
        """Learn that the attempt is over without a reply."""
        self._connecting.pop(attempt.number, None)
        was_holder = self._holders.pop(attempt.number, None) is not None
        is_taken = was_holder and reason not in _NOT_TAKEN
        self.failures.append(AttemptFailure(endpoint=attempt.endpoint, reason=reason, is_taken=is_taken))
        if reason not in _NOBODYS_FAULT:
            self._commands.append(Report(attempt.endpoint, reason))
        if reason is FailureReason.REFUSED:
            self._prefer_fallback(attempt.endpoint)
        self._was_taken = self._was_taken or is_taken
        if is_taken and not is_repeatable(self._request):
            self._give_up()
        else:
            self._seek_holder(now)

    def received(self, attempt: Attempt, payload: bytes, now: float) -> None:
        """Learn what the endpoint answered."""
        try:
            facts = messages.inspect_reply(self._request.kind, payload)
        except MalformedError:
            self.failed(attempt, FailureReason.BAD_REPLY, now)
            return
        del self._holders[attempt.number]
        endpoint = attempt.endpoint
        reply = KdcReply(
            payload=payload,
            facts=facts,
            endpoint=endpoint,
            attempts=self._attempts,
            failures=tuple(self.failures),
        )
        is_unavailable = facts.error_code == KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE
        self._commands.append(Report(endpoint, FailureReason.SERVICE_UNAVAILABLE if is_unavailable else None))
        if is_unavailable and not self._is_serial:
            self._unavailable = reply
            self.failures.append(
                AttemptFailure(endpoint=endpoint, reason=FailureReason.SERVICE_UNAVAILABLE, is_taken=False)
            )
            self._forget(endpoint)
            self._seek_holder(now)
            return
        if facts.error_code == KrbErrorCode.KRB_ERR_RESPONSE_TOO_BIG and endpoint.transport is Transport.UDP:
            self._go_on_by_tcp(endpoint, now)
            return
        self.reply = reply
        self._end()

    # --- what is to be done

    def due(self, now: float) -> list[Command]:
        """Return the commands that are due by now; none once the exchange has ended.

        `wakes_at` tells from then on when there will be something new to say, if no event comes before.
        """
        if now >= self.wakes_at:
            self._look_around(now)
        commands, self._commands = self._commands, []
        return commands

    def _look_around(self, now: float) -> None:
        """Find what is due: by the clock, or after an event that changed what is to be done."""
        if self._connecting or self._holders:
            self._time_out_connects(now)
            self._notice_silence(now)
        if self._seeks_holder and now < self._deadline:
            self._connect_next(now)
        if now >= self._deadline or not (self._connecting or self._holders):
            self._time_out_holders()
            self._give_up()
        else:
            self.wakes_at = self._next_moment()

    def _next_moment(self) -> float:
        moment = self._deadline
        if self._seeks_holder and self._untried and not self._is_serial:
            moment = min(moment, self._next_connect_at)
        for running in (*self._connecting.values(), *self._holders.values()):
            moment = min(moment, running.deadline if running.silent_at is None else running.silent_at)
        return moment

    def _time_out_connects(self, now: float) -> None:
        for running in [*self._connecting.values()]:
            if now >= running.deadline:
                self._commands.append(Abandon(running.attempt))
                self.failed(running.attempt, FailureReason.CONNECT_TIMEOUT, now)

    def _notice_silence(self, now: float) -> None:
        """Report who lets us wait, whatever the message, so that the next one need not meet it."""
        for running in (*self._connecting.values(), *self._holders.values()):
            if running.silent_at is None or now < running.silent_at:
                continue
            running.silent_at = None
            attempt = running.attempt
            is_holder = attempt.number in self._holders
            reason = FailureReason.SILENT if is_holder else FailureReason.SLOW_TO_CONNECT
            self._commands.append(Report(attempt.endpoint, reason))
            if is_holder and self._may_hedge():
                self._seek_holder(now)

    def _may_hedge(self) -> bool:
        return is_repeatable(self._request) and bool(self._untried) and self._hedges.take()

    def _connect_next(self, now: float) -> None:
        while not self._connecting or (now >= self._next_connect_at and not self._is_serial):
            if self._untried:
                endpoint = self._untried.pop(0)
            # A datagram can't be called back, so it waits until nobody else is left.
            elif self._fallbacks and not self._connecting and not self._holders:
                endpoint = self._fallbacks.pop(0)
            else:
                return
            self._attempts += 1
            attempt = Attempt(number=self._attempts, endpoint=endpoint)
            self._next_connect_at = now + self._limits.stagger
            self._connecting[self._attempts] = _Running(
                attempt=attempt, deadline=now + self._limits.connect_timeout, silent_at=self._next_connect_at
            )
            self._commands.append(Connect(attempt))

    def _time_out_holders(self) -> None:
        self.failures += [
            AttemptFailure(
                endpoint=holder.attempt.endpoint, reason=FailureReason.REPLY_TIMEOUT, is_taken=True
            )
            for holder in self._holders.values()
        ]

    # --- transitions

    def _abandon_connects(self) -> None:
        for loser in self._connecting.values():
            self._commands.append(Abandon(loser.attempt))
            self._untried.append(loser.attempt.endpoint)
        self._connecting.clear()

    def _seek_holder(self, now: float) -> None:
        """Let the next candidate be connected to at once, unless another has the message and may answer."""
        if self.reply or self.error:
            return
        self.wakes_at = now
        if not self._holders and not self._was_taken:
            self._deadline = self._reach_deadline
        if not self._holders or is_repeatable(self._request):
            self._seeks_holder = True
            self._next_connect_at = now

    def _forget(self, unavailable: KdcEndpoint) -> None:
        """Leave out the KDC by its other transport: the next one is another."""
        place = unavailable.address, unavailable.port
        self._untried = [other for other in self._untried if (other.address, other.port) != place]
        self._fallbacks = [other for other in self._fallbacks if (other.address, other.port) != place]

    def _prefer_fallback(self, refused: KdcEndpoint) -> None:
        """Bring forward the UDP of a host that refused TCP: it is alive (Heimdal's kpasswdd is UDP only)."""
        self._fallbacks.sort(key=lambda endpoint: endpoint.address != refused.address)

    def _go_on_by_tcp(self, endpoint: KdcEndpoint, now: float) -> None:
        """Ask the same KDC again; nobody else, if it has seen a proof."""
        if not is_repeatable(self._request):
            self._untried.clear()
            self._fallbacks.clear()
        self._was_taken = True
        self._untried.insert(0, replace(endpoint, transport=Transport.TCP))
        self._seek_holder(now)

    def _give_up(self) -> None:
        if self._unavailable:
            self.reply = self._unavailable
        else:
            is_taken = self._was_taken or self._holders
            self.error = (NoKdcReplyError if is_taken else NoKdcReachedError)(self.failures)
        self._end()

    def _end(self) -> None:
        """Close what is still under way. Nothing else is due any more."""
        self.wakes_at = math.inf
        if self._connecting or self._holders:
            running = (*self._connecting.values(), *self._holders.values())
            self._commands += [Abandon(each.attempt) for each in running]
            self._connecting.clear()
            self._holders.clear()
