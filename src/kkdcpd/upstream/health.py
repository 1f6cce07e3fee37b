"""The health of endpoints: requests report failures, probes report recoveries. Plain code with a clock.

The table holds only endpoints that are not well. Such an endpoint is tried after the healthy ones, but it is
still tried.

Each process has its own table, and tells the other processes what it finds out. The process that found a
failure sends the probes. The other processes send probes later, and only if they hear nothing more of the
endpoint.

A request that waits for a silent endpoint needs fresh evidence, so its own process probes the endpoint at a
steady pace for as long as the request reports the silence. Two unanswered probes in a row mean that the
endpoint does not respond (`is_dead`). An answered probe means that the message alone takes its time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger
from kkdcpd.upstream.endpoint_table import EndpointTable
from kkdcpd.values import FailureReason, KdcEndpoint, KdcState, Transport

__all__ = ["FAILS_TO_CONNECT", "HealthNotice", "HealthTable", "ProbeTarget"]

logger = EventLogger(__name__)

FORGET_SECONDS = 600.0
"""An endpoint that no request might go to for so long is forgotten: DNS may not list it any more."""

PATIENCE_INTERVALS = 4
"""First intervals that a probe of another process may be late, before one of ours does its work."""

ANSWER_SHARE = 0.4
"""A probe counts as unanswered after this part of `upstream.reach_timeout`.

Two probes, one after the other, then end within `reach_timeout` of the message whose silence caused them.
"""

REST_SECONDS = 1.0
"""So long an endpoint that has answered a probe gets no other, whatever strangers make it do."""

MAX_RESTING = 1024
"""Endpoints whose last answered probe is remembered; it is forgotten after `REST_SECONDS`."""

MAX_REMEMBERED = 1024
"""Endpoints of UDP with one property each that is remembered until the process ends."""

NEVER = (-math.inf, -math.inf)

OUT_OF_REACH = frozenset(
    {
        FailureReason.REFUSED,
        FailureReason.UNREACHABLE,
        FailureReason.CONNECT_TIMEOUT,
        FailureReason.SLOW_TO_CONNECT,
    }
)
"""Failures that a connect tells the end of."""

FAILS_TO_CONNECT = frozenset(
    {FailureReason.REFUSED, FailureReason.UNREACHABLE, FailureReason.CONNECT_TIMEOUT}
)
"""What no message can bring about. All else may be due to what a stranger sent, and a probe has to tell."""

SAYS_NOTHING = frozenset({FailureReason.BUSY, FailureReason.LOCAL_ERROR})
"""Why a probe never left this host."""


@frozen
class ProbeTarget:
    """Whom to probe: `realm` is what an AS-REQ would ask for, None where a connect has to do (kpasswd)."""

    endpoint: KdcEndpoint
    realm: str | None


@frozen
class HealthNotice:
    """What one process tells the others: an endpoint's state, and in how many seconds it probes it again."""

    target: ProbeTarget
    state: KdcState
    reason: FailureReason | None = None
    probe_in: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Trouble:
    """An endpoint in the table. WELL is one that is only watched, because a message awaits its reply there.

    `is_wanted` tells whether a request might have gone there since the last probe, `wanted_at` when it might.
    `unanswered` are the moments at which the last two probes were sent, if both went unanswered in a row. A
    request awaits a verdict until `awaited_until`. Before `well_from` an answered probe proves nothing.
    """

    target: ProbeTarget
    state: KdcState
    probe_at: float
    interval: float
    is_ours: bool
    is_wanted: bool
    wanted_at: float
    is_probed_now: bool = False
    unanswered: tuple[float, float] = (-math.inf, -math.inf)
    awaited_until: float = -math.inf
    well_from: float = -math.inf

    @property
    def can_be_probed(self) -> bool:
        """Whether there is a probe: a password server of UDP alone has none that changes no password."""
        return self.target.realm is not None or self.target.endpoint.transport is Transport.TCP


