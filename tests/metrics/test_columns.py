"""The words of each metric in a row."""

from kkdcpd.config import UpstreamConfig
from kkdcpd.metrics.columns import (
    BUCKETS,
    FIXED,
    FIXED_WORDS,
    HISTOGRAM_WORDS,
    KDC_FAILURES,
    KDC_WORDS,
    REQUEST_WORDS,
    REQUESTS,
)
from kkdcpd.values import Outcome


def test_no_two_metrics_share_a_word() -> None:
    taken = [
        at + number
        for family, at in FIXED.items()
        for number in range(len(family.series) * (HISTOGRAM_WORDS if family.kind == "histogram" else 1))
    ]
    assert sorted(taken) == list(range(FIXED_WORDS))


def test_each_series_has_a_value_for_each_label() -> None:
    for family in FIXED:
        assert {len(labels) for labels in family.series} == {len(family.labels)}
        assert len(set(family.series)) == len(family.series)


def test_every_outcome_is_a_series() -> None:
    assert {outcome for outcome, _ in REQUESTS.series} == {outcome.value for outcome in Outcome}
    assert len(REQUESTS.series) == REQUEST_WORDS
    assert 3 + len(KDC_FAILURES.series) == KDC_WORDS


def test_buckets_reach_from_a_near_kdc_to_the_longest_wait() -> None:
    assert list(BUCKETS) == sorted(BUCKETS)
    assert BUCKETS[0] == 0.0005
    assert BUCKETS[-1] == UpstreamConfig().reply_timeout
