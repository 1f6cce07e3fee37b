"""The state machine of one exchange: decides which endpoints are tried and when, and which gets the message.

It takes events and clock readings, and returns commands. It does no I/O.

An exchange connects to many endpoints and sends to one. Connects start staggered, and the next starts at once
after a failure (RFC 8305 section 5). The first connection gets the message, and the others are closed unused.
Password servers are tried strictly one after the other: a change that is made twice is reported as a failure.

Once a KDC has the message, no other KDC gets it. A second copy of a proof of a password counts twice toward a
lockout, burns a one-time password, or comes back as KRB_AP_ERR_REPEAT. There are three exceptions:

- KRB_ERR_RESPONSE_TOO_BIG: the same KDC gets the message by TCP (RFC 4120 7.2.1).
- KDC_ERR_SVC_UNAVAILABLE: the next KDC gets it. If all KDCs say so, the client gets this reply.
- Repeatable messages, which prove nothing (`resending`).

A KDC proxy can say that no KDC has the message (`FailureFacts.is_undelivered`). Then the next endpoint gets
it, whatever the message is.

A repeatable message goes to another KDC after a silence (a hedge). Over UDP it also goes to the same KDC
again (RFC 4120 7.2.1), with growing pauses: the datagram or its answer may be lost. All copies leave from one
socket, and every answer comes to this socket.

A silent KDC that has the message may be working on it: a one-time password takes 12 seconds. It may also be
dead. Probes tell the two apart. Once `reach_timeout` is over, the exchange consults their result.

Over UDP a reply to another kind of request is dropped. Names are not compared: a KDC may change them
(canonicalization, enterprise and anonymous names, FAST, S4U2Self, referrals).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.errors import ExchangeError, MalformedError, NoKdcReachedError, NoKdcReplyError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import messages
from kkdcpd.protocol.candidate_queue import CandidateQueue
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.resending import (
    HAS_DECIDED,
    NO_DATAGRAM_LEFT,
    NO_FACTS,
    NOT_THE_ENDPOINT,
    is_repeatable,
    may_be_delivered,
)
from kkdcpd.values import (
    Attempt,
    AttemptFailure,
    Candidate,
    FailureFacts,
    FailureReason,
    KdcReply,
    MessageKind,
    ProxyRequest,
)

__all__ = [
    "Abandon",
    "Command",
    "Connect",
    "EndpointFacts",
    "EndpointHealth",
    "Exchange",
    "ExchangeLimits",
    "HedgeBudget",
    "Report",
    "Send",
]


@frozen
class ExchangeLimits:
    """Settings of [upstream], in seconds. config.toml.example gives the reason of each."""

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

_CONNECT_ROUND_TRIPS = {Transport.HTTPS: 2, Transport.WSS: 3}
"""Round trips until an endpoint can get a message, if more than one: TLS 1.3 takes one after TCP's. The
settings for connects are for one round trip."""

CHECK_SECONDS = 1.0
"""The interval at which an exchange checks whether a silent KDC is dead, once `reach_timeout` is over."""


class HedgeBudget(Protocol):
    """A limit of hedges, so that they do not double the load of slow KDCs."""

    def take(self) -> bool:
        """Take one hedge out of the budget, if there is one left."""


class EndpointFacts(Protocol):
    """Facts about endpoints that outlive this exchange."""

    def note_overflow(self, endpoint: KdcEndpoint) -> None:
        """Remember that the endpoint had a reply that was too big for a datagram."""

    def has_overflowed(self, endpoint: KdcEndpoint) -> bool:
        """Whether the endpoint had such a reply."""


class EndpointHealth(Protocol):
    """The results of probes."""

    def is_dead(self, endpoint: KdcEndpoint, since: float) -> bool:
        """Whether the endpoint left two probes in a row unanswered, the second of them sent after `since`."""


@dataclass(frozen=True, slots=True)
class Connect:
    """Get ready to send to the attempt's endpoint. The event `connected` or `failed` follows."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Send:
    """Write the message. The event `received` or `failed` follows. A datagram may be sent several times."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Abandon:
    """Close the attempt. No event of it follows."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Report:
    """Report an endpoint's failure, or (None) its reply, to the health table.

    `retry_after` is as in FailureFacts.
    """

    endpoint: KdcEndpoint
    failure: FailureReason | None
    retry_after: float = 0.0


Command = Connect | Send | Abandon | Report


@dataclass(slots=True, kw_only=True)
class _Connecting:
    """An attempt that connects, its deadline, and the time from which it counts as slow."""

    attempt: Attempt
    candidate: Candidate
    deadline: float
    slow_at: float


