"""The check before the tests passes on this machine, and names what another machine lacks."""

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
    """Run the check as `make test` does, as the child of another program."""
    inside = f"cd {REPOSITORY} && exec {sys.executable} -m tests.preflight"
    return run(*around, "sh", "-c", inside, environment=os.environ)


def test_machine_that_runs_these_tests_passes() -> None:
    assert re.fullmatch(
        r"make test: this (takes|took) .* minutes on 2 idle cores.*\n", check("env").expect_ok().output
    )


def test_user_without_root_gets_an_error_before_any_test_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 65534)
    assert list(preflight.problems()) == [
        "the tests make network and mount namespaces, which only root can do: run sudo make test"
    ]


def test_error_of_missing_cgroups_names_the_tests_that_need_them() -> None:
    hidden = check("unshare", "--mount", "sh", "-c", 'umount -R /sys/fs/cgroup && exec "$@"', "sh")
    assert hidden.exit_code == 1
    assert "needs a writable /sys/fs/cgroup" in hidden.output
    assert "these tests run without root" in hidden.output


def test_estimate_is_the_time_of_the_last_run(tmp_path: Path) -> None:
    last = tmp_path / "seconds"
    last.write_text("421")
    assert "this took 7 min 1 s here last time" in preflight.estimate(last)


def test_modules_with_shared_fixtures_stay_in_one_process() -> None:
    assert group_of("tests/guard/test_rates.py::test_a[x::y]") == "tests/guard/test_rates.py"
    assert group_of("tests/deploy/test_units.py::test_a") == group_of("tests/deploy/test_debian.py::test_b")
    assert group_of("tests/interop/test_samba.py::test_a") == "samba"
