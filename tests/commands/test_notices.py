"""The formats in which `serve` and `reload` print their results."""

import json
from pathlib import Path

import pytest

from kkdcpd.commands.notices import notices_for


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_plain_text_puts_problems_on_standard_error(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    notices = notices_for(path)
    notices.reloaded(2)
    notices.reload_failed("it is broken")
    notices.nothing_changed(1)
    assert capfd.readouterr() == (
        "reloaded: generation 2 serves\n",
        "error: it is broken\nnothing has changed: generation 1 serves on\n",
    )


def test_json_lines_have_the_form_of_the_log(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path.write_text('[log]\nformat = "json"\n')
    notices = notices_for(path)
    notices.reloaded(2)
    notices.reload_failed('it is "broken"')
    notices.nothing_changed(1)
    result, problem = map(json.loads, capfd.readouterr())
    assert (result["event"], result["level"], result["generation"]) == ("reloaded", "info", 2)
    assert (problem["event"], problem["level"]) == ("reload_failed", "error")
    assert problem["problem"] == 'it is "broken"'


@pytest.mark.parametrize("log", ["", '[log]\nformat = "json"\n'])
def test_failed_start_is_reported_on_standard_error(
    path: Path, capfd: pytest.CaptureFixture[str], log: str
) -> None:
    path.write_text(log)
    notices_for(path).start_failed("it is broken")
    output, errors = capfd.readouterr()
    assert not output
    assert "it is broken" in errors
