"""What is known of the endpoints' health: learnt from requests, unlearnt by probes. Plain code with a clock.

Only endpoints that are not well stand in the table, so it is as small as the trouble is. Being in it costs an
endpoint its place among the candidates, never its chance: when nobody else is left it is asked all the same.

Each process has its own table, and what one finds out it tells the others. Who found a trouble probes it; the
others would only later, one after the other, if nothing is heard of it any more.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from kkdcpd.frozen import frozen
from kkdcpd.values import FailureReason, KdcEndpoint, KdcState

__all__ = ["FAILS_TO_CONNECT", "MAX_TROUBLED", "HealthNotice", "HealthTable", "ProbeTarget"]

logger = logging.getLogger(__name__)

MAX_TROUBLED = 4096
"""Endpoints come from the configuration and the DNS of configured realms; this only bounds mistakes."""

PATIENCE_INTERVALS = 4
"""First intervals that a probe of another process may be late, before one of ours does its work."""

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
    """`is_wanted` is false of what was only heard of, until a request might go there."""

    target: ProbeTarget
    state: KdcState
    probe_at: float
    interval: float
    is_ours: bool
    is_wanted: bool


class HealthTable:
    """The endpoints in trouble, and when each is to be probed.

    `turn` is a number of this process's own, a small one: the process with the smallest is first to do the
    probes of one that has ended. `version` grows with every change, so that what was worked out from the
    states can be kept until then. `has_troubles` tells whether anybody is not well.
    `tell` passes on what this process finds out; `note` is called with every change, whoever found it.
    """

    def __init__(
        self,
        *,
        turn: int,
        probe_interval: float,
        probe_interval_maximum: float,
        tell: Callable[[HealthNotice], object],
        note: Callable[[KdcEndpoint, KdcState], object],
    ) -> None:
        self.version = 0
        self.has_troubles = False
        self._note = note
        self._first_interval = probe_interval
        self._patience = (PATIENCE_INTERVALS + turn) * probe_interval
        self._last_interval = probe_interval_maximum
        self._tell = tell
        self._troubles: dict[KdcEndpoint, _Trouble] = {}

    def state(self, endpoint: KdcEndpoint) -> KdcState:
        """Return what is known of the endpoint."""
        trouble = self._troubles.get(endpoint)
        if trouble is None:
            return KdcState.WELL
        trouble.is_wanted = True
        return trouble.state

    def heard(self, notice: HealthNotice, now: float) -> None:
        """Take in what another process found out. It has told it to the log, and it is first to probe."""
        endpoint = notice.target.endpoint
        trouble = self._troubles.get(endpoint)
        if notice.state is KdcState.WELL:
            if self._troubles.pop(endpoint, None):
                self._noted(endpoint, KdcState.WELL)
            return
        if trouble is None:
            if len(self._troubles) >= MAX_TROUBLED:
                return
            trouble = self._troubles[endpoint] = _Trouble(
                target=notice.target,
                state=KdcState.WELL,
                probe_at=0.0,
                interval=self._first_interval,
                is_ours=False,
                is_wanted=False,
            )
        if trouble.state is not notice.state:
            trouble.state = notice.state
            self._noted(endpoint, notice.state)
        if not trouble.is_ours:
            trouble.probe_at = now + notice.probe_in + self._patience

    def report(self, target: ProbeTarget, failure: FailureReason | None, now: float) -> None:
        """Take in how an endpoint failed a request, or (None) that it served one."""
        if failure is None:
            self._recover(target)
        elif target.endpoint not in self._troubles:
            is_suspect = failure not in FAILS_TO_CONNECT
            self._add(target, KdcState.SUSPECT if is_suspect else KdcState.DOWN, failure, now)

    def probed(self, target: ProbeTarget, failure: FailureReason | None, now: float) -> None:
        """Take in what came of a probe; the next one has twice the time."""
        trouble = self._troubles.get(target.endpoint)
        if trouble is None:
            return
        if failure is None:
            self._recover(target)
            return
        trouble.probe_at = now + trouble.interval
        trouble.interval = min(2 * trouble.interval, self._last_interval)
        trouble.is_ours = True
        if trouble.state is not KdcState.DOWN:
            trouble.state = KdcState.DOWN
            self._changed(target.endpoint, KdcState.DOWN, failure)
        self._pass_on(trouble, failure, now)

    def probes_due(self, now: float) -> list[ProbeTarget]:
        """Return whom to probe now. Until `probed` is told, nobody is returned twice."""
        due = [trouble for trouble in self._troubles.values() if now >= trouble.probe_at]
        for trouble in due:
            trouble.probe_at = float("inf") if trouble.is_wanted else now + self._last_interval
        return [trouble.target for trouble in due if trouble.is_wanted]

    @property
    def next_probe_at(self) -> float:
        """When the next probe is due; infinity if nobody is in trouble."""
        return min((trouble.probe_at for trouble in self._troubles.values()), default=float("inf"))

    def _add(self, target: ProbeTarget, state: KdcState, failure: FailureReason, now: float) -> None:
        if len(self._troubles) >= MAX_TROUBLED:
            return
        trouble = self._troubles[target.endpoint] = _Trouble(
            target=target,
            state=state,
            probe_at=now + self._grace(target, state, failure),
            interval=self._first_interval,
            is_ours=True,
            is_wanted=True,
        )
        self._changed(target.endpoint, state, failure)
        self._pass_on(trouble, failure, now)

    def _grace(self, target: ProbeTarget, state: KdcState, failure: FailureReason) -> float:
        """Return after how many seconds the endpoint is probed first."""
        if target.realm is None and failure not in OUT_OF_REACH:
            # It takes connections, and that is all that its probe could tell.
            return self._last_interval
        # Who is suspected is probed at once: the next message may be one that can be sent only once.
        return 0.0 if state is KdcState.SUSPECT else self._first_interval

    def _recover(self, target: ProbeTarget) -> None:
        trouble = self._troubles.pop(target.endpoint, None)
        if trouble:
            self._changed(target.endpoint, KdcState.WELL, None, before=trouble.state)
            self._tell(HealthNotice(target=target, state=KdcState.WELL))

    def _pass_on(self, trouble: _Trouble, failure: FailureReason, now: float) -> None:
        probe_in = max(trouble.probe_at - now, 0.0)
        self._tell(
            HealthNotice(target=trouble.target, state=trouble.state, reason=failure, probe_in=probe_in)
        )

    def _changed(
        self,
        endpoint: KdcEndpoint,
        state: KdcState,
        failure: FailureReason | None,
        before: KdcState = KdcState.WELL,
    ) -> None:
        self._noted(endpoint, state)
        fields: dict[str, object] = {"kdc": str(endpoint), "address": endpoint.address, "state": state.value}
        if failure:
            fields["reason"] = failure.value
        extra: dict[str, object] = {"fields": fields}
        if KdcState.SUSPECT in (state, before):
            # Strangers can bring it about again and again, by messages that a KDC doesn't answer.
            extra["repeats"] = ("kdc_suspect", endpoint)
        if state is KdcState.WELL:
            logger.info("kdc_well_again", extra=extra)
        else:
            logger.warning("kdc_in_trouble", extra=extra)

    def _noted(self, endpoint: KdcEndpoint, state: KdcState) -> None:
        self.version += 1
        self.has_troubles = bool(self._troubles)
        self._note(endpoint, state)