class HealthTable:
    """The endpoints in trouble, and when each is to be probed.

    `turn` is a number of this process's own, a small one: the process with the smallest is first to do the
    probes of one that has ended. `version` grows with every change, so that what was worked out from the
    states can be kept until then. `has_unhealthy` tells whether the table holds any endpoint.
    `answer_seconds` is how long a probe may take until it counts as unanswered.
    `tell` passes on what this process finds out; `note` is called with every change, whoever found it.
    """

    def __init__(
        self,
        *,
        turn: int,
        probe_interval: float,
        probe_interval_maximum: float,
        reach_timeout: float,
        tell: Callable[[HealthNotice], object],
        note: Callable[[KdcEndpoint, KdcState], object],
    ) -> None:
        self.answer_seconds = ANSWER_SHARE * reach_timeout
        self._awaited_seconds = reach_timeout
        # When the last answered probe was sent, and when its answer came.
        self._answered: dict[KdcEndpoint, tuple[float, float]] = {}
        self._overflowed: set[KdcEndpoint] = set()
        self._reachable: set[KdcEndpoint] = set()
        self.version = 0
        self.has_unhealthy = False
        self._note = note
        self._first_interval = probe_interval
        self._patience = (PATIENCE_INTERVALS + turn) * probe_interval
        self._last_interval = probe_interval_maximum
        self._tell = tell
        self._troubles: EndpointTable[_Trouble] = EndpointTable()

    def state(self, endpoint: KdcEndpoint) -> KdcState:
        """Return what is known of the endpoint."""
        trouble = self._troubles.get(endpoint)
        if trouble is None:
            return KdcState.HEALTHY
        trouble.is_wanted = True
        return trouble.state

    def heard(self, notice: HealthNotice, now: float) -> None:
        """Take in what another process found out. It has told it to the log, and it is first to probe."""
        endpoint = notice.target.endpoint
        trouble = self._troubles.get(endpoint)
        if notice.state is KdcState.HEALTHY:
            self._note_answer(endpoint, -math.inf, now)
            if endpoint.transport is Transport.UDP:
                self._learn_of_answer(endpoint)
            self._drop(endpoint)
            return
        if trouble is None:
            trouble = _Trouble(
                target=notice.target,
                state=KdcState.HEALTHY,
                probe_at=0.0,
                interval=self._first_interval,
                is_ours=False,
                is_wanted=False,
                wanted_at=now,
            )
            if not self._enter(trouble):
                return
        if trouble.state is not notice.state:
            trouble.state = notice.state
            self._noted(endpoint, notice.state)
        if not trouble.is_ours:
            trouble.probe_at = now + notice.probe_in + self._patience

    def report(self, target: ProbeTarget, failure: FailureReason | None, now: float) -> None:
        """Take in how an endpoint failed a request, or (None) that it served one.

        A request that still waits reports SILENT again and again.
        """
        if failure is None:
            if target.endpoint.transport is Transport.UDP and self._learn_of_answer(target.endpoint):
                self._tell(HealthNotice(target=target, state=KdcState.HEALTHY))
            self._recover(target)
            return
        trouble = self._troubles.get(target.endpoint)
        if trouble is None:
            trouble = self._add(target, failure, now)
        elif failure in FAILS_TO_CONNECT and trouble.state is not KdcState.DOWN:
            self._turn(trouble, KdcState.DOWN, failure, now)
        if trouble and failure is FailureReason.SILENT:
            self._await_verdict(trouble, now)

    def probed(
        self, target: ProbeTarget, failure: FailureReason | None, now: float, *, sent_at: float
    ) -> None:
        """Take in what came of a probe that was sent at `sent_at`."""
        if failure is None:
            self._note_answer(target.endpoint, sent_at, now)
        trouble = self._troubles.get(target.endpoint)
        if trouble is None:
            return
        trouble.is_probed_now = False
        if failure is None:
            self._answered_probe(trouble, now)
        elif failure in SAYS_NOTHING:
            trouble.probe_at = now + self._first_interval
        else:
            self._missed_probe(trouble, failure, now, sent_at)

    def has_answered(self, endpoint: KdcEndpoint) -> bool:
        """Whether the endpoint of UDP has answered a request while some endpoint was not well."""
        return endpoint in self._reachable

    def note_overflow(self, endpoint: KdcEndpoint) -> None:
        """Remember that the endpoint had a reply that was too big for a datagram."""
        if len(self._overflowed) < MAX_REMEMBERED:
            self._overflowed.add(endpoint)

    def has_overflowed(self, endpoint: KdcEndpoint) -> bool:
        """Whether the endpoint had such a reply."""
        return endpoint in self._overflowed

    def answered_probe_sent_at(self, endpoint: KdcEndpoint) -> float:
        """Return when the newest answered probe of the endpoint was sent; minus infinity if there is none."""
        return self._answered.get(endpoint, NEVER)[0]

    def is_dead(self, endpoint: KdcEndpoint, since: float) -> bool:
        """Whether the endpoint left two probes in a row unanswered, the second of them sent after `since`."""
        trouble = self._troubles.get(endpoint)
        if trouble is None:
            return False
        first, second = trouble.unanswered
        return first > -math.inf and second >= since

    def probes_due(self, now: float) -> list[ProbeTarget]:
        """Return which endpoints to probe now. None is returned twice before `probed` is told of it."""
        due = [trouble for trouble in self._troubles.values() if now >= trouble.probe_at]
        return [trouble.target for trouble in due if self._begins_probe(trouble, now)]

    def _begins_probe(self, trouble: _Trouble, now: float) -> bool:
        """Set the endpoint's next turn, or forget it; tell whether it is probed now."""
        if trouble.is_wanted:
            trouble.wanted_at = now
        elif now - trouble.wanted_at >= FORGET_SECONDS:
            self._drop(trouble.target.endpoint)
            return False
        trouble.is_probed_now = trouble.is_wanted or trouble.is_ours
        trouble.probe_at = math.inf if trouble.is_probed_now else now + self._last_interval
        # Orders of candidates are worked out anew, which shows whether a request might still go there.
        trouble.is_wanted = False
        self.version += 1
        return trouble.is_probed_now

    @property
    def next_probe_at(self) -> float:
        """When the next probe is due; infinity if nobody is in trouble."""
        return min((trouble.probe_at for trouble in self._troubles.values()), default=float("inf"))

    def _enter(self, trouble: _Trouble) -> bool:
        """Put the endpoint into the table; tell whether there is room."""
        endpoint = trouble.target.endpoint
        if not self._troubles.has_room(endpoint):
            return False
        displaced = self._troubles.add(endpoint, trouble)
        if displaced:
            self._noted(displaced, KdcState.HEALTHY)
        self.has_unhealthy = True
        return True

    def _add(self, target: ProbeTarget, failure: FailureReason, now: float) -> _Trouble | None:
        rests_until = self._rests_until(target)
        state = _state_after(failure)
        grace = self._grace(target, failure)
        trouble = _Trouble(
            target=target,
            state=KdcState.HEALTHY,
            probe_at=max(now + grace, rests_until),
            interval=self._first_interval,
            is_ours=True,
            is_wanted=True,
            wanted_at=now,
            well_from=now + grace if target.realm is None else now,
        )
        if not self._enter(trouble):
            return None
        # One that has just answered a probe stays with other requests: strangers could bring this about.
        if state is KdcState.DOWN or now >= rests_until:
            self._turn(trouble, state, failure, now)
        return trouble

    def _grace(self, target: ProbeTarget, failure: FailureReason) -> float:
        """Return after how many seconds the endpoint is probed first."""
        if target.realm is None and failure not in OUT_OF_REACH:
            # It accepts connections, and a probe could tell no more than that.
            return self._last_interval
        # A suspect is probed at once: the next message may be one that can be sent only once.
        return self._first_interval if failure in FAILS_TO_CONNECT else 0.0

    def _await_verdict(self, trouble: _Trouble, now: float) -> None:
        """Probe at a steady pace as long as a request waits for the endpoint."""
        if not trouble.can_be_probed:
            return
        trouble.awaited_until = now + self._awaited_seconds
        trouble.is_ours = trouble.is_wanted = True
        if not trouble.is_probed_now:
            pause_ends = max(self._rests_until(trouble.target), trouble.unanswered[1] + self.answer_seconds)
            trouble.probe_at = min(trouble.probe_at, max(now, pause_ends))

    def _answered_probe(self, trouble: _Trouble, now: float) -> None:
        if now >= trouble.well_from:
            self._recover(trouble.target)
        else:
            trouble.unanswered = -math.inf, -math.inf
            trouble.probe_at = trouble.well_from

    def _missed_probe(self, trouble: _Trouble, failure: FailureReason, now: float, sent_at: float) -> None:
        """Note an unanswered probe. The pause before the next doubles, unless a request awaits a verdict."""
        trouble.unanswered = trouble.unanswered[1], sent_at
        trouble.is_ours = True
        if now < trouble.awaited_until:
            trouble.probe_at = max(now, sent_at + self.answer_seconds)
        else:
            trouble.probe_at = now + trouble.interval
            trouble.interval = min(2 * trouble.interval, self._last_interval)
        # A packet of one probe may be lost; not of two in a row.
        is_down = failure is not FailureReason.SILENT or trouble.unanswered[0] > -math.inf
        self._turn(trouble, KdcState.DOWN if is_down else _worse(trouble.state), failure, now)

    def _rests_until(self, target: ProbeTarget) -> float:
        # That a password server accepts a connection says too little.
        _, answered_at = self._answered.get(target.endpoint, NEVER) if target.realm else NEVER
        return answered_at + REST_SECONDS

    def _learn_of_answer(self, endpoint: KdcEndpoint) -> bool:
        """Remember that UDP reaches the endpoint; say whether that is new."""
        if endpoint in self._reachable or len(self._reachable) >= MAX_REMEMBERED:
            return False
        self._reachable.add(endpoint)
        self.version += 1
        return True

    def _note_answer(self, endpoint: KdcEndpoint, sent_at: float, now: float) -> None:
        if len(self._answered) >= MAX_RESTING:
            self._answered = {
                other: times for other, times in self._answered.items() if now < times[1] + REST_SECONDS
            }
        self._answered[endpoint] = max(sent_at, self.answered_probe_sent_at(endpoint)), now

    def _recover(self, target: ProbeTarget) -> None:
        before = self._drop(target.endpoint)
        if before is not KdcState.HEALTHY:
            self._log_change(target.endpoint, KdcState.HEALTHY, None, before)
            self._tell(HealthNotice(target=target, state=KdcState.HEALTHY))

    def _drop(self, endpoint: KdcEndpoint) -> KdcState:
        """Take the endpoint out of the table, and return its state there."""
        trouble = self._troubles.pop(endpoint)
        self.has_unhealthy = bool(self._troubles)
        if trouble is None or trouble.state is KdcState.HEALTHY:
            return KdcState.HEALTHY
        self._noted(endpoint, KdcState.HEALTHY)
        return trouble.state

    def _turn(self, trouble: _Trouble, state: KdcState, failure: FailureReason, now: float) -> None:
        """Set the state, and tell the other processes of it and of the next probe."""
        before, trouble.state = trouble.state, state
        if state is not before:
            self._noted(trouble.target.endpoint, state)
            self._log_change(trouble.target.endpoint, state, failure, before)
        self._pass_on(trouble, failure, now)

    def _pass_on(self, trouble: _Trouble, failure: FailureReason, now: float) -> None:
        probe_in = max(trouble.probe_at - now, 0.0)
        self._tell(
            HealthNotice(target=trouble.target, state=trouble.state, reason=failure, probe_in=probe_in)
        )

    def _log_change(
        self, endpoint: KdcEndpoint, state: KdcState, failure: FailureReason | None, before: KdcState
    ) -> None:
        # A client can make an endpoint suspect again and again, by messages that a KDC does not answer.
        is_repeatable = state is not KdcState.DOWN and KdcState.SUSPECT in (state, before)
        sum_by = ("kdc_suspect", endpoint) if is_repeatable else None
        fields = {"kdc": str(endpoint), "address": endpoint.address, "state": state.value}
        if state is KdcState.HEALTHY:
            logger.info("kdc_recovered", sum_by=sum_by, **fields)
        else:
            reason = failure.value if failure else None
            logger.warning("kdc_unhealthy", sum_by=sum_by, **fields, reason=reason)

    def _noted(self, endpoint: KdcEndpoint, state: KdcState) -> None:
        self.version += 1
        self.has_unhealthy = bool(self._troubles)
        self._note(endpoint, state)


def _state_after(failure: FailureReason) -> KdcState:
    return KdcState.DOWN if failure in FAILS_TO_CONNECT else KdcState.SUSPECT


def _worse(state: KdcState) -> KdcState:
    return KdcState.SUSPECT if state is KdcState.HEALTHY else state
