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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kkdcpd.errors import ExchangeError, MalformedError, NoKdcReachedError, NoKdcReplyError
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
class _Patience:
    """Until when we wait for an attempt, and when we say that it is silent (None: it was said)."""

    deadline: float
    silent_at: float | None


class Exchange:
    """The attempts of one request.

    Carry out what `due` asks for after each event and at `wakes_at`, until there is a `reply` or an `error`.
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
        self._request = request
        self._is_repeatable = is_repeatable(request)
        self._is_serial = request.kind is MessageKind.KPASSWD_REQ
        self._limits = limits
        self._hedges = hedges
        self._untried = [candidate.endpoint for candidate in candidates if not candidate.is_fallback]
        self._fallbacks = [candidate.endpoint for candidate in candidates if candidate.is_fallback]
        self._connecting: dict[Attempt, _Patience] = {}
        self._holders: dict[Attempt, _Patience] = {}
        self._seeks_holder = True
        self._was_taken = False
        self._next_connect_at = now
        self._reach_deadline = now + limits.reach_timeout
        self._reply_deadline = now + limits.reply_timeout
        self._attempts = 0
        self.failures: list[AttemptFailure] = []
        self._unavailable: KdcReply | None = None
        self._commands: list[Command] = []

    # --- events

    def connected(self, attempt: Attempt, now: float) -> None:
        """Learn that the attempt can send. The first of which we learn that gets the message."""
        del self._connecting[attempt]
        if not self._seeks_holder:
            self._commands.append(Abandon(attempt))
            return
        self._seeks_holder = False
        self._holders[attempt] = _Patience(
            deadline=self._reply_deadline, silent_at=now + self._limits.hedge_delay
        )
        self._commands.append(Send(attempt))
        for loser in self._connecting:
            self._commands.append(Abandon(loser))
            self._untried.append(loser.endpoint)
        self._connecting.clear()

    def failed(self, attempt: Attempt, reason: FailureReason, now: float) -> None:
        """Learn that the attempt is over without a reply."""
        was_holder = attempt in self._holders
        self._drop(attempt)
        is_taken = was_holder and reason not in _NOT_TAKEN
        self.failures.append(AttemptFailure(endpoint=attempt.endpoint, reason=reason, is_taken=is_taken))
        if reason not in _NOBODYS_FAULT:
            self._commands.append(Report(attempt.endpoint, reason))
        if reason is FailureReason.REFUSED:
            self._prefer_fallback(attempt.endpoint)
        self._was_taken = self._was_taken or is_taken
        if is_taken and not self._is_repeatable:
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
        self._drop(attempt)
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
        self._finish(reply)

    # --- what is to be done

    def due(self, now: float) -> list[Command]:
        """Return the commands that are due by now; none once the exchange has ended."""
        if not self._has_ended:
            self._time_out_connects(now)
            self._notice_silence(now)
            self._connect_next(now)
            self._end_if_over(now)
        commands, self._commands = self._commands, []
        return commands

    @property
    def wakes_at(self) -> float:
        """When `due` will have something new to say, if no event comes before."""
        times = [self._reply_deadline]
        times += [
            patience.deadline if patience.silent_at is None else patience.silent_at
            for patience in (*self._connecting.values(), *self._holders.values())
        ]
        if not self._is_taken:
            times.append(self._reach_deadline)
        if self._seeks_holder and self._untried and not self._is_serial:
            times.append(self._next_connect_at)
        return min(times)

    @property
    def _has_ended(self) -> bool:
        return self.reply is not None or self.error is not None

    @property
    def _is_taken(self) -> bool:
        return bool(self._holders) or self._was_taken

    def _time_out_connects(self, now: float) -> None:
        late = [attempt for attempt, patience in self._connecting.items() if now >= patience.deadline]
        for attempt in late:
            self._commands.append(Abandon(attempt))
            self.failed(attempt, FailureReason.CONNECT_TIMEOUT, now)

    def _notice_silence(self, now: float) -> None:
        """Report who lets us wait, whatever the message, so that the next one need not meet it."""
        for attempt, patience in (*self._connecting.items(), *self._holders.items()):
            if patience.silent_at is None or now < patience.silent_at:
                continue
            patience.silent_at = None
            is_holder = attempt in self._holders
            reason = FailureReason.SILENT if is_holder else FailureReason.SLOW_TO_CONNECT
            self._commands.append(Report(attempt.endpoint, reason))
            if is_holder and self._may_hedge():
                self._seek_holder(now)

    def _may_hedge(self) -> bool:
        return self._is_repeatable and bool(self._untried) and self._hedges.take()

    def _connect_next(self, now: float) -> None:
        while self._seeks_holder and (endpoint := self._next_endpoint(now)):
            self._attempts += 1
            attempt = Attempt(number=self._attempts, endpoint=endpoint)
            self._next_connect_at = now + self._limits.stagger
            self._connecting[attempt] = _Patience(
                deadline=now + self._limits.connect_timeout, silent_at=self._next_connect_at
            )
            self._commands.append(Connect(attempt))

    def _next_endpoint(self, now: float) -> KdcEndpoint | None:
        if self._connecting and (self._is_serial or now < self._next_connect_at):
            return None
        if self._untried:
            return self._untried.pop(0)
        # A datagram can't be called back, so it waits until nobody else is left.
        if self._fallbacks and not self._connecting and not self._holders:
            return self._fallbacks.pop(0)
        return None

    def _end_if_over(self, now: float) -> None:
        if self._has_ended:
            return
        is_late = now >= (self._reply_deadline if self._is_taken else self._reach_deadline)
        if is_late or not (self._connecting or self._holders):
            self._time_out_holders()
            self._give_up()

    def _time_out_holders(self) -> None:
        self.failures += [
            AttemptFailure(endpoint=attempt.endpoint, reason=FailureReason.REPLY_TIMEOUT, is_taken=True)
            for attempt in self._holders
        ]

    # --- transitions

    def _drop(self, attempt: Attempt) -> None:
        self._connecting.pop(attempt, None)
        self._holders.pop(attempt, None)

    def _seek_holder(self, now: float) -> None:
        """Let the next candidate be connected to at once, unless another has the message and may answer."""
        if not self._holders or self._is_repeatable:
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
        if not self._is_repeatable:
            self._untried.clear()
            self._fallbacks.clear()
        self._was_taken = True
        self._untried.insert(0, replace(endpoint, transport=Transport.TCP))
        self._seek_holder(now)

    def _finish(self, reply: KdcReply) -> None:
        self.reply = reply
        self._close_all()

    def _give_up(self) -> None:
        if self._unavailable:
            self._finish(self._unavailable)
            return
        self.error = (NoKdcReplyError if self._is_taken else NoKdcReachedError)(self.failures)
        self._close_all()

    def _close_all(self) -> None:
        self._commands += [Abandon(attempt) for attempt in (*self._connecting, *self._holders)]
        self._connecting.clear()
        self._holders.clear()
