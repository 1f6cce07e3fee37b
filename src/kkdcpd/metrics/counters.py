"""Who counts: the one writer of a row. Nothing here decides, waits or fails."""

from bisect import bisect_left

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
    KdcEndpoint,
    KdcState,
    MessageKind,
    Outcome,
    RequestResult,
    Rule,
)

__all__ = ["KDC_STATES", "Counters"]

KDC_STATES = (KdcState.HEALTHY, KdcState.SUSPECT, KdcState.DOWN)
"""In memory and in the metric a state is its place here."""

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


class _RealmPlaces(dict[str, int]):
    """Where the words of each realm begin. What finds no free slot isn't kept: it may be many."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._slots = row.realms

    def __missing__(self, name: str) -> int:
        place = self._slots.index(name)
        if place != self._slots.other:
            self[name] = place
        return place


class _KdcPlaces(dict[KdcEndpoint, int]):
    """The same of each endpoint."""

    def __init__(self, row: Row) -> None:
        super().__init__()
        self._row = row

    def __missing__(self, endpoint: KdcEndpoint) -> int:
        slots = self._row.branch_kdcs if endpoint.branch else self._row.kdcs
        place = slots.index(endpoint.pack())
        if place != slots.other:
            self[endpoint] = place
        return place


class Counters:
    """Counts what happens in this process, in its row."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self._words = row.words
        self._at = {family: row.first + place for family, place in FIXED.items()}
        self._request_seconds = self._at[REQUEST_SECONDS]
        self._upstream_seconds = self._at[UPSTREAM_SECONDS]
        self._realms = _RealmPlaces(row)
        self._kdcs = _KdcPlaces(row)
        self._in_flight = 0

    @classmethod
    def discarding(cls) -> "Counters":
        """Return counters of which nobody reads what they count."""
        return cls(make_metrics(1, RowLayout(realm_entries=2, kdc_entries=2, branch_kdc_entries=2)).row(0))

    # -- Requests

    def request_begins(self) -> None:
        """Count a request that is being served."""
        self._in_flight += 1
        self._words[self._at[REQUESTS_IN_FLIGHT]] = self._in_flight

    def request_leaves(self) -> None:
        """Count one less."""
        self._in_flight -= 1
        self._words[self._at[REQUESTS_IN_FLIGHT]] = self._in_flight

    def request_ended(self, served: RequestResult, kind: MessageKind | None, seconds: float) -> None:
        """Count a request that has ended, after `seconds`. Each is told here once."""
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
        """Learn how an endpoint is from now on."""
        place = self._kdcs[endpoint]
        if place not in {self._row.kdcs.other, self._row.branch_kdcs.other}:
            self._words[place + KDC_STATE_WORD] = _STATE_AT[state]

    def hedged(self) -> None:
        """Count a message that goes to a second KDC."""
        self._words[self._at[HEDGES]] += 1

    def looked_up(self, result: LookUp) -> None:
        """Count a look-up of the locator's."""
        self._words[self._at[LOOK_UPS] + _LOOK_UP_AT[result]] += 1

    # -- Connections

    def connection_opened(self) -> None:
        """Count a connection that is let in."""
        self._words[self._at[CONNECTIONS_OPENED]] += 1

    def connection_refused(self, reason: ConnectionRefusal) -> None:
        """Count one that isn't."""
        self._words[self._at[CONNECTIONS_REFUSED] + _REFUSAL_AT[reason]] += 1

    def connection_evicted(self, activity: ConnectionActivity) -> None:
        """Count one that is closed to make room for another one."""
        self._words[self._at[CONNECTIONS_EVICTED] + (activity is not ConnectionActivity.IDLE)] += 1

    def connections_are(self, count: int) -> None:
        """Learn how many are open."""
        self._words[self._at[CONNECTIONS_OPEN]] = count

    def shook_hands(self, result: Handshake) -> None:
        """Count a TLS handshake that is over."""
        self._words[self._at[HANDSHAKES] + _HANDSHAKE_AT[result]] += 1
