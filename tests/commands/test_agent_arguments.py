"""The arguments of `kkdcpd agent`, as the command line shows them."""

import subprocess
import sys

import pytest

from kkdcpd.cli import main


def test_help_lists_every_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["agent", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for argument in ("URL", "--realm", "--entra", "--listen", "--socket", "--write-krb5-conf"):
        assert argument in shown


def test_arguments_are_declared_without_the_rest_of_kkdcpd() -> None:
    """The help of all commands needs them."""
    code = "import sys, kkdcpd.commands.agent_arguments; print(*(m for m in sys.modules if 'kkdcpd' in m))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert set(shown.split()) == {"kkdcpd", "kkdcpd.commands", "kkdcpd.commands.agent_arguments"}
