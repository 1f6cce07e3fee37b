"""Entries of the DNS cache: validity, the schedule of retries, and limits."""

import math

import pytest

from kkdcpd.locate.dns_cache_entries import CacheEntry, CachePartition
from kkdcpd.locate.dns_wire import RecordType


def _positive(now: float = 0.0) -> CacheEntry:
    return CacheEntry.of_answer(("192.0.2.1",), 100, now)


def test_answer_is_valid_for_its_ttl_and_stale_for_a_while() -> None:
    entry = _positive()
    assert entry.is_valid(99.9)
    assert not entry.is_valid(100)
    assert entry.is_valid(109, stale_ttl=10)
    assert not entry.is_valid(110, stale_ttl=10)
    assert entry.answer(50).validity.recheck == 90
    assert not CacheEntry().is_valid(0, stale_ttl=math.inf)


@pytest.mark.parametrize(
    ("last_answer_at", "pauses"),
    [
        pytest.param(-math.inf, [1, 2, 4, 8, 16, 30, 30, 30], id="DNS is down"),
        pytest.param(1000, [1, 2, 60, 120, 240, 300, 300, 300], id="only this question fails"),
    ],
)
def test_pauses_after_failures_grow_to_a_limit(last_answer_at: float, pauses: list[float]) -> None:
    entry = CacheEntry()
    for pause in pauses:
        entry.note_failure("SERVFAIL", 1000, 1000, last_answer_at=last_answer_at)
        assert entry.retry_at == 1000 + pause
        assert entry.required_retry_at <= 1030
        assert entry.is_unanswered is (pause >= 60)
    assert str(entry.failed_answer(1000).failure) == "SERVFAIL"


def test_stale_answer_is_used_until_the_next_retry() -> None:
    entry = _positive()
    entry.note_failure("SERVFAIL", 200, 200, last_answer_at=0)
    entry.note_failure("SERVFAIL", 201, 201, last_answer_at=0)
    answer = entry.stale_answer(202)
    assert answer.is_stale
    assert answer.validity.expires == 203


def test_each_kind_of_entry_evicts_its_own_kind_alone() -> None:
    partition = CachePartition(8)
    for number in range(20):
        partition.put((f"positive-{number}", RecordType.A), _positive())
    for number in range(20):
        partition.put((f"negative-{number}", RecordType.A), CacheEntry())
    assert len(partition) == 8
    assert partition.get(("positive-14", RecordType.A))
    assert partition.latest_question() == ("positive-14", RecordType.A)
    assert partition.get(("negative-17", RecordType.A)) is None


def test_entry_that_gains_records_changes_its_kind() -> None:
    partition = CachePartition(8)
    question = ("kdc1.example.com", RecordType.A)
    partition.put(question, CacheEntry())
    partition.put(question, _positive())
    assert len(partition) == 1
    assert not partition.has_failures()