@dataclass(slots=True, kw_only=True)
class _Holder:
    """An attempt whose KDC has the message.

    `silent_at` is when the silence is reported, `check_at` when to check whether the KDC is dead, and
    `repeat_at` when to send the message again.
    """

    attempt: Attempt
    sent_at: float
    silent_at: float
    repeat_at: float
    check_at: float = math.inf
    pause: float = field(default=2 * FIRST_PAUSE_SECONDS)


class Exchange:
    """The attempts of one request.

    Carry out the commands of `due` after each event and at `wakes_at`, until `reply` or `error` is set.
    `is_repeatable`: two KDCs may get the message.
    """

    def __init__(
        self,
        request: ProxyRequest,
        candidates: Sequence[Candidate],
        *,
        limits: ExchangeLimits,
        hedges: HedgeBudget,
        health: EndpointHealth,
        facts: EndpointFacts,
        now: float,
    ) -> None:
        self.reply: KdcReply | None = None
        self.error: ExchangeError | None = None
        self.failures: list[AttemptFailure] = []
        self.wakes_at = now
        self._request = request
        self.is_repeatable = is_repeatable(request)
        self._is_serial = request.kind is MessageKind.KPASSWD_REQ
        self._limits = limits
        self._hedges = hedges
        self._health = health
        self._facts = facts
        self._untried = CandidateQueue(candidates)
        self._connecting: dict[int, _Connecting] = {}
        self._holders: dict[int, _Holder] = {}
        self._seeks_holder = True
        self._was_delivered = False
        self._next_connect_at = now
        self._reach_deadline = now + limits.reach_timeout
        self._reply_deadline = now + limits.reply_timeout
        self._deadline = self._reach_deadline  # either of the two
        self._attempts = 0
        self._unavailable: KdcReply | None = None
        self._commands: list[Command] = []

    # --- events; an event of an attempt that is over has no effect

    def connected(self, attempt: Attempt, now: float) -> None:
        """Take the news that the attempt can send. The first such attempt gets the message."""
        if not self._connecting.pop(attempt.number, None):
            return
        if not self._seeks_holder:
            self._commands.append(Abandon(attempt))
            return
        self._seeks_holder = False
        self._deadline = self._reply_deadline
        may_repeat = attempt.endpoint.transport is Transport.UDP and self.is_repeatable
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

    def failed(
        self, attempt: Attempt, reason: FailureReason, now: float, facts: FailureFacts = NO_FACTS
    ) -> None:
        """Take the news that the attempt is over without a reply."""
        holder = self._holders.pop(attempt.number, None)
        if not holder and not self._connecting.pop(attempt.number, None):
            return
        endpoint = attempt.endpoint
        is_delivered = holder is not None and not facts.is_undelivered
        is_delivered = is_delivered and may_be_delivered(endpoint.transport, reason)
        self.failures.append(AttemptFailure(endpoint=endpoint, reason=reason, may_be_delivered=is_delivered))
        if reason not in NOT_THE_ENDPOINT:
            self._commands.append(Report(endpoint, reason, facts.retry_after))
        self._was_delivered = self._was_delivered or is_delivered
        if is_delivered and not self.is_repeatable:
            self._give_up()
            return
        self._reorder_candidates(reason, endpoint, is_delivered=is_delivered)
        self._seek_holder(now)

    def received(self, attempt: Attempt, payload: bytes, now: float) -> None:
        """Take the endpoint's reply."""
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
            self._try_next_kdc(reply, now)
        elif (
            facts.error_code == KrbErrorCode.KRB_ERR_RESPONSE_TOO_BIG and endpoint.transport is Transport.UDP
        ):
            self._continue_by_tcp(endpoint, now)
        else:
            self.reply = reply
            self._end()

    # --- commands

    def due(self, now: float) -> list[Command]:
        """Return the commands that are due by now; none once the exchange has ended.

        Afterwards `wakes_at` is the time of the next command, if no event comes before.
        """
        if now >= self.wakes_at:
            self._find_due(now)
        commands, self._commands = self._commands, []
        return commands

    def _find_due(self, now: float) -> None:
        """Find the commands that are due by the clock, or after an event."""
        if self._connecting:
            self._check_connects(now)
        if self._holders:
            self._check_holders(now)
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

    def _check_connects(self, now: float) -> None:
        for connecting in [*self._connecting.values()]:
            attempt = connecting.attempt
            if now >= connecting.slow_at:
                connecting.slow_at = math.inf
                self._commands.append(Report(attempt.endpoint, FailureReason.SLOW_TO_CONNECT))
            if now >= connecting.deadline:
                self._commands.append(Abandon(attempt))
                self.failed(attempt, FailureReason.CONNECT_TIMEOUT, now)

    def _check_holders(self, now: float) -> None:
        for holder in [*self._holders.values()]:
            if now >= holder.silent_at:
                self._report_silence(holder, now)
            if now >= holder.check_at:
                self._check_whether_dead(holder, now)
            elif now >= holder.repeat_at:
                self._repeat(holder, now)

    def _report_silence(self, holder: _Holder, now: float) -> None:
        """Report the silence, whatever the message, so that the next message avoids this KDC."""
        holder.silent_at = math.inf
        holder.check_at = max(self._reach_deadline, now)
        self._commands.append(Report(holder.attempt.endpoint, FailureReason.SILENT))
        if self.is_repeatable and self._untried and self._hedges.take():
            self._seek_holder(now)

    def _check_whether_dead(self, holder: _Holder, now: float) -> None:
        """Give up a dead KDC. A KDC that answers probes works on the message: wait, and check again."""
        attempt = holder.attempt
        if self._health.is_dead(attempt.endpoint, holder.sent_at):
            self._commands.append(Abandon(attempt))
            self.failed(attempt, FailureReason.SILENT, now)
        else:
            holder.check_at = now + CHECK_SECONDS
            self._commands.append(Report(attempt.endpoint, FailureReason.SILENT))

    def _repeat(self, holder: _Holder, now: float) -> None:
        endpoint = holder.attempt.endpoint
        if self._facts.has_overflowed(endpoint):
            holder.repeat_at = math.inf
            self._untried.make_next(_by_tcp(endpoint), "UDP")
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
            round_trips = _CONNECT_ROUND_TRIPS.get(candidate.endpoint.transport, 1)
            self._next_connect_at = now + round_trips * self._limits.stagger
            self._connecting[self._attempts] = _Connecting(
                attempt=attempt,
                candidate=candidate,
                deadline=now + round_trips * self._limits.connect_timeout,
                slow_at=self._next_connect_at,
            )
            self._commands.append(Connect(attempt))

    def _may_overtake(self, candidate: Candidate) -> bool:
        """Whether it may start while another connects. A datagram would win, and cannot be called back."""
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
        unused = [*self._connecting.values()]
        self._commands += [Abandon(connecting.attempt) for connecting in unused]
        self._untried[:0] = [connecting.candidate for connecting in unused]
        self._connecting.clear()

    def _seek_holder(self, now: float) -> None:
        """Connect to the next candidate at once, unless a KDC has the message and may answer."""
        if self.reply or self.error:
            return
        self.wakes_at = now
        if not self._holders and not self._was_delivered:
            self._deadline = self._reach_deadline
        if not self._holders or self.is_repeatable:
            self._seeks_holder = True
            self._next_connect_at = now

    def _reorder_candidates(
        self, reason: FailureReason, endpoint: KdcEndpoint, *, is_delivered: bool
    ) -> None:
        if is_delivered and reason in HAS_DECIDED:
            self._untried.remove_host(endpoint)
        elif reason is FailureReason.REFUSED:
            self._untried.prefer_fallback_of(endpoint)
        elif reason in NO_DATAGRAM_LEFT and endpoint.transport is Transport.UDP:
            by_tcp = _by_tcp(endpoint)
            if all(failure.endpoint != by_tcp for failure in self.failures):
                self._untried.make_next(by_tcp, "UDP")

    def _try_next_kdc(self, unavailable: KdcReply, now: float) -> None:
        """Continue with the next KDC, and keep the reply for the case that no other KDC is available."""
        endpoint = unavailable.endpoint
        self._unavailable = unavailable
        self.failures.append(
            AttemptFailure(
                endpoint=endpoint, reason=FailureReason.SERVICE_UNAVAILABLE, may_be_delivered=False
            )
        )
        self._untried.remove_host(endpoint)
        self._seek_holder(now)

    def _continue_by_tcp(self, endpoint: KdcEndpoint, now: float) -> None:
        """Send the message to the same KDC by TCP, and to no other KDC if the message is a proof."""
        self._facts.note_overflow(endpoint)
        if not self.is_repeatable:
            self._untried.clear()
        self._was_delivered = True
        self._untried.make_next(_by_tcp(endpoint), "UDP")
        self._seek_holder(now)

    def _give_up(self) -> None:
        if self._unavailable:
            self.reply = self._unavailable
        else:
            is_delivered = self._was_delivered or self._holders
            self.error = (NoKdcReplyError if is_delivered else NoKdcReachedError)(self.failures)
        self._end()

    def _end(self) -> None:
        """Close all attempts. No other command is due any more."""
        self.wakes_at = math.inf
        if self._connecting or self._holders:
            self._commands += [Abandon(connecting.attempt) for connecting in self._connecting.values()]
            self._commands += [Abandon(holder.attempt) for holder in self._holders.values()]
            self._connecting.clear()
            self._holders.clear()


def _by_tcp(endpoint: KdcEndpoint) -> KdcEndpoint:
    return replace(endpoint, transport=Transport.TCP)
