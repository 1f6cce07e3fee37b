"""The health of endpoints: requests report failures, probes report recoveries. Plain code with a clock.

The table holds only unhealthy endpoints. They are tried after healthy endpoints, but they are still tried.

Each process has its own table, and notifies the other processes of changes. The process that found a failure
sends the probes. The other processes send probes later, and only if no further notice of the endpoint comes.

A request that waits for a silent endpoint needs fresh evidence, so its own process probes the endpoint at a
steady pace for as long as the request reports the silence. Two unanswered probes in a row mean that the
endpoint does not respond (`is_dead`). An answered probe means that the message alone takes its time.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.log.events import EventLogger
from kkdcpd.process_messages import HealthNotice, ProbeTarget
from kkdcpd.upstream.endpoint_facts import EndpointFacts
from kkdcpd.upstream.endpoint_table import EndpointTable
from kkdcpd.values import FailureReason, KdcState

__all__ = ["FAILS_TO_CONNECT", "HealthTable"]

logger = EventLogger(__name__)

FORGET_SECONDS = 600.0
"""An endpoint is forgotten after this time without requests for it: DNS may not list it any more."""

PATIENCE_INTERVALS = 4
"""The delay, in first intervals, of another process's probe after which this process sends its own."""

ANSWER_SHARE = 0.4
"""A probe counts as unanswered after this part of `upstream.reach_timeout`.

Two probes, one after the other, then end within `reach_timeout` of the message whose silence caused them.
"""

MAX_REST_SECONDS = 300.0
"""The longest time for which an endpoint can ask to get no requests."""

REST_SECONDS = 1.0
"""The pause after an answered probe. Clients can cause probes, but no more than one in this time."""

FAILS_TO_CONNECT = frozenset(
    {
        FailureReason.REFUSED,
        FailureReason.UNREACHABLE,
        FailureReason.CONNECT_TIMEOUT,
        FailureReason.TLS_FAILED,
        FailureReason.WEB_PROXY_FAILED,
    }
)
"""Failures that no message can cause. A client's message may cause any other failure, so probes decide."""

OUT_OF_REACH = FAILS_TO_CONNECT | {FailureReason.SLOW_TO_CONNECT}
"""Failures whose end a successful connect shows."""

SAYS_NOTHING = frozenset({FailureReason.BUSY, FailureReason.LOCAL_ERROR, FailureReason.PORT_LIMIT})
"""Failures of probes that never left this host."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """An endpoint in the table. A HEALTHY endpoint is in the table while a message waits for its reply.

    `is_wanted` means that a request may have used the endpoint since the last probe, `wanted_at` is the time.
    `unanswered` are the times at which the last two probes were sent, if both had no answer. A request awaits
    the result of probes until `awaited_until`. Before `healthy_from` an answered probe proves nothing. The
    endpoint wants no requests before `rests_until`: until then it stays suspect, whatever it answers. With
    `is_ours` this process sends the probes.
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
    healthy_from: float = -math.inf
    rests_until: float = -math.inf

    @property
    def can_be_probed(self) -> bool:
        """Whether there is a probe: a password server of UDP alone has none that changes no password."""
        return self.target.realm is not None or self.target.endpoint.transport is not Transport.UDP


