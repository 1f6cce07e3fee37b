"""The counters of each event, and their cost."""

import timeit
from collections.abc import Mapping
from dataclasses import replace

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.columns import (
    BUCKETS,
    FIXED,
    HISTOGRAM_WORDS,
    KDC_FAILURES,
    KINDS,
    REQUEST_SECONDS,
    REQUESTS,
    UPSTREAM_SECONDS,
    Family,
    Handshake,
    LookUp,
)
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics, RowLayout, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.values import (
    AttemptFailure,
    ConnectionActivity,
    ConnectionRefusal,
    FailureReason,
    KdcState,
    MessageKind,
    Outcome,
    Refusal,
    RequestResult,
    Rule,
)

KDC = KdcEndpoint(name="kdc1.example.com", address="192.0.2.1", port=88, transport=Transport.TCP)
ANSWERED = RequestResult(outcome=Outcome.ANSWERED, realm="EXAMPLE.COM", upstream_seconds=0.0015)


@pytest.fixture
def metrics() -> Metrics:
    metrics = make_metrics(1, RowLayout(realm_entries=8, kdc_entries=3))
    metrics.take_row(0)
    return metrics


@pytest.fixture
def counters(metrics: Metrics) -> Counters:
    return Counters(metrics.row(0))


def counted(metrics: Metrics, *families: Family) -> Mapping[tuple[str, ...], int]:
    """Return the series of families with one word that are not zero, by name and labels."""
    words = MetricsReader(metrics).fixed()
    return {
        (family.name, *labels): words[at + number]
        for family, at in FIXED.items()
        if family.kind != "histogram" and (not families or family in families)
        for number, labels in enumerate(family.series)
        if words[at + number]
    }


def requests(metrics: Metrics) -> Mapping[tuple[str, str, str], int]:
    return {
        (realm, outcome, kind): count
        for realm, words in MetricsReader(metrics).realms().items()
        for (outcome, kind), count in zip(REQUESTS.series, words, strict=True)
        if count
    }


def histogram(metrics: Metrics, family: Family, kind: MessageKind | None) -> list[int]:
    at = FIXED[family] + KINDS.index(kind) * HISTOGRAM_WORDS
    return MetricsReader(metrics).fixed()[at : at + HISTOGRAM_WORDS]


def test_request_is_counted_by_realm_outcome_and_kind(metrics: Metrics, counters: Counters) -> None:
    counters.request_ended(ANSWERED, MessageKind.AS_REQ, 0.002)
    counters.request_ended(ANSWERED, MessageKind.AS_REQ, 0.002)
    counters.request_ended(ANSWERED, MessageKind.KPASSWD_REQ, 0.002)
    counters.request_ended(RequestResult(outcome=Outcome.MALFORMED_HTTP), None, 0.001)
    counters.request_ended(RequestResult(outcome=Outcome.REALM_NOT_SERVED), MessageKind.TGS_REQ, 0.001)
    assert requests(metrics) == {
        ("EXAMPLE.COM", "answered", "AS_REQ"): 2,
        ("EXAMPLE.COM", "answered", "KPASSWD_REQ"): 1,
        ("", "malformed_http", ""): 1,
        ("", "realm_not_served", "TGS_REQ"): 1,
    }


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("kind", KINDS)
def test_each_outcome_has_a_word_of_its_own(
    metrics: Metrics, counters: Counters, outcome: Outcome, kind: MessageKind | None
) -> None:
    counters.request_ended(RequestResult(outcome=outcome, realm="EXAMPLE.COM"), kind, 0.002)
    assert requests(metrics) == {("EXAMPLE.COM", outcome.value, kind.value if kind else ""): 1}


def test_durations_are_in_the_bucket_that_is_not_below_them(metrics: Metrics, counters: Counters) -> None:
    kind = MessageKind.TGS_REQ
    for seconds in (0.0001, BUCKETS[0], 0.0006, 19.0, 20.5):
        counters.request_ended(RequestResult(outcome=Outcome.ANSWERED), kind, seconds)
    counters.request_ended(ANSWERED, kind, 0.0030)
    found = histogram(metrics, REQUEST_SECONDS, kind)
    assert found == [2, 1, 0, 1, *[0] * 10, 1, 1, 39504200]
    assert histogram(metrics, UPSTREAM_SECONDS, kind) == [0, 0, 1, *[0] * 13, 1500]
    assert not any(histogram(metrics, REQUEST_SECONDS, None))


