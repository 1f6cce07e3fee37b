"""The text for a scraper, read by prometheus_client's parser."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kkdcpd.config import DatedItem, DatedKind
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.exposition import Exposition, ServiceFacts
from kkdcpd.metrics.memory import RELOADS_FAILED, Metrics, RowLayout, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.process_messages import ReloadResult, ServiceStatus
from kkdcpd.values import AttemptFailure, FailureReason, KdcState, MessageKind, Outcome, RequestResult

KDC = KdcEndpoint(name="2001:db8::1", address="2001:db8::1", port=88, transport=Transport.UDP)
STATUS = ServiceStatus(generation=3, workers_ready=1, workers_wanted=2, started_at=1800000000.5)

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics() -> Metrics:
    metrics = make_metrics(2, RowLayout(kdc_entries=2))
    metrics.take_row(0)
    return metrics


def scrape(metrics: Metrics, status: ServiceStatus = STATUS, *, dated: Sequence[DatedItem] = ()) -> Series:
    facts = ServiceFacts(status=status, dated=dated)
    body, _ = Exposition(MetricsReader(metrics), facts).render("")
    samples = [
        sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples
    ]
    series = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(series) == len(samples), "a series is there twice"
    return series


def found(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def test_histogram_adds_up_and_has_its_sum_in_seconds(metrics: Metrics) -> None:
    counters = Counters(metrics.row(0))
    for seconds in (0.0004, 0.0009, 30.0):
        counters.request_ended(RequestResult(outcome=Outcome.ANSWERED), MessageKind.AS_REQ, seconds)
    series = scrape(metrics)
    name = "kkdcpd_request_duration_seconds"
    counts = [
        found(series, f"{name}_bucket", kind="AS_REQ", le=bound)
        for bound in ("0.0005", "0.001", "20.0", "+Inf")
    ]
    assert counts == [1, 2, 2, 3]
    assert found(series, f"{name}_count", kind="AS_REQ") == 3
    assert found(series, f"{name}_sum", kind="AS_REQ") == pytest.approx(30.0013)


def test_zero_series_exist_only_where_alerts_need_them(metrics: Metrics) -> None:
    series = scrape(metrics)
    assert found(series, "kkdcpd_refusals_total", rule="guessing") == 0
    assert not any(name == "kkdcpd_requests_total" for name, _ in series)
    assert not any(name.startswith("kkdcpd_kdc") for name, _ in series)


def test_names_are_exported_unchanged(metrics: Metrics) -> None:
    odd = 'a "b" \\ c'
    Counters(metrics.row(0)).request_ended(RequestResult(outcome=Outcome.ANSWERED, realm=odd), None, 0.1)
    series = scrape(metrics, dated=[dated("/etc/a b.pem", odd, end=datetime.fromtimestamp(1.5e9, UTC))])
    assert found(series, "kkdcpd_requests_total", realm=odd, outcome="answered", kind="") == 1
    labels = {"certificate": "/etc/a b.pem", "kind": "server", "subject": odd}
    assert found(series, "kkdcpd_certificate_expiry_timestamp_seconds", **labels) == 1.5e9
    assert found(series, "kkdcpd_certificate_valid", **labels) == 0


def dated(path: str, subject: str, *, end: datetime | None) -> DatedItem:
    return DatedItem(
        kind=DatedKind.SERVER, key="tls.certificate", path=Path(path), subject=subject, start=None, end=end
    )


def test_item_without_an_end_is_valid_and_an_item_named_twice_is_exported_once(metrics: Metrics) -> None:
    items = [dated("a.pem", "CN=a", end=None), dated("a.pem", "CN=a", end=None)]
    series = scrape(metrics, dated=items)
    labels = {"certificate": "a.pem", "kind": "server", "subject": "CN=a"}
    assert found(series, "kkdcpd_certificate_valid", **labels) == 1
    assert found(series, "kkdcpd_certificate_expiry_timestamp_seconds", **labels) is None


def test_endpoint_is_exported_as_the_log_shows_it(metrics: Metrics) -> None:
    counters = Counters(metrics.row(0))
    counters.kdc_tried(KDC)
    counters.kdc_failed(AttemptFailure(endpoint=KDC, reason=FailureReason.SILENT, may_be_delivered=True))
    counters.kdc_changed(KDC, KdcState.SUSPECT)
    labels = {"kdc": "[2001:db8::1]:88", "address": "2001:db8::1", "transport": "udp"}
    series = scrape(metrics)
    assert found(series, "kkdcpd_kdc_attempts_total", **labels) == 1
    assert found(series, "kkdcpd_kdc_replies_total", **labels) == 0
    assert found(series, "kkdcpd_kdc_failures_total", **labels, reason="silent") == 1
    assert found(series, "kkdcpd_kdc_state", **labels) == 1
    assert sum(name == "kkdcpd_kdc_failures_total" for name, _ in series) == 1


def test_endpoints_without_a_slot_are_exported_together_and_without_state(metrics: Metrics) -> None:
    counters = Counters(metrics.row(0))
    for port in (88, 89, 90):
        counters.kdc_tried(KdcEndpoint(name="k", address="::1", port=port, transport=Transport.TCP))
    series = scrape(metrics)
    assert found(series, "kkdcpd_kdc_attempts_total", kdc="other", address="", transport="") == 2
    assert found(series, "kkdcpd_kdc_state", kdc="other", address="", transport="") is None


def test_state_of_the_service_is_exported_as_the_parent_reports_it(metrics: Metrics) -> None:
    metrics.add(RELOADS_FAILED)
    series = scrape(metrics)
    for name, value in (
        ("generation", 3),
        ("workers", 1),
        ("workers_wanted", 2),
        ("draining", 0),
        ("last_reload_ok", 1),
        ("start_time_seconds", 1800000000.5),
    ):
        assert found(series, f"kkdcpd_{name}") == value
    assert found(series, "kkdcpd_reloads_total", result="failed") == 1
    failed = ServiceStatus(
        generation=3,
        workers_ready=1,
        workers_wanted=1,
        started_at=0.0,
        last_reload=ReloadResult(at=1.0, is_ok=False),
    )
    assert found(scrape(metrics, failed), "kkdcpd_last_reload_ok") == 0
