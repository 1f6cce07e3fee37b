"""The health table, with a clock of its own."""

import logging

import pytest

from kkdcpd.upstream.health import FAILS_TO_CONNECT, HealthNotice, HealthTable, ProbeTarget
from kkdcpd.values import FailureReason, KdcEndpoint, KdcState, Transport

KDC = KdcEndpoint(name="kdc1.example.com", address="192.0.2.1", port=88, transport=Transport.TCP)
TARGET = ProbeTarget(endpoint=KDC, realm="EXAMPLE.COM")
PASSWORD_SERVER = ProbeTarget(endpoint=KDC, realm=None)
NEVER = float("inf")


@pytest.fixture
def told() -> list[tuple[KdcEndpoint, KdcState]]:
    """What the table tells of changes."""
    return []


@pytest.fixture
def health(told: list[tuple[KdcEndpoint, KdcState]]) -> HealthTable:
    return HealthTable(
        turn=0,
        probe_interval=2.0,
        probe_interval_maximum=10.0,
        tell=lambda _notice: None,
        note=lambda *change: told.append(change),
    )


def test_endpoint_of_which_nothing_is_known_is_well(health: HealthTable) -> None:
    assert health.state(KDC) is KdcState.WELL
    assert health.next_probe_at == NEVER


def test_silent_endpoint_is_suspect_and_probed_at_once(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT
    assert health.probes_due(100.0) == [TARGET]


def test_endpoint_that_is_slow_to_connect_is_suspect_too(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SLOW_TO_CONNECT, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT


@pytest.mark.parametrize("failure", [FailureReason.SILENT, FailureReason.CLOSED, FailureReason.BAD_REPLY])
def test_password_server_that_fails_once_connected_keeps_its_place_at_the_end(
    health: HealthTable, failure: FailureReason
) -> None:
    """Its probe is a connect, which could only say that it is well."""
    health.report(PASSWORD_SERVER, failure, 100.0)
    assert health.next_probe_at == 110.0


@pytest.mark.parametrize(
    ("failure", "probe_at"), [(FailureReason.SLOW_TO_CONNECT, 100.0), (FailureReason.REFUSED, 102.0)]
)
def test_password_server_that_is_out_of_reach_is_probed_like_any_other(
    health: HealthTable, failure: FailureReason, probe_at: float
) -> None:
    health.report(PASSWORD_SERVER, failure, 100.0)
    assert health.next_probe_at == probe_at


@pytest.mark.parametrize("failure", [reason for reason in FailureReason if reason not in FAILS_TO_CONNECT])
def test_endpoint_that_fails_otherwise_may_have_been_made_to_and_is_probed_at_once(
    health: HealthTable, failure: FailureReason
) -> None:
    """Who sends what makes a KDC close must not take it from everybody for long."""
    health.report(TARGET, failure, 100.0)
    assert health.state(KDC) is KdcState.SUSPECT
    assert health.probes_due(100.0) == [TARGET]


@pytest.mark.parametrize("failure", FAILS_TO_CONNECT)
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


def test_probe_that_fails_comes_again_at_growing_intervals(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    now, pauses = 100.0, []
    for _ in range(5):
        health.probes_due(now)
        health.probed(TARGET, FailureReason.SILENT, now)
        pauses.append(health.next_probe_at - now)
        now = health.next_probe_at
    assert pauses == [2.0, 4.0, 8.0, 10.0, 10.0]
    assert health.state(KDC) is KdcState.DOWN


def test_probe_or_request_that_succeeds_makes_it_well(health: HealthTable) -> None:
    for recover in (health.probed, health.report):
        health.report(TARGET, FailureReason.REFUSED, 100.0)
        recover(TARGET, None, 100.0)
        assert health.state(KDC) is KdcState.WELL
        assert health.next_probe_at == NEVER


def test_late_probe_of_an_endpoint_that_recovered_changes_nothing(health: HealthTable) -> None:
    health.report(TARGET, FailureReason.SILENT, 100.0)
    health.report(TARGET, None, 100.0)
    health.probed(TARGET, FailureReason.SILENT, 101.0)
    assert health.state(KDC) is KdcState.WELL


def test_version_grows_with_changes_only(health: HealthTable) -> None:
    versions = [health.version]
    for failure in (None, FailureReason.SILENT, FailureReason.SILENT, FailureReason.REFUSED, None, None):
        health.report(TARGET, failure, 100.0)
        versions.append(health.version)
    assert versions == [0, 0, 1, 1, 1, 2, 2]


def test_each_change_is_one_log_line_however_often_it_fails(
    health: HealthTable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(100):
        health.report(TARGET, FailureReason.SILENT, 100.0)
    health.probed(TARGET, FailureReason.CONNECT_TIMEOUT, 101.0)
    health.probed(TARGET, FailureReason.CONNECT_TIMEOUT, 103.0)
    health.report(TARGET, None, 110.0)
    lines = [(record.levelname, record.fields["state"]) for record in caplog.records]  # type: ignore[attr-defined]
    assert lines == [("WARNING", "suspect"), ("WARNING", "down"), ("INFO", "well")]


def test_table_is_bounded(health: HealthTable) -> None:
    for number in range(5000):
        endpoint = KdcEndpoint(name="x", address=f"x{number}", port=88, transport=Transport.TCP)
        health.report(ProbeTarget(endpoint=endpoint, realm="X"), FailureReason.REFUSED, 100.0)
    assert len(health.probes_due(1000.0)) == 4096


def test_each_change_is_told_once(health: HealthTable, told: list[tuple[KdcEndpoint, KdcState]]) -> None:
    for _ in range(2):
        health.report(TARGET, FailureReason.SILENT, 0.0)
    for _ in range(2):
        health.probed(TARGET, FailureReason.SILENT, 1.0)
    for _ in range(2):
        health.report(TARGET, None, 2.0)
    assert told == [(KDC, KdcState.SUSPECT), (KDC, KdcState.DOWN), (KDC, KdcState.WELL)]


def test_what_strangers_can_bring_about_is_summed(
    health: HealthTable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    health.report(TARGET, FailureReason.CLOSED, 100.0)
    health.probed(TARGET, None, 100.1)
    health.report(TARGET, FailureReason.REFUSED, 101.0)
    health.probed(TARGET, None, 103.0)
    keys = [getattr(record, "repeats", None) for record in caplog.records]
    assert keys == [("kdc_suspect", KDC), ("kdc_suspect", KDC), None, None]


def test_processes_do_the_probes_of_one_that_ended_one_after_the_other() -> None:
    def hears(turn: int) -> HealthTable:
        table = HealthTable(
            turn=turn,
            probe_interval=2.0,
            probe_interval_maximum=10.0,
            tell=lambda _notice: None,
            note=lambda *_change: None,
        )
        table.heard(HealthNotice(target=TARGET, state=KdcState.DOWN, probe_in=1.0), 100.0)
        assert table.state(KDC) is KdcState.DOWN
        return table

    first, second = hears(3), hears(4)
    assert first.next_probe_at > 101.0
    assert second.next_probe_at == first.next_probe_at + 2.0
    assert first.probes_due(first.next_probe_at) == [TARGET]
    second.heard(HealthNotice(target=TARGET, state=KdcState.WELL), 120.0)
    assert second.next_probe_at == NEVER


def test_it_is_known_at_a_glance_whether_anybody_is_in_trouble(health: HealthTable) -> None:
    assert not health.has_troubles
    health.report(TARGET, FailureReason.SILENT, 100.0)
    assert health.has_troubles
    health.report(TARGET, None, 101.0)
    assert not health.has_troubles
    health.heard(HealthNotice(target=TARGET, state=KdcState.DOWN), 102.0)
    assert health.has_troubles
    health.heard(HealthNotice(target=TARGET, state=KdcState.WELL), 103.0)
    assert not health.has_troubles
