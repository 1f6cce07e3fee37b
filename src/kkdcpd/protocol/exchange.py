"""The life of one request: which KDCs are tried and when, which gets the message, and what ends it.

A state machine. It is fed with events and clock readings, and returns commands for others to carry out.

Connect to many, send to one. Connects start staggered, and the next starts at once when one fails (RFC 8305
section 5). The first connection gets the message, and the others are closed unused. Password servers are
tried strictly one after the other, because a change that is made twice reports failure on success.

Once a KDC has the message, no other KDC gets it. A second copy of a proof of a password counts twice toward a
lockout, burns a one-time password, or comes back as KRB_AP_ERR_REPEAT. The exceptions are what the protocol
itself asks for, KRB_ERR_RESPONSE_TOO_BIG (the same KDC, by TCP: RFC 4120 7.2.1) and KDC_ERR_SVC_UNAVAILABLE
(the next KDC; if all say so, that reply is relayed), and repeatable messages, which prove nothing.

A repeatable message goes to another KDC after a silence (a hedge), and over UDP also to the same KDC again
(RFC 4120 7.2.1), with growing pauses: the datagram or its answer may be lost. All copies leave from the same
socket, so that every answer comes to it.

A KDC that has the message and stays silent may be working on it: a one-time password takes 12 seconds. It may
also be dead. Probes tell the two apart, and the exchange asks for their verdict once `reach_timeout` is over.

Over UDP a reply of another kind than the request's is not this request's, and is passed over. Names are not
compared: a KDC may change them (canonicalization, enterprise and anonymous names, FAST, S4U2Self, referrals).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
    "EndpointHealth",
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


FIRST_PAUSE_SECONDS = 1.0
"""How long a datagram waits for its answer before it is sent again. Each further pause is twice as long.

MIT's client waits as long. krb5kdc 1.20 crashes when it gets a datagram again to which it has a reply that is
too big for one. So an endpoint that has had such replies gets the message by TCP instead.
"""

CHECK_SECONDS = 1.0
"""How often an exchange asks whether a silent KDC is dead, once `reach_timeout` is over."""

_UDP_NOT_TAKEN = frozenset({FailureReason.REFUSED, FailureReason.MESSAGE_TOO_BIG, FailureReason.LOCAL_ERROR})
"""A datagram to a closed port reached a host, but no KDC. The others never left this host."""

_NOT_ITS_FAULT = frozenset(
    {
        FailureReason.BUSY,
        FailureReason.DISPLACED,
        FailureReason.LOCAL_ERROR,
        FailureReason.MESSAGE_TOO_BIG,
    }
)
"""Failures that say nothing about the endpoint's health."""

_HAS_DECIDED = frozenset(
    {
        FailureReason.BAD_REPLY,
        FailureReason.CLOSED,
        FailureReason.REPLY_TOO_BIG,
        FailureReason.RESET,
        FailureReason.SERVICE_UNAVAILABLE,
    }
)
"""What a KDC does that has read the message. Its other transport leads to the same KDC."""


class HedgeBudget(Protocol):
    """Keeps hedges from doubling the load of slow KDCs."""

    def take(self) -> bool:
        """Take one hedge out of the budget, if there is one left."""


class EndpointHealth(Protocol):
    """What is known of endpoints beyond this exchange."""

    def note_overflow(self, endpoint: KdcEndpoint) -> None:
        """Remember that the endpoint had a reply that was too big for a datagram."""

    def has_overflowed(self, endpoint: KdcEndpoint) -> bool:
        """Whether the endpoint had such a reply."""

    def is_dead(self, endpoint: KdcEndpoint, since: float) -> bool:
        """Whether the endpoint left two probes in a row unanswered, the second of them sent after `since`."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Get ready to send to the attempt's endpoint; then tell `connected` or `failed`."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Send:
    """Write the message; then tell `received` or `failed`. A datagram may be sent several times."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Abandon:
    """Close the attempt and tell nothing more of it."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Report:
    """News of an endpoint's health: how it failed, or (None) that it is well."""

    endpoint: KdcEndpoint
    failure: FailureReason | None


Command = Connect | Send | Abandon | Report


@dataclass(slots=True, kw_only=True)
class _Connecting:
    """An attempt that connects: until when, and when it counts as slow."""

    attempt: Attempt
    candidate: Candidate
    deadline: float
    slow_at: float


