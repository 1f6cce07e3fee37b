"""Local ports do not run out at the highest rate of requests that the limits allow."""

from pathlib import Path

from bench.attack import source_ports


def test_ports_of_answered_requests_are_free_at_once(tmp_path: Path) -> None:
    outcome = source_ports.attack(tmp_path, seconds=8, ports=150, rate=100)
    assert outcome.sent > 300
    assert outcome.honest.statuses.total() > 10
    assert set(outcome.honest.statuses) == {200}
    assert outcome.complaints == ()