class HealthTable:
    """The unhealthy endpoints, and when each is probed next.

    `turn` is a small number of this process: after the end of a process, the process with the smallest turn
    is the first to send its probes. `version` grows with each change, so that results that depend on states
    can be kept until then. `answer_seconds` is the time after which a probe counts as unanswered.

    `notify` passes this process's changes to the other processes. `note_change` is called with every change.
    """

    def __init__(
        self,
        *,
        turn: int,
        probe_interval: float,
        probe_interval_maximum: float,
        reach_timeout: float,
        notify: Callable[[HealthNotice], object],
        note_change: Callable[[KdcEndpoint, KdcState], object],
    ) -> None:
        self.facts = EndpointFacts()
        self.answer_seconds = ANSWER_SHARE * reach_timeout
        self.version = 0
        self.has_unhealthy = False
        self._awaited_seconds = reach_timeout
        self._note_change = note_change
        self._first_interval = probe_interval
        self._patience = (PATIENCE_INTERVALS + turn) * probe_interval
        self._last_interval = probe_interval_maximum
        self._notify = notify
        self._entries: EndpointTable[_Entry] = EndpointTable()

    def state(self, endpoint: KdcEndpoint) -> KdcState:
        """Return the endpoint's state."""
        entry = self._entries.get(endpoint)
        if entry is None:
            return KdcState.HEALTHY
        entry.is_wanted = True
        return entry.state

    def apply_notice(self, notice: HealthNotice, now: float) -> None:
        """Process the notice of another process, which has logged the change and sends the probes."""
        endpoint = notice.target.endpoint
        entry = self._entries.get(endpoint)
        if notice.state is KdcState.HEALTHY:
            self.facts.note_answered_probe(endpoint, now)
            if endpoint.transport is Transport.UDP:
                self._note_reachable(endpoint)
            self._drop(endpoint)
            return
        if entry is None:
            entry = _Entry(
                target=notice.target,
                state=KdcState.HEALTHY,
                probe_at=0.0,
                interval=self._first_interval,
                is_ours=False,
                is_wanted=False,
                wanted_at=now,
            )
            if not self._enter(entry):
                return
        if entry.state is not notice.state:
            entry.state = notice.state
            self._count_change(endpoint, notice.state)
        if not entry.is_ours:
            entry.probe_at = now + notice.probe_in + self._patience

    def report(
        self, target: ProbeTarget, failure: FailureReason | None, now: float, *, retry_after: float = 0.0
    ) -> None:
        """Process an endpoint's failure of a request, or (None) its reply.

        A request that still waits reports SILENT every second. `retry_after` is as in FailureFacts.
        """
        if failure is None:
            resting = self._entries.get(target.endpoint)
            if resting and now < resting.rests_until:
                return
            if target.endpoint.transport is Transport.UDP and self._note_reachable(target.endpoint):
                self._notify(HealthNotice(target=target, state=KdcState.HEALTHY))
            self._recover(target)
            return
        entry = self._entries.get(target.endpoint)
        if entry is None:
            entry = self._add(target, failure, now)
        elif failure in FAILS_TO_CONNECT and entry.state is not KdcState.DOWN:
            self._turn(entry, KdcState.DOWN, failure, now)
        if entry and failure is FailureReason.SILENT:
            self._probe_steadily(entry, now)
        if entry and retry_after:
            self._let_rest(entry, failure, now, min(retry_after, MAX_REST_SECONDS))

    def probed(
        self, target: ProbeTarget, failure: FailureReason | None, now: float, *, sent_at: float
    ) -> None:
        """Process the result of a probe that was sent at `sent_at`."""
        if failure is None:
            self.facts.note_answered_probe(target.endpoint, now, sent_at=sent_at)
        entry = self._entries.get(target.endpoint)
        if entry is None:
            return
        entry.is_probed_now = False
        if failure is None:
            self._answered_probe(entry, now)
        elif failure in SAYS_NOTHING:
            entry.probe_at = now + self._first_interval
        else:
            self._missed_probe(entry, failure, now, sent_at)

    def is_dead(self, endpoint: KdcEndpoint, since: float) -> bool:
        """Whether the endpoint left two probes in a row unanswered, the second of them sent after `since`."""
        entry = self._entries.get(endpoint)
        if entry is None:
            return False
        first, second = entry.unanswered
        return first > -math.inf and second >= since

    def probes_due(self, now: float) -> list[ProbeTarget]:
        """Return the endpoints to probe now. Each is returned once until `probed` is called for it."""
        due = [entry for entry in self._entries.values() if now >= entry.probe_at]
        return [entry.target for entry in due if self._begins_probe(entry, now)]

    def _begins_probe(self, entry: _Entry, now: float) -> bool:
        """Set the endpoint's next probe, or forget the endpoint; return whether it is probed now."""
        if entry.is_wanted:
            entry.wanted_at = now
        elif now - entry.wanted_at >= FORGET_SECONDS:
            self._drop(entry.target.endpoint)
            return False
        entry.is_probed_now = entry.is_wanted or entry.is_ours
        entry.probe_at = math.inf if entry.is_probed_now else now + self._last_interval
        # A new version makes `Choice` read the states again. That shows whether requests may still go there.
        entry.is_wanted = False
        self.version += 1
        return entry.is_probed_now

    @property
    def next_probe_at(self) -> float:
        """The time of the next probe; infinity if all endpoints are healthy."""
        return min((entry.probe_at for entry in self._entries.values()), default=float("inf"))

    def _enter(self, entry: _Entry) -> bool:
        """Put the endpoint into the table; return whether there is room."""
        endpoint = entry.target.endpoint
        if not self._entries.has_room(endpoint):
            return False
        displaced = self._entries.add(endpoint, entry)
        if displaced:
            self._count_change(displaced, KdcState.HEALTHY)
        self.has_unhealthy = True
        return True

    def _add(self, target: ProbeTarget, failure: FailureReason, now: float) -> _Entry | None:
        rests_until = self._rests_until(target)
        state = _state_after(failure)
        grace = self._grace(target, failure)
        entry = _Entry(
            target=target,
            state=KdcState.HEALTHY,
            probe_at=max(now + grace, rests_until),
            interval=self._first_interval,
            is_ours=True,
            is_wanted=True,
            wanted_at=now,
            healthy_from=now + grace if target.realm is None else now,
        )
        if not self._enter(entry):
            return None
        # An endpoint that has just answered a probe stays healthy: clients can cause these failures.
        if state is KdcState.DOWN or now >= rests_until:
            self._turn(entry, state, failure, now)
        return entry

    def _grace(self, target: ProbeTarget, failure: FailureReason) -> float:
        """Return the seconds until the endpoint's first probe."""
        if target.realm is None and failure not in OUT_OF_REACH:
            # The endpoint accepts connections, and a probe could not show more.
            return self._last_interval
        # A suspect endpoint is probed at once: the next message may be a message that is sent only once.
        return self._first_interval if failure in FAILS_TO_CONNECT else 0.0

    def _probe_steadily(self, entry: _Entry, now: float) -> None:
        """Probe at a steady pace while a request waits for the endpoint."""
        if not entry.can_be_probed:
            return
        entry.awaited_until = now + self._awaited_seconds
        entry.is_ours = entry.is_wanted = True
        if not entry.is_probed_now:
            pause_ends = max(
                self._rests_until(entry.target), entry.rests_until, entry.unanswered[1] + self.answer_seconds
            )
            entry.probe_at = min(entry.probe_at, max(now, pause_ends))

    def _let_rest(self, entry: _Entry, failure: FailureReason, now: float, seconds: float) -> None:
        """Keep the endpoint suspect, and send it no probe, for as long as it wants no requests."""
        entry.rests_until = max(entry.rests_until, now + seconds)
        entry.healthy_from = max(entry.healthy_from, entry.rests_until)
        entry.probe_at = max(entry.probe_at, entry.rests_until)
        entry.is_ours = True
        self._turn(entry, max(entry.state, KdcState.SUSPECT, key=_SEVERITY.index), failure, now)

    def _answered_probe(self, entry: _Entry, now: float) -> None:
        if now >= entry.healthy_from:
            self._recover(entry.target)
        else:
            entry.unanswered = -math.inf, -math.inf
            entry.probe_at = entry.healthy_from

    def _missed_probe(self, entry: _Entry, failure: FailureReason, now: float, sent_at: float) -> None:
        """Note an unanswered probe. The pause before the next probe doubles, unless a request waits."""
        entry.unanswered = entry.unanswered[1], sent_at
        entry.is_ours = True
        if now < entry.awaited_until:
            entry.probe_at = max(now, sent_at + self.answer_seconds)
        else:
            entry.probe_at = now + entry.interval
            entry.interval = min(2 * entry.interval, self._last_interval)
        # A packet of one probe may be lost, but hardly packets of two probes in a row.
        is_down = failure is not FailureReason.SILENT or entry.unanswered[0] > -math.inf
        self._turn(entry, KdcState.DOWN if is_down else _worse(entry.state), failure, now)

    def _rests_until(self, target: ProbeTarget) -> float:
        # A connection that a password server accepts does not show that the server is healthy.
        answered_at = self.facts.probe_answered_at(target.endpoint) if target.realm else -math.inf
        return answered_at + REST_SECONDS

    def _note_reachable(self, endpoint: KdcEndpoint) -> bool:
        """Remember that UDP reaches the endpoint; return whether that is new."""
        is_new = self.facts.note_reachable(endpoint)
        self.version += is_new
        return is_new

    def _recover(self, target: ProbeTarget) -> None:
        before = self._drop(target.endpoint)
        if before is not KdcState.HEALTHY:
            self._log_change(target.endpoint, KdcState.HEALTHY, None, before)
            self._notify(HealthNotice(target=target, state=KdcState.HEALTHY))

    def _drop(self, endpoint: KdcEndpoint) -> KdcState:
        """Remove the endpoint from the table, and return its state there."""
        entry = self._entries.pop(endpoint)
        self.has_unhealthy = bool(self._entries)
        if entry is None or entry.state is KdcState.HEALTHY:
            return KdcState.HEALTHY
        self._count_change(endpoint, KdcState.HEALTHY)
        return entry.state

    def _turn(self, entry: _Entry, state: KdcState, failure: FailureReason, now: float) -> None:
        """Set the state, and notify the other processes of it and of the next probe."""
        before, entry.state = entry.state, state
        if state is not before:
            self._count_change(entry.target.endpoint, state)
            self._log_change(entry.target.endpoint, state, failure, before)
        self._pass_on(entry, failure, now)

    def _pass_on(self, entry: _Entry, failure: FailureReason, now: float) -> None:
        probe_in = max(entry.probe_at - now, 0.0)
        self._notify(HealthNotice(target=entry.target, state=entry.state, reason=failure, probe_in=probe_in))

    def _log_change(
        self, endpoint: KdcEndpoint, state: KdcState, failure: FailureReason | None, before: KdcState
    ) -> None:
        # A client can make an endpoint suspect any number of times, by messages that a KDC does not answer.
        is_repeatable = state is not KdcState.DOWN and KdcState.SUSPECT in (state, before)
        sum_by = ("kdc_suspect", endpoint) if is_repeatable else None
        fields = {"kdc": str(endpoint), "address": endpoint.address, "state": state.value}
        if state is KdcState.HEALTHY:
            logger.info("kdc_recovered", sum_by=sum_by, **fields)
        else:
            reason = failure.value if failure else None
            logger.warning("kdc_unhealthy", sum_by=sum_by, **fields, reason=reason)

    def _count_change(self, endpoint: KdcEndpoint, state: KdcState) -> None:
        self.version += 1
        self.has_unhealthy = bool(self._entries)
        self._note_change(endpoint, state)


_SEVERITY = (KdcState.UNKNOWN, KdcState.HEALTHY, KdcState.SUSPECT, KdcState.DOWN)


def _state_after(failure: FailureReason) -> KdcState:
    return KdcState.DOWN if failure in FAILS_TO_CONNECT else KdcState.SUSPECT


def _worse(state: KdcState) -> KdcState:
    return KdcState.SUSPECT if state is KdcState.HEALTHY else state