def test_rules_are_counted_by_what_they_did(metrics: Metrics, counters: Counters) -> None:
    refusal = Refusal(rule=Rule.SPRAYING, outcome=Outcome.REFUSED, text="no")
    served = RequestResult(
        outcome=Outcome.REFUSED, refusal=refusal, monitored=(Rule.WEAK_ETYPES, Rule.MANY_SERVICES)
    )
    counters.request_ended(served, MessageKind.AS_REQ, 0.001)
    assert counted(metrics) == {
        ("kkdcpd_refusals", "spraying"): 1,
        ("kkdcpd_monitored", "weak_etypes"): 1,
        ("kkdcpd_monitored", "many_services"): 1,
    }


def test_requests_in_flight_come_and_go(metrics: Metrics, counters: Counters) -> None:
    counters.request_begins()
    counters.request_begins()
    assert counted(metrics) == {("kkdcpd_requests_in_flight",): 2}
    counters.request_leaves()
    counters.request_leaves()
    assert counted(metrics) == {}


def test_connections_and_look_ups_are_counted(metrics: Metrics, counters: Counters) -> None:
    counters.connection_opened()
    counters.connections_are(3)
    counters.connection_refused(ConnectionRefusal.PER_CLIENT)
    for activity in (ConnectionActivity.IDLE, ConnectionActivity.RECEIVING):
        counters.connection_evicted(activity)
    for handshake in Handshake:
        counters.shook_hands(handshake)
    for look_up in LookUp:
        counters.looked_up(look_up)
    counters.hedged()
    expected: dict[tuple[str, ...], int] = {
        ("kkdcpd_connections_opened",): 1,
        ("kkdcpd_connections_open",): 3,
        ("kkdcpd_connections_refused", "connections.per_client"): 1,
        ("kkdcpd_connections_evicted", "idle"): 1,
        ("kkdcpd_connections_evicted", "receiving"): 1,
        **{("kkdcpd_tls_handshakes", each.value): 1 for each in Handshake},
        **{("kkdcpd_lookups", *each.value.split()): 1 for each in LookUp},
        ("kkdcpd_hedges",): 1,
    }
    assert counted(metrics) == expected


def test_endpoints_are_counted_each_for_itself(metrics: Metrics, counters: Counters) -> None:
    counters.kdc_tried(KDC)
    counters.kdc_replied(KDC)
    failure = AttemptFailure(endpoint=KDC, reason=FailureReason.CLOSED, may_be_delivered=True)
    counters.kdc_failed(failure)
    counters.kdc_changed(KDC, KdcState.SUSPECT)
    words = MetricsReader(metrics).kdcs()[KDC]
    at = KDC_FAILURES.series.index(("closed",)) + 3
    assert (words[:3], words[at], sum(words)) == ([1, 1, 1], 1, 4)


def test_endpoints_without_a_slot_are_counted_together(metrics: Metrics, counters: Counters) -> None:
    for number in range(5):
        counters.kdc_tried(KdcEndpoint(name=f"k{number}", address="::1", port=88, transport=Transport.UDP))
    lost = KdcEndpoint(name="k4", address="::1", port=88, transport=Transport.UDP)
    counters.kdc_changed(lost, KdcState.DOWN)
    kdcs = MetricsReader(metrics).kdcs()
    assert (len(kdcs), kdcs[None][:3]) == (3, [3, 0, 0])


def test_endpoints_under_wildcards_take_no_slots_from_those_of_configured_realms(
    metrics: Metrics, counters: Counters
) -> None:
    for number in range(2000):
        address = f"192.0.{number // 256}.{number % 256}"
        counters.kdc_tried(replace(KDC, address=address, branch="evil.example.com"))
        counters.kdc_changed(replace(KDC, address=address, branch="evil.example.com"), KdcState.DOWN)
    counters.kdc_tried(KDC)
    kdcs = MetricsReader(metrics).kdcs()
    assert kdcs[KDC][0] == 1
    assert len(kdcs) == RowLayout().branch_kdc_entries + 1
    assert kdcs[None][0] == 2000 - RowLayout().branch_kdc_entries + 1


def test_name_of_an_endpoint_fits_its_slot() -> None:
    longest = KdcEndpoint(
        name="a" * 253 + ".", address="ffff:" * 7 + "ffff", port=65535, transport=Transport.UDP
    )
    assert len(longest.pack().encode()) <= 320


def test_counting_a_request_costs_microseconds(counters: Counters) -> None:
    """The cost is 1.3 µs on an idle machine, and may be 3 µs. A busy machine takes several times as long."""
    best = min(
        timeit.repeat(
            lambda: counters.request_ended(ANSWERED, MessageKind.AS_REQ, 0.002), number=2000, repeat=15
        )
    )
    assert best / 2000 < 10e-6
