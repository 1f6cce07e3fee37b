"""Facts about endpoints, and the bounds of the memory for them."""

from dataclasses import replace

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.upstream.endpoint_facts import EndpointFacts

KDC = KdcEndpoint(name="kdc", address="192.0.2.1", port=88, transport=Transport.UDP)
NEVER = float("-inf")


def others(number: int) -> list[KdcEndpoint]:
    return [replace(KDC, port=port) for port in range(1000, 1000 + number)]


def test_answered_probes_of_this_process_have_the_time_of_sending() -> None:
    facts = EndpointFacts()
    assert (facts.answered_probe_sent_at(KDC), facts.probe_answered_at(KDC)) == (NEVER, NEVER)
    facts.note_answered_probe(KDC, 100.5, sent_at=100.0)
    assert (facts.answered_probe_sent_at(KDC), facts.probe_answered_at(KDC)) == (100.0, 100.5)


@pytest.mark.parametrize("sent_at", [99.0, NEVER], ids=["late answer", "answer to another process"])
def test_newest_answered_probe_counts(sent_at: float) -> None:
    facts = EndpointFacts()
    facts.note_answered_probe(KDC, 100.5, sent_at=100.0)
    facts.note_answered_probe(KDC, 101.0, sent_at=sent_at)
    assert (facts.answered_probe_sent_at(KDC), facts.probe_answered_at(KDC)) == (100.0, 101.0)


def test_answered_probes_are_forgotten_when_there_are_many() -> None:
    facts = EndpointFacts()
    for endpoint in others(1024):
        facts.note_answered_probe(endpoint, 100.0, sent_at=100.0)
    facts.note_answered_probe(KDC, 102.0, sent_at=102.0)
    assert facts.probe_answered_at(KDC) == 102.0
    assert [facts.probe_answered_at(endpoint) for endpoint in others(1024)] == [NEVER] * 1024


def test_reachable_endpoints_are_new_once_and_bounded() -> None:
    facts = EndpointFacts()
    assert [facts.note_reachable(KDC) for _ in range(2)] == [True, False]
    assert sum(facts.note_reachable(endpoint) for endpoint in others(2000)) == 1023
    assert facts.is_reachable(KDC)


def test_overflows_are_remembered_and_bounded() -> None:
    facts = EndpointFacts()
    for endpoint in others(2000):
        facts.note_overflow(endpoint)
    assert sum(map(facts.has_overflowed, others(2000))) == 1024
    assert not facts.has_overflowed(KDC)


def test_requests_older_than_an_answered_probe_are_passed_over() -> None:
    facts = EndpointFacts()
    assert facts.passed_over_before(KDC, 100.0, 0.4) == NEVER
    facts.note_answered_probe(KDC, 100.5, sent_at=100.0)
    assert facts.passed_over_before(KDC, 101.0, 0.4) == 100.0


def test_fast_endpoint_has_passed_over_requests_that_wait_longer_than_usual() -> None:
    """Only while the answered probe is fresh."""
    facts = EndpointFacts()
    facts.note_answered_probe(KDC, 100.25, sent_at=100.0)
    assert facts.passed_over_before(KDC, 101.0, 0.5) == 100.5
    assert facts.passed_over_before(KDC, 102.0, 0.5) == 101.5
    assert facts.passed_over_before(KDC, 103.0, 0.5) == 100.0


def test_probe_of_another_process_does_not_show_that_an_endpoint_is_fast() -> None:
    facts = EndpointFacts()
    facts.note_answered_probe(KDC, 100.0)
    assert facts.passed_over_before(KDC, 100.1, 0.5) == NEVER
