"""Exports the metrics as families of prometheus_client, which formats them for Prometheus or OpenMetrics."""

import datetime
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

import kkdcpd
from kkdcpd.config import DatedItem
from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.metrics.columns import (
    BUCKETS,
    FIXED,
    HISTOGRAM_WORDS,
    KDC_ATTEMPTS,
    KDC_FAILURE_WORDS,
    KDC_FAILURES,
    KDC_REPLIES,
    KDC_STATE,
    REQUESTS,
    Family,
)
from kkdcpd.metrics.memory import KDC_STATE_WORD, OTHER, RELOADS_FAILED, RELOADS_OK, WORKER_DEATHS
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.process_messages import ServiceStatus

__all__ = ["Exposition", "ServiceFacts"]

_MICROSECONDS = 1_000_000


@dataclass(slots=True, kw_only=True)
class ServiceFacts:
    """Facts without a counter: the state of the service, and the certificates and revocation lists in use."""

    status: ServiceStatus
    dated: Sequence[DatedItem] = ()


class Exposition(Collector):
    """Renders all metrics, anew for each scrape."""

    def __init__(self, reader: MetricsReader, facts: ServiceFacts) -> None:
        self._reader = reader
        self._facts = facts
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self, accept: str) -> tuple[bytes, str]:
        """Return the body and its type, in the best format that the `Accept` header names."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type

    def describe(self) -> list[Metric]:
        """Declare no metric: otherwise prometheus_client collects once at the start."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return every family."""
        words = self._reader.fixed()
        for family, at in FIXED.items():
            if family.kind == "histogram":
                yield _histogram(family, words[at:])
            else:
                yield _metric(family, zip(family.series, words[at:], strict=False))
        yield _metric(REQUESTS, self._requests())
        yield from self._kdcs()
        yield from self._service()

    def _requests(self) -> Iterator[tuple[Sequence[str], float]]:
        """Yield the counts above zero: most outcomes never happen in most realms."""
        for realm, words in self._reader.realms().items():
            for labels, count in zip(REQUESTS.series, words, strict=True):
                if count:
                    yield (realm, *labels), count

    def _kdcs(self) -> Iterator[Metric]:
        kdcs = {
            _kdc_labels(endpoint): words
            for endpoint, words in self._reader.kdcs().items()
            if endpoint or any(words)
        }
        yield _metric(KDC_ATTEMPTS, ((labels, words[0]) for labels, words in kdcs.items()))
        yield _metric(KDC_REPLIES, ((labels, words[1]) for labels, words in kdcs.items()))
        yield _metric(
            KDC_STATE, ((labels, words[KDC_STATE_WORD]) for labels, words in kdcs.items() if labels[1])
        )
        yield _metric(
            KDC_FAILURES,
            (
                ((*labels, *reason), count)
                for labels, words in kdcs.items()
                for reason, count in zip(KDC_FAILURES.series, words[KDC_FAILURE_WORDS:], strict=True)
                if count
            ),
        )

    def _service(self) -> Iterator[Metric]:
        status = self._facts.status
        is_sound = status.last_reload is None or status.last_reload.is_ok
        reloads = CounterMetricFamily("kkdcpd_reloads", "Reloads, by how they ended.", labels=["result"])
        reloads.add_metric(["ok"], self._reader.service(RELOADS_OK))
        reloads.add_metric(["failed"], self._reader.service(RELOADS_FAILED))
        yield reloads
        yield CounterMetricFamily(
            "kkdcpd_worker_deaths",
            "Worker processes and admin processes that ended unexpectedly.",
            self._reader.service(WORKER_DEATHS),
        )
        for name, text, value in (
            ("last_reload_ok", "Whether the last reload went well; 1 before the first.", is_sound),
            ("generation", "How often the configuration was taken, the start included.", status.generation),
            ("workers", "Workers that serve.", status.workers_ready),
            ("workers_wanted", "Workers that should serve.", status.workers_wanted),
            ("draining", "Whether it is about to end.", status.is_draining),
            ("start_time_seconds", "When it was started, in seconds since 1970.", status.started_at),
        ):
            yield GaugeMetricFamily(f"kkdcpd_{name}", text, value)
        yield from self._certificates()
        build = GaugeMetricFamily(
            "kkdcpd_build_info", "1, with what it is made of.", labels=["version", "python"]
        )
        build.add_metric([kkdcpd.__version__, platform.python_version()], 1)
        yield build

    def _certificates(self) -> Iterator[Metric]:
        now = datetime.datetime.now(datetime.UTC)
        # One file may be named twice; a series may not.
        items = {(str(item.path), item.kind.value, item.subject): item for item in self._facts.dated}
        for name, text, values in (
            (
                "expiry_timestamp_seconds",
                "When a certificate or revocation list in use expires, in seconds since 1970.",
                {labels: item.end.timestamp() for labels, item in items.items() if item.end},
            ),
            (
                "valid",
                "Whether a certificate or revocation list in use is within its dates by this host's clock.",
                {labels: item.problem(now) is None for labels, item in items.items()},
            ),
        ):
            family = GaugeMetricFamily(
                f"kkdcpd_certificate_{name}", text, labels=["certificate", "kind", "subject"]
            )
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


def _kdc_labels(endpoint: KdcEndpoint | None) -> tuple[str, str, str]:
    if endpoint is None:
        return OTHER, "", ""
    return endpoint.host_port, endpoint.address, endpoint.transport.value


def _metric(family: Family, series: Iterable[tuple[Sequence[str], float]]) -> Metric:
    form = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = form(family.name, family.text, labels=family.labels)
    for labels, value in series:
        metric.add_metric(labels, value)
    return metric


def _histogram(family: Family, words: Sequence[int]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.text, labels=family.labels)
    bounds = [*map(str, BUCKETS), "+Inf"]
    for number, labels in enumerate(family.series):
        own = words[number * HISTOGRAM_WORDS : (number + 1) * HISTOGRAM_WORDS]
        counts = accumulate(own[:-1])
        metric.add_metric(labels, list(zip(bounds, counts, strict=True)), own[-1] / _MICROSECONDS)
    return metric
