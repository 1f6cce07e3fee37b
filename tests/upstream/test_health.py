"""Tests of the health table, with a clock of their own."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.process_messages import HealthNotice, ProbeTarget
from kkdcpd.upstream.endpoint_table import MAX_OF_BRANCH, MAX_OF_BRANCHES
from kkdcpd.upstream.health import FAILS_TO_CONNECT, FORGET_SECONDS, MAX_REST_SECONDS, HealthTable
from kkdcpd.values import FailureReason, KdcState

KDC = KdcEndpoint(name="kdc1.example.com", address="192.0.2.1", port=88, transport=Transport.TCP)
TARGET = ProbeTarget(endpoint=KDC, realm="EXAMPLE.COM")
PASSWORD_SERVER = ProbeTarget(endpoint=KDC, realm=None)
NEVER = float("inf")


@pytest.fixture
def noted() -> list[tuple[KdcEndpoint, KdcState]]:
    """The changes that the table reports."""
    return []


REACH_TIMEOUT = 5.0


def table(notify: Callable[[HealthNotice], object] = lambda _notice: None) -> HealthTable:
    return HealthTable(
        turn=0,
        probe_interval=2.0,
        probe_interval_maximum=10.0,
        reach_timeout=REACH_TIMEOUT,
        notify=notify,
        note_change=lambda *_change: None,
    )


@pytest.fixture
def health(noted: list[tuple[KdcEndpoint, KdcState]]) -> HealthTable:
    return HealthTable(
        turn=0,
        probe_interval=2.0,
        probe_interval_maximum=10.0,
        reach_timeout=REACH_TIMEOUT,
        notify=lambda _notice: None,
        note_change=lambda *change: noted.append(change),
    )


def probe(health: HealthTable, failure: FailureReason | None, now: float) -> None:
    """Report a probe's result. An unanswered probe was sent `answer_seconds` ago."""
    is_unanswered = failure is FailureReason.SILENT
    health.probed(TARGET, failure, now, sent_at=now - health.answer_seconds if is_unanswered else now)


def test_unknown_endpoint_is_healthy(health: HealthTable) -> None:
    assert health.state(KDC) is KdcState.HEALTHY
    assert health.next_probe_at == NEVER


