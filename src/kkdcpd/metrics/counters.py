"""Counts the events of one process in its row of shared memory. Counting never waits and never fails."""

from bisect import bisect_left

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.metrics.columns import (
    BUCKETS,
    CONNECTIONS_EVICTED,
    CONNECTIONS_OPEN,
    CONNECTIONS_OPENED,
    CONNECTIONS_REFUSED,
    FIXED,
    HANDSHAKES,
    HEDGES,
    HISTOGRAM_WORDS,
    KDC_FAILURE_WORDS,
    KINDS,
    LOOK_UPS,
    MONITORED,
    REFUSALS,
    REQUEST_SECONDS,
    REQUESTS_IN_FLIGHT,
    UPSTREAM_SECONDS,
    Handshake,
    LookUp,
)
from kkdcpd.metrics.memory import KDC_STATE_WORD, Row, RowLayout, make_metrics
from kkdcpd.values import (
    AttemptFailure,
    ConnectionActivity,
    ConnectionRefusal,
    FailureReason,
    KdcState,
    MessageKind,
    Outcome,
    RequestResult,
    Rule,
)

__all__ = ["KDC_STATES", "Counters"]

KDC_STATES = (KdcState.HEALTHY, KdcState.SUSPECT, KdcState.DOWN)
"""A state is stored, in memory and in the metric, as its position in this tuple."""

_MICROSECONDS = 1_000_000

_OUTCOME_AT = {outcome: len(KINDS) * number for number, outcome in enumerate(Outcome)}
_KIND_AT = {kind: number for number, kind in enumerate(KINDS)}
_SUM_AT = HISTOGRAM_WORDS - 1
_RULE_AT = {rule: number for number, rule in enumerate(Rule)}
_REFUSAL_AT = {reason: number for number, reason in enumerate(ConnectionRefusal)}
_HANDSHAKE_AT = {result: number for number, result in enumerate(Handshake)}
_LOOK_UP_AT = {result: number for number, result in enumerate(LookUp)}
_FAILURE_AT = {reason: KDC_FAILURE_WORDS + number for number, reason in enumerate(FailureReason)}
_STATE_AT = {state: number for number, state in enumerate(KDC_STATES)}


class _RealmOffsets(dict[str, int]):
    """Offsets of the words of each realm. Realms without a free slot are not kept, to bound the memory."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._slots = row.realms

    def __missing__(self, name: str) -> int:
        offset = self._slots.index(name)
        if offset != self._slots.other:
            self[name] = offset
        return offset


class _KdcOffsets(dict[KdcEndpoint, int]):
    """Offsets of the words of each endpoint."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._row = row

    def __missing__(self, endpoint: KdcEndpoint) -> int:
        slots = self._row.branch_kdcs if endpoint.branch else self._row.kdcs
        offset = slots.index(endpoint.pack())
        if offset != slots.other:
            self[endpoint] = offset
        return offset


class Counters:
    """The counters of this process."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._words = row.words
        self._at = {family: row.first + offset for family, offset in FIXED.items()}
        self._request_seconds = self._at[REQUEST_SECONDS]
        self._upstream_seconds = self._at[UPSTREAM_SECONDS]
        self._realms = _RealmOffsets(row)
        self._kdcs = _KdcOffsets(row)
        self._in_flight = 0

    @classmethod
    def discarding(cls) -> "Counters":
        """Return counters that are never read."""
        return cls(make_metrics(1, RowLayout(realm_entries=2, kdc_entries=2, branch_kdc_entries=2)).row(0))

    # -- Requests

    def request_begins(self) -> None:
        """Count a request in flight."""
        self._in_flight += 1
        self._words[self._at[REQUESTS_IN_FLIGHT]] = self._in_flight

    def request_leaves(self) -> None:
        """Count one request in flight less."""
        self._in_flight -= 1
        self._words[self._at[REQUESTS_IN_FLIGHT]] = self._in_flight

    def request_ended(self, served: RequestResult, kind: MessageKind | None, seconds: float) -> None:
        """Count a request that has ended, after `seconds`. Call it once for each request."""
        words = self._words
        number = _KIND_AT[kind]
        words[self._realms[served.realm or ""] + _OUTCOME_AT[served.outcome] + number] += 1
        for first, measured in (
            (self._request_seconds, seconds),
            (self._upstream_seconds, served.upstream_seconds),
        ):
            if measured is not None:
                histogram = first + number * HISTOGRAM_WORDS
                words[histogram + bisect_left(BUCKETS, measured)] += 1
                words[histogram + _SUM_AT] += int(measured * _MICROSECONDS)
        if served.refusal:
            words[self._at[REFUSALS] + _RULE_AT[served.refusal.rule]] += 1
        for rule in served.monitored:
            words[self._at[MONITORED] + _RULE_AT[rule]] += 1

    # -- KDCs

    def kdc_tried(self, endpoint: KdcEndpoint) -> None:
        """Count an attempt that begins."""
        self._words[self._kdcs[endpoint]] += 1

    def kdc_replied(self, endpoint: KdcEndpoint) -> None:
        """Count a reply that is relayed."""
        self._words[self._kdcs[endpoint] + 1] += 1

    def kdc_failed(self, failure: AttemptFailure) -> None:
        """Count an attempt that failed."""
        self._words[self._kdcs[failure.endpoint] + _FAILURE_AT[failure.reason]] += 1

    def kdc_changed(self, endpoint: KdcEndpoint, state: KdcState) -> None:
        """Set the state of an endpoint."""
        offset = self._kdcs[endpoint]
        if offset not in {self._row.kdcs.other, self._row.branch_kdcs.other}:
            self._words[offset + KDC_STATE_WORD] = _STATE_AT[state]

    def hedged(self) -> None:
        """Count a message that is sent to a second KDC."""
        self._words[self._at[HEDGES]] += 1

    def looked_up(self, result: LookUp) -> None:
        """Count a look-up of the locator."""
        self._words[self._at[LOOK_UPS] + _LOOK_UP_AT[result]] += 1

    # -- Connections

    def connection_opened(self) -> None:
        """Count an accepted connection."""
        self._words[self._at[CONNECTIONS_OPENED]] += 1

    def connection_refused(self, reason: ConnectionRefusal) -> None:
        """Count a refused connection."""
        self._words[self._at[CONNECTIONS_REFUSED] + _REFUSAL_AT[reason]] += 1

    def connection_evicted(self, activity: ConnectionActivity) -> None:
        """Count a connection that was closed to make room for another one."""
        self._words[self._at[CONNECTIONS_EVICTED] + (activity is not ConnectionActivity.IDLE)] += 1

    def connections_are(self, count: int) -> None:
        """Set the number of open connections."""
        self._words[self._at[CONNECTIONS_OPEN]] = count

    def shook_hands(self, result: Handshake) -> None:
        """Count a TLS handshake that has ended."""
        self._words[self._at[HANDSHAKES] + _HANDSHAKE_AT[result]] += 1