@dataclass(slots=True, kw_only=True)
class _Holder:
    """An attempt whose KDC has the message.

    `silent_at` is when its silence is reported, `check_at` when to ask whether it is dead, `repeat_at` when
    to send the message again.
    """

    attempt: Attempt
    sent_at: float
    silent_at: float
    repeat_at: float
    check_at: float = math.inf
    pause: float = field(default=2 * FIRST_PAUSE_SECONDS)


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
        health: EndpointHealth,
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
        self._health = health
        self._untried = list(candidates)
        self._connecting: dict[int, _Connecting] = {}
        self._holders: dict[int, _Holder] = {}
        self._seeks_holder = True
        self._was_taken = False
        self._next_connect_at = now
        self._reach_deadline = now + limits.reach_timeout
        self._reply_deadline = now + limits.reply_timeout
        self._deadline = self._reach_deadline  # the one of both that counts now
        self._attempts = 0
        self._unavailable: KdcReply | None = None
        self._commands: list[Command] = []

    # --- events; those of an attempt that is over have no effect

    def connected(self, attempt: Attempt, now: float) -> None:
        """Learn that the attempt can send. The first of which we learn that gets the message."""
        if not self._connecting.pop(attempt.number, None):
            return
        if not self._seeks_holder:
            self._commands.append(Abandon(attempt))
            return
        self._seeks_holder = False
        self._deadline = self._reply_deadline
        may_repeat = attempt.endpoint.transport is Transport.UDP and is_repeatable(self._request)
        self._holders[attempt.number] = _Holder(
            attempt=attempt,
            sent_at=now,
            silent_at=now + self._limits.hedge_delay,
            repeat_at=now + FIRST_PAUSE_SECONDS if may_repeat else math.inf,
        )
        self._commands.append(Send(attempt))
        if self._connecting:
            self._abandon_connects()
        self.wakes_at = self._next_moment()

    def failed(self, attempt: Attempt, reason: FailureReason, now: float) -> None:
        """Learn that the attempt is over without a reply."""
        holder = self._holders.pop(attempt.number, None)
        if not holder and not self._connecting.pop(attempt.number, None):
            return
        endpoint = attempt.endpoint
        may_be_delivered = holder is not None and _is_taken(endpoint.transport, reason)
        self.failures.append(
            AttemptFailure(endpoint=endpoint, reason=reason, may_be_delivered=may_be_delivered)
        )
        if reason not in _NOT_ITS_FAULT:
            self._commands.append(Report(endpoint, reason))
        self._was_taken = self._was_taken or may_be_delivered
        if may_be_delivered and not is_repeatable(self._request):
            self._give_up()
            return
        self._learn_from(reason, endpoint, may_be_delivered=may_be_delivered)
        self._seek_holder(now)

    def received(self, attempt: Attempt, payload: bytes, now: float) -> None:
        """Learn what the endpoint answered."""
        if attempt.number not in self._holders:
            return
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
            self._pass_over(reply, now)
        elif (
            facts.error_code == KrbErrorCode.KRB_ERR_RESPONSE_TOO_BIG and endpoint.transport is Transport.UDP
        ):
            self._go_on_by_tcp(endpoint, now)
        else:
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
        if self._connecting:
            self._look_at_connects(now)
        if self._holders:
            self._look_at_holders(now)
        if self.reply or self.error:
            return
        if self._seeks_holder and now < self._deadline:
            self._connect_next(now)
        if now >= self._deadline or not (self._connecting or self._holders):
            self._time_out_holders()
            self._give_up()
        else:
            self.wakes_at = self._next_moment()

    def _next_moment(self) -> float:
        moment = self._deadline
        if self._seeks_holder and self._untried and self._may_overtake(self._untried[0]):
            moment = min(moment, self._next_connect_at)
        for connecting in self._connecting.values():
            moment = min(moment, connecting.deadline, connecting.slow_at)
        for holder in self._holders.values():
            moment = min(moment, holder.silent_at, holder.repeat_at, holder.check_at)
        return moment

    def _look_at_connects(self, now: float) -> None:
        for connecting in [*self._connecting.values()]:
            attempt = connecting.attempt
            if now >= connecting.slow_at:
                connecting.slow_at = math.inf
                self._commands.append(Report(attempt.endpoint, FailureReason.SLOW_TO_CONNECT))
            if now >= connecting.deadline:
                self._commands.append(Abandon(attempt))
                self.failed(attempt, FailureReason.CONNECT_TIMEOUT, now)

    def _look_at_holders(self, now: float) -> None:
        for holder in [*self._holders.values()]:
            if now >= holder.silent_at:
                self._notice_silence(holder, now)
            if now >= holder.check_at:
                self._check(holder, now)
            elif now >= holder.repeat_at:
                self._repeat(holder, now)

    def _notice_silence(self, holder: _Holder, now: float) -> None:
        """Report the silence, whatever the message, so that the next message need not meet it."""
        holder.silent_at = math.inf
        holder.check_at = max(self._reach_deadline, now)
        self._commands.append(Report(holder.attempt.endpoint, FailureReason.SILENT))
        if is_repeatable(self._request) and self._untried and self._hedges.take():
            self._seek_holder(now)

    def _check(self, holder: _Holder, now: float) -> None:
        """Give up a KDC that is dead. One that answers probes works on the message: wait on, and watch it."""
        attempt = holder.attempt
        if self._health.is_dead(attempt.endpoint, holder.sent_at):
            self._commands.append(Abandon(attempt))
            self.failed(attempt, FailureReason.SILENT, now)
        else:
            holder.check_at = now + CHECK_SECONDS
            self._commands.append(Report(attempt.endpoint, FailureReason.SILENT))

    def _repeat(self, holder: _Holder, now: float) -> None:
        endpoint = holder.attempt.endpoint
        if self._health.has_overflowed(endpoint):
            holder.repeat_at = math.inf
            self._make_next(_by_tcp(endpoint))
            self._seek_holder(now)
        else:
            holder.repeat_at = now + holder.pause
            holder.pause *= 2
            self._commands.append(Send(holder.attempt))

    def _connect_next(self, now: float) -> None:
        while self._untried:
            if self._connecting and not (
                now >= self._next_connect_at and self._may_overtake(self._untried[0])
            ):
                return
            candidate = self._untried.pop(0)
            self._attempts += 1
            attempt = Attempt(number=self._attempts, endpoint=candidate.endpoint)
            self._next_connect_at = now + self._limits.stagger
            self._connecting[self._attempts] = _Connecting(
                attempt=attempt,
                candidate=candidate,
                deadline=now + self._limits.connect_timeout,
                slow_at=self._next_connect_at,
            )
            self._commands.append(Connect(attempt))

    def _may_overtake(self, candidate: Candidate) -> bool:
        """Whether it may start while another connects. A datagram would win, and can't be called back."""
        return not (self._is_serial or candidate.is_fallback)

    def _time_out_holders(self) -> None:
        self.failures += [
            AttemptFailure(
                endpoint=holder.attempt.endpoint, reason=FailureReason.REPLY_TIMEOUT, may_be_delivered=True
            )
            for holder in self._holders.values()
        ]

    # --- transitions

    def _abandon_connects(self) -> None:
        losers = [*self._connecting.values()]
        self._commands += [Abandon(loser.attempt) for loser in losers]
        self._untried[:0] = [loser.candidate for loser in losers]
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

    def _learn_from(self, reason: FailureReason, endpoint: KdcEndpoint, *, may_be_delivered: bool) -> None:
        if may_be_delivered and reason in _HAS_DECIDED:
            self._forget(endpoint)
        elif reason is FailureReason.REFUSED:
            self._prefer_fallback(endpoint)
        elif reason is FailureReason.LOCAL_ERROR and endpoint.transport is Transport.UDP:
            # All ports that no late answer to another request can reach are in use. TCP needs no such port.
            by_tcp = _by_tcp(endpoint)
            if all(failure.endpoint != by_tcp for failure in self.failures):
                self._make_next(by_tcp)

    def _pass_over(self, unavailable: KdcReply, now: float) -> None:
        """Go on to the next KDC, and keep the reply in case that no other is available either."""
        endpoint = unavailable.endpoint
        self._unavailable = unavailable
        self.failures.append(
            AttemptFailure(
                endpoint=endpoint, reason=FailureReason.SERVICE_UNAVAILABLE, may_be_delivered=False
            )
        )
        self._forget(endpoint)
        self._seek_holder(now)

    def _forget(self, endpoint: KdcEndpoint) -> None:
        """Leave out the KDC by its other transport: the next one is another."""
        host = endpoint.address, endpoint.port
        self._untried = [
            other for other in self._untried if (other.endpoint.address, other.endpoint.port) != host
        ]

    def _prefer_fallback(self, refused: KdcEndpoint) -> None:
        """Bring forward the UDP of a host that refused TCP: it is alive (Heimdal's kpasswdd is UDP only)."""
        fallbacks = iter(
            sorted(
                (other for other in self._untried if other.is_fallback),
                key=lambda other: other.endpoint.address != refused.address,
            )
        )
        self._untried = [next(fallbacks) if other.is_fallback else other for other in self._untried]

    def _go_on_by_tcp(self, endpoint: KdcEndpoint, now: float) -> None:
        """Ask the same KDC again, and no other if it has seen a proof."""
        self._health.note_overflow(endpoint)
        if not is_repeatable(self._request):
            self._untried.clear()
        self._was_taken = True
        self._make_next(_by_tcp(endpoint))
        self._seek_holder(now)

    def _make_next(self, endpoint: KdcEndpoint) -> None:
        self._untried = [other for other in self._untried if other.endpoint != endpoint]
        self._untried.insert(0, Candidate(endpoint=endpoint, source="UDP"))

    def _give_up(self) -> None:
        if self._unavailable:
            self.reply = self._unavailable
        else:
            may_be_delivered = self._was_taken or self._holders
            self.error = (NoKdcReplyError if may_be_delivered else NoKdcReachedError)(self.failures)
        self._end()

    def _end(self) -> None:
        """Close what is still under way. Nothing else is due any more."""
        self.wakes_at = math.inf
        if self._connecting or self._holders:
            self._commands += [Abandon(connecting.attempt) for connecting in self._connecting.values()]
            self._commands += [Abandon(holder.attempt) for holder in self._holders.values()]
            self._connecting.clear()
            self._holders.clear()


def _by_tcp(endpoint: KdcEndpoint) -> KdcEndpoint:
    return replace(endpoint, transport=Transport.TCP)


def _is_taken(transport: Transport, reason: FailureReason) -> bool:
    """Whether a KDC may have the message that was being sent to it."""
    return transport is Transport.TCP or reason not in _UDP_NOT_TAKEN