def test_silent_endpoint_is_suspect_and_probed_at_once(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT
    assert health.probes_due(100.0) == [TARGET]


def test_endpoint_that_is_slow_to_connect_is_suspect_too(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SLOW_TO_CONNECT, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT


@pytest.mark.parametrize("failure", [FailureReason.SILENT, FailureReason.CLOSED, FailureReason.BAD_REPLY])
def test_password_server_that_fails_after_the_connect_stays_suspect_for_long(
    health: HealthTable, failure: FailureReason
) -> None:
    """Its probe is a connect, which only shows that the server accepts connections."""
    health.report(PASSWORD_SERVER, failure, 100.0)
    for now in (100.5, 109.0):
        health.probed(PASSWORD_SERVER, None, now, sent_at=now)
        assert health.state(KDC) is KdcState.SUSPECT
        assert health.next_probe_at == 110.0
    health.probed(PASSWORD_SERVER, None, 110.0, sent_at=110.0)
    assert health.state(KDC) is KdcState.HEALTHY


@pytest.mark.parametrize(
    ("failure", "probe_at"), [(FailureReason.SLOW_TO_CONNECT, 100.0), (FailureReason.REFUSED, 102.0)]
)
def test_unreachable_password_server_is_probed_like_any_endpoint(
    health: HealthTable, failure: FailureReason, probe_at: float
) -> None:
    health.report(PASSWORD_SERVER, failure, 100.0)
    assert health.next_probe_at == probe_at


@pytest.mark.parametrize("failure", [reason for reason in FailureReason if reason not in FAILS_TO_CONNECT])
def test_endpoint_with_a_failure_that_clients_can_cause_is_probed_at_once(
    health: HealthTable, failure: FailureReason
) -> None:
    """A client whose message makes a KDC close must not take the KDC from other clients for long."""
    health.report(TARGET, failure, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT
    assert health.probes_due(100.0) == [TARGET]


@pytest.mark.parametrize("failure", sorted(FAILS_TO_CONNECT, key=str))
def test_endpoint_that_cannot_be_connected_to_is_down_and_probed_later(
    health: HealthTable, failure: FailureReason
) -> None:
    health.report(TARGET, failure, 100.0)
    assert health.state(KDC) is KdcState.DOWN
    assert health.probes_due(101.9) == []
    assert health.probes_due(102.0) == [TARGET]


def test_endpoint_is_probed_by_one_probe_at_a_time(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    health.probes_due(100.0)
    assert health.probes_due(1000.0) == []
    assert health.next_probe_at == NEVER


def test_pauses_between_probes_grow() -> None:
    health = table()
    health.report(TARGET, FailureReason.REFUSED, 100.0)
    now, pauses = health.next_probe_at, []
    for _ in range(5):
        health.probes_due(now)
        probe(health, FailureReason.REFUSED, now)
        pauses.append(health.next_probe_at - now)
        now = health.next_probe_at
    assert pauses == [2.0, 4.0, 8.0, 10.0, 10.0]


def test_endpoint_is_down_after_two_unanswered_probes_not_one(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SLOW_TO_CONNECT, 100.0)
    probe(health, FailureReason.SILENT, 102.0)
    assert health.state(KDC) is KdcState.SUSPECT
    probe(health, FailureReason.SILENT, 106.0)
    assert health.state(KDC) is KdcState.DOWN


def test_failed_connect_makes_a_suspect_endpoint_down_without_a_probe(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SLOW_TO_CONNECT, 100.0)
    health.report(TARGET, FailureReason.CONNECT_TIMEOUT, 101.5)
    assert health.state(KDC) is KdcState.DOWN


@pytest.mark.parametrize("failure", [FailureReason.BUSY, FailureReason.LOCAL_ERROR, FailureReason.PORT_LIMIT])
def test_probe_that_never_left_this_host_says_nothing(health: HealthTable, failure: FailureReason) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    health.probes_due(100.0)
    probe(health, failure, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT
    assert health.next_probe_at == 102.0


def test_silent_endpoint_is_dead_after_two_unanswered_probes_within_the_time_to_reach_one() -> None:
    health, sent_at, now = table(), 99.6, 100.0
    health.report(TARGET, FailureReason.SILENT, now)
    for _ in range(2):
        assert not health.is_dead(KDC, since=sent_at)
        assert health.probes_due(now) == [TARGET]
        now += health.answer_seconds
        probe(health, FailureReason.SILENT, now)
    assert health.is_dead(KDC, since=sent_at)
    assert now <= sent_at + REACH_TIMEOUT


def test_endpoint_that_answered_no_probe_before_is_dead_after_one_more(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    probe(health, FailureReason.SILENT, 102.0)
    probe(health, FailureReason.SILENT, 104.0)
    sent_at = 160.0
    health.report(TARGET, FailureReason.SILENT, sent_at + 0.4)
    assert health.probes_due(sent_at + 0.4) == [TARGET]
    assert not health.is_dead(KDC, since=sent_at)
    probe(health, FailureReason.SILENT, sent_at + 0.4 + health.answer_seconds)
    assert health.is_dead(KDC, since=sent_at)


def test_endpoint_is_not_dead_after_one_unanswered_probe(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.4)
    probe(health, FailureReason.SILENT, 102.4)
    assert not health.is_dead(KDC, since=100.0)


def test_probes_from_before_the_message_do_not_show_that_the_endpoint_is_dead(health: HealthTable) -> None:
    now = 100.0
    health.report(TARGET, FailureReason.SILENT, now)
    for _ in range(2):
        now += health.answer_seconds
        probe(health, FailureReason.SILENT, now)
    assert not health.is_dead(KDC, since=now)
    # While a request waits, the next probe comes soon, even after long pauses.
    health.report(TARGET, FailureReason.SILENT, now + 60)
    assert health.probes_due(now + 60) == [TARGET]


def test_endpoint_that_answers_a_probe_is_not_dead(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    probe(health, FailureReason.SILENT, 102.0)
    probe(health, None, 102.1)
    health.report(TARGET, FailureReason.SILENT, 104.0)
    probe(health, FailureReason.SILENT, 106.0)
    assert not health.is_dead(KDC, since=99.0)


def test_endpoint_that_answers_probes_gets_one_per_second_however_many_requests_wait(
    health: HealthTable, noted: list[tuple[KdcEndpoint, KdcState]]
) -> None:
    probes = 0
    for tick in range(1000):
        now = 100.0 + tick / 100
        health.report(TARGET, FailureReason.SILENT, now)
        health.report(TARGET, FailureReason.CLOSED, now)
        for _ in health.probes_due(now):
            probes += 1
            probe(health, None, now)
    assert 5 <= probes <= 11
    assert len(noted) == 2


def test_endpoint_that_answers_no_probe_is_probed_steadily_while_a_request_waits() -> None:
    health = table()
    sent: list[float] = []
    for tick in range(1000):
        now = 100.0 + tick / 100
        health.report(TARGET, FailureReason.SILENT, now)
        if sent and now - sent[-1] >= health.answer_seconds:
            probe(health, FailureReason.SILENT, now)
        sent += [now for _ in health.probes_due(now)]
    assert len(sent) == 5


def test_udp_only_password_server_is_never_dead(health: HealthTable) -> None:
    target = ProbeTarget(endpoint=replace(KDC, transport=Transport.UDP), realm=None)
    health.report(target, FailureReason.SILENT, 100.0)
    assert health.probes_due(105.0) == []
    assert not health.is_dead(target.endpoint, since=99.0)


def test_process_whose_request_waits_probes_by_itself(health: HealthTable) -> None:
    health.apply_notice(HealthNotice(target=TARGET, state=KdcState.SUSPECT, probe_in=0.0), 100.0)
    health.report(TARGET, FailureReason.SILENT, 100.4)
    assert health.probes_due(100.4) == [TARGET]
    health.apply_notice(HealthNotice(target=TARGET, state=KdcState.HEALTHY), 100.5)
    assert not health.is_dead(KDC, since=100.0)


def test_successful_probe_or_request_makes_the_endpoint_healthy() -> None:
    for is_probe in (True, False):
        health = table()
        health.report(TARGET, FailureReason.REFUSED, 100.0)
        if is_probe:
            probe(health, None, 100.0)
        else:
            health.report(TARGET, None, 100.0)
        assert health.state(KDC) is KdcState.HEALTHY
        assert health.next_probe_at == NEVER


def test_late_probe_of_an_endpoint_that_recovered_changes_nothing(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    health.report(TARGET, None, 100.0)
    probe(health, FailureReason.SILENT, 101.0)
    assert health.state(KDC) is KdcState.HEALTHY


def test_processes_notify_each_other_that_udp_reaches_an_endpoint() -> None:
    noted: list[HealthNotice] = []
    target = replace(TARGET, endpoint=replace(KDC, transport=Transport.UDP))
    one, other = table(noted.append), table()
    for _ in range(3):
        one.report(target, None, 100.0)
    (notice,) = noted
    assert not other.facts.is_reachable(target.endpoint)
    other.apply_notice(notice, 100.0)
    assert one.facts.is_reachable(target.endpoint)
    assert other.facts.is_reachable(target.endpoint)
    assert not one.facts.is_reachable(KDC)


def test_version_grows_with_changes_only(health: HealthTable) -> None:
    versions = [health.version]
    for failure in (None, FailureReason.SILENT, FailureReason.SILENT, FailureReason.CLOSED, None, None):
        health.report(TARGET, failure, 100.0)
        versions.append(health.version)
    assert versions == [0, 0, 1, 1, 1, 2, 2]


def test_each_change_is_one_log_line_after_any_number_of_failures(
    health: HealthTable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(100):
        health.report(TARGET, FailureReason.SILENT, 100.0)
    probe(health, FailureReason.CONNECT_TIMEOUT, 101.0)
    probe(health, FailureReason.CONNECT_TIMEOUT, 103.0)
    health.report(TARGET, None, 110.0)
    lines = [(record.levelname, record.fields["state"]) for record in caplog.records]  # type: ignore[attr-defined]
    assert lines == [("WARNING", "suspect"), ("WARNING", "down"), ("INFO", "healthy")]


def test_table_is_bounded(health: HealthTable) -> None:
    for number in range(5000):
        endpoint = KdcEndpoint(name="x", address=f"x{number}", port=88, transport=Transport.TCP)
        health.report(ProbeTarget(endpoint=endpoint, realm="X"), FailureReason.REFUSED, 100.0)
    assert len(health.probes_due(1000.0)) == 4096


def test_each_change_is_noted_once(health: HealthTable, noted: list[tuple[KdcEndpoint, KdcState]]) -> None:
    for _ in range(2):
        health.report(TARGET, FailureReason.SILENT, 0.0)
    for _ in range(2):
        probe(health, FailureReason.REFUSED, 1.0)
    for _ in range(2):
        health.report(TARGET, None, 2.0)
    assert noted == [(KDC, KdcState.SUSPECT), (KDC, KdcState.DOWN), (KDC, KdcState.HEALTHY)]


def test_log_lines_of_changes_that_clients_can_cause_are_summed(
    health: HealthTable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    health.report(TARGET, FailureReason.CLOSED, 100.0)
    probe(health, None, 100.1)
    health.report(TARGET, FailureReason.REFUSED, 101.0)
    probe(health, None, 103.0)
    keys = [getattr(record, "sum_by", None) for record in caplog.records]
    assert keys == [("kdc_suspect", KDC), ("kdc_suspect", KDC), None, None]


def test_after_the_end_of_a_process_the_others_take_over_its_probes_one_by_one() -> None:
    def table_of_process(turn: int) -> HealthTable:
        table = HealthTable(
            turn=turn,
            probe_interval=2.0,
            probe_interval_maximum=10.0,
            reach_timeout=REACH_TIMEOUT,
            notify=lambda _notice: None,
            note_change=lambda *_change: None,
        )
        table.apply_notice(HealthNotice(target=TARGET, state=KdcState.DOWN, probe_in=1.0), 100.0)
        assert table.state(KDC) is KdcState.DOWN
        return table

    first, second = table_of_process(3), table_of_process(4)
    assert first.next_probe_at > 101.0
    assert second.next_probe_at == first.next_probe_at + 2.0
    assert first.probes_due(first.next_probe_at) == [TARGET]
    second.apply_notice(HealthNotice(target=TARGET, state=KdcState.HEALTHY), 120.0)
    assert second.next_probe_at == NEVER


def test_table_shows_whether_any_endpoint_is_unhealthy(health: HealthTable) -> None:
    assert not health.has_unhealthy
    health.report(TARGET, FailureReason.SILENT, 100.0)
    assert health.has_unhealthy
    health.report(TARGET, None, 101.0)
    assert not health.has_unhealthy
    health.apply_notice(HealthNotice(target=TARGET, state=KdcState.DOWN), 102.0)
    assert health.has_unhealthy
    health.apply_notice(HealthNotice(target=TARGET, state=KdcState.HEALTHY), 103.0)
    assert not health.has_unhealthy


def _of_branch(number: int, branch: str = "evil.example.com") -> ProbeTarget:
    address = f"198.51.{number // 256}.{number % 256}"
    return ProbeTarget(endpoint=replace(KDC, address=address, branch=branch), realm="X.EVIL.EXAMPLE.COM")


def test_endpoints_of_one_branch_displace_no_other_endpoint(health: HealthTable) -> None:
    for number in range(5000):
        health.report(_of_branch(number), FailureReason.CONNECT_TIMEOUT, 100.0)
    other = _of_branch(6000, "good.example.com")
    for target in (TARGET, other):
        health.report(target, FailureReason.SILENT, 100.0)
        assert health.state(target.endpoint) is KdcState.SUSPECT
    assert len(health.probes_due(110.0)) == MAX_OF_BRANCH + 2


def test_endpoints_of_all_branches_are_bounded_and_the_largest_branch_yields(health: HealthTable) -> None:
    for number in range(5000):
        health.report(_of_branch(number, f"evil-{number % 100}"), FailureReason.CONNECT_TIMEOUT, 100.0)
    assert len(health.probes_due(110.0)) == MAX_OF_BRANCHES
    health.report(TARGET, FailureReason.SILENT, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT


def test_endpoint_that_no_request_may_go_to_is_forgotten(
    health: HealthTable, noted: list[tuple[KdcEndpoint, KdcState]]
) -> None:
    health.report(TARGET, FailureReason.REFUSED, 100.0)
    now, probes = 100.0, 0
    while health.next_probe_at != NEVER:
        now = health.next_probe_at
        for target in health.probes_due(now):
            probes += 1
            health.probed(target, FailureReason.REFUSED, now, sent_at=now)
    assert FORGET_SECONDS <= now - 100.0 < FORGET_SECONDS + 20.0
    assert probes > 50
    assert health.state(KDC) is KdcState.HEALTHY
    assert noted[-1] == (KDC, KdcState.HEALTHY)


def test_endpoint_that_requests_may_go_to_is_still_probed(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.REFUSED, 100.0)
    now = 100.0
    while now < 100.0 + 5 * FORGET_SECONDS:
        now = health.next_probe_at
        version = health.version
        for target in health.probes_due(now):
            health.probed(target, FailureReason.REFUSED, now, sent_at=now)
        # Orders of candidates are worked out anew, and that asks for its state.
        assert health.version > version
        assert health.state(KDC) is KdcState.DOWN


PROXY = ProbeTarget(endpoint=replace(KDC, transport=Transport.HTTPS, path="/KdcProxy"), realm="EXAMPLE.COM")


def test_endpoint_that_wants_a_rest_stays_suspect_and_unprobed_until_its_end(health: HealthTable) -> None:
    health.report(PROXY, FailureReason.PROXY_UNAVAILABLE, 100.0, retry_after=30.0)
    assert health.state(PROXY.endpoint) is KdcState.SUSPECT
    assert health.probes_due(129.9) == []
    # The reply to an earlier request, and the answer to a probe that was under way.
    health.report(PROXY, None, 101.0)
    health.probed(PROXY, None, 102.0, sent_at=99.0)
    assert health.state(PROXY.endpoint) is KdcState.SUSPECT
    assert health.probes_due(130.0) == [PROXY]
    health.probed(PROXY, None, 130.1, sent_at=130.0)
    assert health.state(PROXY.endpoint) is KdcState.HEALTHY


def test_reply_after_the_rest_shows_that_the_endpoint_is_healthy(health: HealthTable) -> None:
    health.report(PROXY, FailureReason.PROXY_RATE_LIMITED, 100.0, retry_after=30.0)
    health.report(PROXY, None, 130.0)
    assert health.state(PROXY.endpoint) is KdcState.HEALTHY


def test_rest_has_a_limit(health: HealthTable) -> None:
    health.report(PROXY, FailureReason.PROXY_UNAVAILABLE, 100.0, retry_after=1e12)
    assert health.next_probe_at == 100.0 + MAX_REST_SECONDS


def test_request_that_waits_does_not_end_the_rest(health: HealthTable) -> None:
    health.report(PROXY, FailureReason.PROXY_UNAVAILABLE, 100.0, retry_after=30.0)
    health.report(PROXY, FailureReason.SILENT, 101.0)
    assert health.probes_due(129.9) == []


def test_rest_does_not_make_an_endpoint_that_is_down_suspect(health: HealthTable) -> None:
    health.report(PROXY, FailureReason.REFUSED, 100.0)
    health.report(PROXY, FailureReason.PROXY_UNAVAILABLE, 101.0, retry_after=30.0)
    assert health.state(PROXY.endpoint) is KdcState.DOWN


def test_rest_of_a_healthy_endpoint_under_steady_probes_makes_it_suspect(health: HealthTable) -> None:
    health.probed(PROXY, None, 100.0, sent_at=100.0)
    health.report(PROXY, FailureReason.SILENT, 100.1)
    assert health.state(PROXY.endpoint) is KdcState.HEALTHY
    health.report(PROXY, FailureReason.PROXY_UNAVAILABLE, 100.2, retry_after=30.0)
    assert health.state(PROXY.endpoint) is KdcState.SUSPECT
