"""The order of candidates: health, priority, weight, affinity."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.process_messages import ProbeTarget
from kkdcpd.upstream.choice import BUCKETS, Choice, host_mark
from kkdcpd.upstream.health import HealthTable
from kkdcpd.values import Candidate, FailureReason, Route


def candidate(name: str, *, priority: int = 0, weight: int = 1) -> Candidate:
    endpoint = KdcEndpoint(name=name, address=f"192.0.2.{ord(name)}", port=88, transport=Transport.TCP)
    return Candidate(endpoint=endpoint, priority=priority, weight=weight, source="test")


def fallback(name: str) -> Candidate:
    tcp = candidate(name.lower())
    return replace(tcp, endpoint=replace(tcp.endpoint, name=name, transport=Transport.UDP), is_fallback=True)


def route(*candidates: Candidate) -> Route:
    return Route(realm="EXAMPLE.COM", kerberos_realm="EXAMPLE.COM", candidates=candidates)


def names(candidates: Sequence[Candidate]) -> str:
    return "".join(candidate.endpoint.name for candidate in candidates)


@pytest.fixture
def health() -> HealthTable:
    return HealthTable(
        turn=0,
        probe_interval=2.0,
        probe_interval_maximum=10.0,
        reach_timeout=5.0,
        notify=lambda _: None,
        note_change=lambda *_: None,
    )


@pytest.fixture
def choice(health: HealthTable) -> Choice:
    return Choice(health)


def fail(health: HealthTable, candidate: Candidate, failure: FailureReason | None) -> None:
    health.report(ProbeTarget(endpoint=candidate.endpoint, realm="EXAMPLE.COM"), failure, 0.0)


def test_lower_priority_goes_first_with_any_weight(choice: Choice) -> None:
    ordered = route(candidate("a", priority=20, weight=100), candidate("b", priority=10), candidate("c"))
    assert {names(choice.order(ordered, affinity)) for affinity in range(BUCKETS)} == {"cba"}


def test_weights_divide_the_requests(choice: Choice) -> None:
    ordered = route(candidate("a", weight=60), candidate("b", weight=30), candidate("c", weight=10))
    first = Counter(names(choice.order(ordered, affinity))[0] for affinity in range(BUCKETS))
    shares = {name: count / BUCKETS for name, count in first.items()}
    assert shares == {
        "a": pytest.approx(0.6, abs=0.08),
        "b": pytest.approx(0.3, abs=0.08),
        "c": pytest.approx(0.1, abs=0.05),
    }


def test_weights_divide_the_second_choice_too(choice: Choice) -> None:
    ordered = route(*(candidate(name) for name in "abc"))
    orders = Counter(names(choice.order(ordered, affinity)) for affinity in range(BUCKETS))
    assert set(orders) == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_weight_of_zero_is_a_small_chance_beside_other_weights_and_an_equal_one_among_zeros(
    choice: Choice,
) -> None:
    beside = route(candidate("a", weight=100), candidate("b", weight=0))
    among = route(candidate("c", weight=0), candidate("d", weight=0))
    first = Counter(names(choice.order(beside, affinity))[0] for affinity in range(BUCKETS))
    assert first["b"] <= BUCKETS * 0.02
    first = Counter(names(choice.order(among, affinity))[0] for affinity in range(BUCKETS))
    assert min(first["c"], first["d"]) >= BUCKETS * 0.4


def test_same_affinity_meets_the_same_kdc_on_every_worker(health: HealthTable, choice: Choice) -> None:
    ordered = route(*(candidate(name) for name in "abcdef"))
    other = route(*(candidate(name) for name in "fedcba"))
    for affinity in (0, 1, 12345, 2**32 - 1):
        expected = names(choice.order(ordered, affinity))
        assert names(Choice(health).order(other, affinity)) == expected


def test_unhealthy_kdc_goes_last_and_only_its_own_requests_move(health: HealthTable, choice: Choice) -> None:
    candidates = [candidate(name) for name in "abc"]
    ordered = route(*candidates)
    before = {affinity: names(choice.order(ordered, affinity)) for affinity in range(BUCKETS)}
    fail(health, candidates[0], FailureReason.SILENT)
    for affinity, order in before.items():
        assert names(choice.order(ordered, affinity)) == order.replace("a", "") + "a"
    fail(health, candidates[0], None)
    assert {affinity: names(choice.order(ordered, affinity)) for affinity in before} == before


def test_unhealthy_kdc_comes_after_healthy_kdcs_of_a_later_priority(
    health: HealthTable, choice: Choice
) -> None:
    candidates = [candidate("a", priority=1), candidate("b", priority=2)]
    fail(health, candidates[0], FailureReason.REFUSED)
    assert names(choice.order(route(*candidates), 0)) == "ba"


def test_no_kdc_is_left_out_when_all_are_unhealthy(health: HealthTable, choice: Choice) -> None:
    candidates = [candidate(name, priority=ord(name)) for name in "abc"]
    for each in candidates:
        fail(health, each, FailureReason.REFUSED)
    assert names(choice.order(route(*candidates), 0)) == "abc"


def test_memory_of_orders_is_bounded(choice: Choice) -> None:
    kept = [route(candidate("a"), candidate("b")) for _ in range(3000)]
    assert {names(choice.order(each, 7)) for each in kept} <= {"ab", "ba"}


def kpasswd_host(name: str, address: str) -> int:
    """The mark of the host that took a password change."""
    return host_mark(KdcEndpoint(name=name, address=address, port=464, transport=Transport.UDP))


def test_preferred_host_comes_first_at_any_priority(choice: Choice) -> None:
    ordered = route(candidate("a"), candidate("b"), candidate("c", priority=20))
    for affinity in range(BUCKETS):
        usual = names(choice.order(ordered, affinity))
        host = kpasswd_host("c.example.com", f"192.0.2.{ord('c')}")
        assert names(choice.order(ordered, affinity, host)) == "c" + usual.replace("c", "")


def test_host_is_known_by_its_address_and_else_by_its_name(choice: Choice) -> None:
    ordered = route(candidate("a"), candidate("b"), candidate("c"))
    by_address = kpasswd_host("b", f"192.0.2.{ord('c')}")
    by_name = kpasswd_host("B.", "2001:db8::1")
    for affinity in range(BUCKETS):
        usual = names(choice.order(ordered, affinity))
        assert names(choice.order(ordered, affinity, by_address)) == "cba"
        assert names(choice.order(ordered, affinity, by_name)) == "b" + usual.replace("b", "")


def test_host_that_is_no_candidate_changes_nothing(choice: Choice) -> None:
    ordered = route(candidate("a"), candidate("b"), candidate("c", priority=20))
    stranger = kpasswd_host("d", "192.0.2.200")
    for affinity in range(BUCKETS):
        assert names(choice.order(ordered, affinity, stranger)) == names(choice.order(ordered, affinity))


def test_unhealthy_preferred_host_stays_among_the_unhealthy_hosts(
    choice: Choice, health: HealthTable
) -> None:
    one, other, third = candidate("a"), candidate("b"), candidate("c")
    host = kpasswd_host("a", one.endpoint.address)
    fail(health, one, FailureReason.REFUSED)
    assert names(choice.order(route(one, other, third), 1, host))[-1] == "a"
    fail(health, other, FailureReason.REFUSED)
    fail(health, third, FailureReason.REFUSED)
    assert names(choice.order(route(one, other, third), 1, host))[0] == "a"
    fail(health, one, None)
    assert names(choice.order(route(one, other, third), 1, host))[0] == "a"


@pytest.mark.parametrize(
    ("failures", "order"),
    [
        ({}, "abAB"),
        # Any client can make an endpoint suspect, so its UDP endpoint does not precede it.
        ({"a": FailureReason.SILENT}, "baAB"),
        ({"a": FailureReason.REFUSED}, "bABa"),
        ({"a": FailureReason.REFUSED, "b": FailureReason.CONNECT_TIMEOUT}, "ABab"),
        ({"a": FailureReason.REFUSED, "A": FailureReason.SILENT}, "bBAa"),
        ({"a": FailureReason.REFUSED, "A": FailureReason.REFUSED}, "bBaA"),
    ],
)
def test_udp_that_has_answered_precedes_endpoints_that_are_down(
    failures: dict[str, FailureReason], order: str, choice: Choice, health: HealthTable
) -> None:
    weights = {"a": 10**9, "b": 0}
    candidates = {name: replace(candidate(name), weight=weights[name]) for name in "ab"}
    candidates |= {name: replace(fallback(name), weight=weights[name.lower()]) for name in "AB"}
    for name in "AB":
        fail(health, candidates[name], None)
    for name, failure in failures.items():
        fail(health, candidates[name], failure)
    assert names(choice.order(route(*candidates.values()), 0)) == order


def test_udp_of_a_host_that_never_answered_comes_last(choice: Choice, health: HealthTable) -> None:
    """Its UDP may be filtered, and its TCP may work again."""
    ordered = route(candidate("a"), fallback("A"))
    fail(health, candidate("a"), FailureReason.REFUSED)
    assert names(choice.order(ordered, 0)) == "aA"
    fail(health, fallback("A"), None)
    assert names(choice.order(ordered, 0)) == "Aa"
