"""The check before the tests: it passes here, and says what is missing elsewhere."""

import os
import re
import sys
from pathlib import Path

import pytest

from lab.program import Completed, run
from tests import preflight
from tests.deploy.conftest import REPOSITORY
from tests.support.processes import group_of


def check(*around: str) -> Completed:
    """Run it as `make test` does, within another program."""
    inside = f"cd {REPOSITORY} && exec {sys.executable} -m tests.preflight"
    return run(*around, "sh", "-c", inside, environment=os.environ)


def test_what_runs_these_tests_passes() -> None:
    assert re.fullmatch(
        r"make test: this (takes|took) .* minutes on 2 idle cores.*\n", check("env").expect_ok().output
    )


def test_user_without_root_is_told_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert list(preflight.problems()) == [
        "the tests make network and mount namespaces, which takes root: sudo make test"
    ]


def test_missing_cgroups_are_told_with_what_needs_them() -> None:
    hidden = check("unshare", "--mount", "sh", "-c", 'umount -R /sys/fs/cgroup && exec "$@"', "sh")
    assert hidden.exit_code == 1
    assert "needs a /sys/fs/cgroup that may be written to" in hidden.output
    assert "what runs without root" in hidden.output


def test_last_run_s_time_is_told(tmp_path: Path) -> None:
    last = tmp_path / "seconds"
    last.write_text("421")
    assert "this took 7 min 1 s here last time" in preflight.estimate(last)


def test_modules_stay_whole_and_what_shares_a_base_stays_together() -> None:
    assert group_of("tests/guard/test_rates.py::test_a[x::y]") == "tests/guard/test_rates.py"
    assert group_of("tests/deploy/test_units.py::test_a") == group_of("tests/deploy/test_debian.py::test_b")
