"""No client gets the late reply to another client's request."""

from pathlib import Path

from bench.attack import late_replies


def test_late_replies_reach_no_other_client(tmp_path: Path) -> None:
    outcome = late_replies.attack(tmp_path, exchanges=2_000, ports=200, seconds=8)
    assert outcome.own > 100
    assert outcome.left > 20
    assert outcome.others == 0
