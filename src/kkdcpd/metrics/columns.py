"""Declares the metrics: their names, their labels, and their words in a row. docs/metrics.md explains them.

The values of labels come from code, from the configuration, or from the DNS of a configured realm. A client
can never choose them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from kkdcpd.frozen import Word
from kkdcpd.values import ConnectionActivity, ConnectionRefusal, FailureReason, MessageKind, Outcome, Rule

__all__ = [
    "BUCKETS",
    "CONNECTIONS_EVICTED",
    "CONNECTIONS_OPEN",
    "CONNECTIONS_OPENED",
    "CONNECTIONS_REFUSED",
    "FIXED",
    "FIXED_WORDS",
    "HANDSHAKES",
    "HEDGES",
    "HISTOGRAM_WORDS",
    "KDC_ATTEMPTS",
    "KDC_FAILURES",
    "KDC_FAILURE_WORDS",
    "KDC_REPLIES",
    "KDC_STATE",
    "KDC_WORDS",
    "KINDS",
    "LOOK_UPS",
    "MONITORED",
    "REFUSALS",
    "REQUESTS",
    "REQUESTS_IN_FLIGHT",
    "REQUEST_SECONDS",
    "REQUEST_WORDS",
    "UPSTREAM_SECONDS",
    "Family",
    "Handshake",
    "LookUp",
]

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
"""Upper bounds in seconds: from a KDC on the same network to `upstream.reply_timeout`."""

HISTOGRAM_WORDS = len(BUCKETS) + 2
"""A word for each bucket, one for longer times, and one for the sum in microseconds."""


class Handshake(Word):
    """The result of a TLS handshake."""

    FULL = "full"
    RESUMED = "resumed"
    FAILED = "failed"
    BROKEN_OFF = "broken_off"


class LookUp(Word):
    """The source of a route or of a DNS answer. A miss means that the request waits."""

    ROUTE_HIT = "route hit"
    ROUTE_MISS = "route miss"
    DNS_HIT = "dns hit"
    DNS_MISS = "dns miss"
    DNS_STALE = "dns stale"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """A metric: its name (a counter's without `_total`), and its labels' values where they are fixed."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    series: tuple[tuple[str, ...], ...] = ((),)


def _words_of(members: Iterable[Word]) -> tuple[tuple[str, ...], ...]:
    return tuple((member.value,) for member in members)


KINDS = (MessageKind.AS_REQ, MessageKind.TGS_REQ, MessageKind.KPASSWD_REQ, None)
"""A malformed request has no kind, so its label is empty."""

_KIND_SERIES = tuple((kind.value if kind else "",) for kind in KINDS)

REQUESTS = Family(
    name="kkdcpd_requests",
    kind="counter",
    text="Requests that have ended, by how they did.",
    labels=("realm", "outcome", "kind"),
    series=tuple((outcome.value, kind.value if kind else "") for outcome in Outcome for kind in KINDS),
)
REQUEST_SECONDS = Family(
    name="kkdcpd_request_duration_seconds",
    kind="histogram",
    text="Time from a request's head to its response.",
    labels=("kind",),
    series=_KIND_SERIES,
)
UPSTREAM_SECONDS = Family(
    name="kkdcpd_upstream_duration_seconds",
    kind="histogram",
    text="The part of it that the exchange with the KDCs took.",
    labels=("kind",),
    series=_KIND_SERIES,
)
REQUESTS_IN_FLIGHT = Family(
    name="kkdcpd_requests_in_flight", kind="gauge", text="Requests that are being served."
)
REFUSALS = Family(
    name="kkdcpd_refusals",
    kind="counter",
    text="Requests that the guard refused, by rule.",
    labels=("rule",),
    series=_words_of(Rule),
)
MONITORED = Family(
    name="kkdcpd_monitored",
    kind="counter",
    text="Requests that a rule would have refused, were it enforced.",
    labels=("rule",),
    series=_words_of(Rule),
)
HEDGES = Family(
    name="kkdcpd_hedges",
    kind="counter",
    text="Messages that were sent to a second KDC because the first was silent.",
)
LOOK_UPS = Family(
    name="kkdcpd_lookups",
    kind="counter",
    text="How the locator came to routes and to answers of DNS.",
    labels=("cache", "result"),
    series=tuple(tuple(each.value.split()) for each in LookUp),
)
CONNECTIONS_OPENED = Family(
    name="kkdcpd_connections_opened", kind="counter", text="Connections that were let in."
)
CONNECTIONS_REFUSED = Family(
    name="kkdcpd_connections_refused",
    kind="counter",
    text="Connections that were closed at the acceptor.",
    labels=("reason",),
    series=_words_of(ConnectionRefusal),
)
CONNECTIONS_EVICTED = Family(
    name="kkdcpd_connections_evicted",
    kind="counter",
    text="Connections that were closed to make room for others.",
    labels=("activity",),
    series=_words_of((ConnectionActivity.IDLE, ConnectionActivity.RECEIVING)),
)
CONNECTIONS_OPEN = Family(name="kkdcpd_connections_open", kind="gauge", text="Connections that are open.")
HANDSHAKES = Family(
    name="kkdcpd_tls_handshakes",
    kind="counter",
    text="TLS handshakes, by what became of them.",
    labels=("result",),
    series=_words_of(Handshake),
)

_KDC_LABELS = ("kdc", "address", "transport")
KDC_ATTEMPTS = Family(
    name="kkdcpd_kdc_attempts", kind="counter", text="Tries of an endpoint.", labels=_KDC_LABELS
)
KDC_REPLIES = Family(
    name="kkdcpd_kdc_replies", kind="counter", text="Replies that were relayed.", labels=_KDC_LABELS
)
KDC_STATE = Family(
    name="kkdcpd_kdc_state",
    kind="gauge",
    text="How an endpoint is: 0 well, 1 suspect, 2 down; the worst that any worker knows.",
    labels=_KDC_LABELS,
)
KDC_FAILURES = Family(
    name="kkdcpd_kdc_failures",
    kind="counter",
    text="Tries that failed.",
    labels=(*_KDC_LABELS, "reason"),
    series=_words_of(FailureReason),
)

_ONE_WORD_EACH = (
    REQUESTS_IN_FLIGHT,
    CONNECTIONS_OPEN,
    REFUSALS,
    MONITORED,
    HEDGES,
    LOOK_UPS,
    CONNECTIONS_OPENED,
    CONNECTIONS_REFUSED,
    CONNECTIONS_EVICTED,
    HANDSHAKES,
)


def _places() -> tuple[Mapping[Family, int], int]:
    """Return at which word of a row each family begins, and how many words they have together."""
    places: dict[Family, int] = {}
    at = 0
    for family in (*_ONE_WORD_EACH, REQUEST_SECONDS, UPSTREAM_SECONDS):
        places[family] = at
        at += len(family.series) * (HISTOGRAM_WORDS if family.kind == "histogram" else 1)
    return places, at


FIXED, FIXED_WORDS = _places()
"""The families whose series are all known beforehand."""

REQUEST_WORDS = len(REQUESTS.series)
"""A realm's words: one for each outcome and kind."""

KDC_FAILURE_WORDS = 3
"""An endpoint's words are attempts, replies, state, and then its failures by reason, from this one on."""

KDC_WORDS = KDC_FAILURE_WORDS + len(FailureReason)
