"""The man pages agree with their sources, have a valid form, and are complete."""

import os
import re
from pathlib import Path

import pytest

from deploy import manpages
from kkdcpd.cli import ExitCode
from lab.program import run
from tests.config.test_example import ALL_KINDS
from tests.deploy.conftest import REPOSITORY

PAGES = {"kkdcpd.8": manpages.kkdcpd_8, "kkdcpd.toml.5": manpages.kkdcpd_toml_5}
FOLDER = REPOSITORY / "docs/man"


def shown(name: str) -> str:
    """Return a page as plain text, with one space between words."""
    page = str(FOLDER / name)
    text = run("mandoc", "-Tutf8", page, environment=os.environ).expect_ok().output
    return " ".join(re.sub(".\b", "", text).split())


@pytest.mark.parametrize("name", PAGES)
def test_page_is_as_its_sources_say(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "say: make man"


@pytest.mark.parametrize("name", PAGES)
def test_page_has_no_fault_of_form(name: str) -> None:
    found = run("mandoc", "-Tlint", "-Wstyle", str(FOLDER / name), environment=os.environ).output.splitlines()
    # A page with a date would change each day.
    assert [line for line in found if "missing date" not in line] == []


def test_pages_are_written_into_the_given_folder(tmp_path: Path) -> None:
    assert manpages.main([str(tmp_path / "man")]) == 0
    assert sorted(path.name for path in (tmp_path / "man").iterdir()) == sorted(PAGES)


@pytest.mark.parametrize("key", sorted({key for key, _kind in ALL_KINDS}))
def test_every_setting_is_in_the_page(key: str) -> None:
    assert re.search(rf"\b{key} = ", shown("kkdcpd.toml.5"))


def test_every_command_is_in_the_page() -> None:
    text = shown("kkdcpd.8")
    for command in ("serve", "check", "reload", "healthcheck", "locate"):
        assert f"kkdcpd {command} [--config FILE]" in text


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_in_the_page(code: ExitCode) -> None:
    status = shown("kkdcpd.8").partition("EXIT STATUS")[2]
    assert re.search(rf"\b{code.value} [A-Z]", status)


def test_text_of_operations_is_in_the_page() -> None:
    text = shown("kkdcpd.8")
    for word in ("SIGTERM, SIGINT", "SIGHUP", "/run/kkdcpd/control.sock", "KKDCPD_CONFIG"):
        assert word in text
