import getpass
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kkdcpd
from kkdcpd.cli import ExitCode, main
from lab.authority import Authority
from lab.program import Completed, run

REALM = """
[realms."EXAMPLE.COM"]
kdc = ["kdc.example.com"]
"""
KPASSWD = 'kpasswd = ["kdc.example.com"]\n'
PLAIN = '[[listen]]\naddress = "127.0.0.1:0"\ntls = false\n'


@pytest.fixture(autouse=True)
def _no_config_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KKDCPD_CONFIG", raising=False)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a configuration and return its path."""

    def write(text: str, name: str = "config.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def kkdcpd_process(*arguments: str, **environment: str) -> Completed:
    return run(sys.executable, "-m", "kkdcpd", *arguments, environment={**os.environ, **environment})


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"kkdcpd {kkdcpd.__version__}\n"


def test_version_is_printed_without_imports_of_the_service() -> None:
    code = (
        "import sys; from kkdcpd.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: print(sorted(name for name in sys.modules if name.startswith('kkdcpd')))"
    )
    assert run(sys.executable, "-c", code, environment=os.environ).output.splitlines()[-1] == str(
        ["kkdcpd", "kkdcpd.cli", "kkdcpd.commands", "kkdcpd.commands.agent_arguments"]
    )


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_names_commands_options_and_exit_codes(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(arguments)
    text = capsys.readouterr().out
    for word in ("serve", "check", "--config", "--version", "KKDCPD_CONFIG", "/etc/kkdcpd/config.toml"):
        assert word in text
    codes = [int(code) for code in re.findall(r"^  (\d+) ", text, re.MULTILINE)]
    assert codes == list(ExitCode)


@pytest.mark.parametrize("command", ["serve", "check"])
def test_each_command_has_its_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert "--config FILE" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["dance"], ["--dance"], ["check", "more"], ["--config"]])
def test_wrong_command_line_is_exit_code_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: kkdcpd" in capsys.readouterr().err


def test_check_finds_a_good_configuration_good(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(PLAIN + REALM + KPASSWD)
    assert main(["check", "--config", str(path)]) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.out == (
        f"{path}: valid; realms: EXAMPLE.COM\nthe files were read as {getpass.getuser()}\n"
    )
    assert not captured.err


def test_check_prints_warnings(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(write(PLAIN + REALM))]) == ExitCode.OK
    captured = capsys.readouterr()
    assert captured.err.startswith('warning: realms."EXAMPLE.COM".kpasswd: is missing, ')
    assert captured.err.count("\n") == 1
    assert ": valid;" in captured.out


@pytest.mark.parametrize("arguments", [["check"], ["serve"], []])
def test_every_problem_of_a_configuration_is_a_line(
    write: Write, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    path = write("http.colour = 1\nhttp.body_timeout = -1\n" + PLAIN + REALM)
    assert main(["--config", str(path), *arguments]) == ExitCode.CONFIG
    captured = capsys.readouterr()
    assert not captured.out
    lines = [line for line in captured.err.splitlines() if not line.startswith("the files were read as ")]
    assert len(lines) == 2
    assert all(line.startswith("error: http.") for line in lines)


def test_missing_configuration_is_exit_code_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "none.toml"
    assert main(["check", "--config", str(path)]) == 78
    assert f"error: {path}: there is no such file; " in capsys.readouterr().err


def test_check_looks_at_certificates(
    write: Write, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = authority.issue("localhost", file_name="expired", is_expired=True)
    tls = f'[tls]\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
    main(["check", "--config", str(write(tls + REALM + KPASSWD))])
    assert "tls.certificate: " in capsys.readouterr().err


@pytest.mark.parametrize("position", ["before", "after"])
def test_config_option_stands_on_either_side_of_the_command(
    write: Write, capsys: pytest.CaptureFixture[str], position: str
) -> None:
    option = ["--config", str(write(PLAIN + REALM + KPASSWD))]
    assert main([*option, "check"] if position == "before" else ["check", *option]) == ExitCode.OK
    assert capsys.readouterr().out


def test_environment_names_the_configuration(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(PLAIN + REALM + KPASSWD)
    monkeypatch.setenv("KKDCPD_CONFIG", str(path))
    assert main(["check"]) == ExitCode.OK
    assert str(path) in capsys.readouterr().out


def test_option_is_stronger_than_the_environment(
    write: Write, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KKDCPD_CONFIG", str(write("", name="bad.toml")))
    good = write(PLAIN + REALM + KPASSWD)
    assert main(["check", "--config", str(good)]) == ExitCode.OK
    assert str(good) in capsys.readouterr().out


def test_empty_environment_variable_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KKDCPD_CONFIG", "")
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out


def test_process_ends_with_the_exit_code(tmp_path: Path) -> None:
    done = kkdcpd_process("check", KKDCPD_CONFIG=str(tmp_path / "none.toml"))
    assert (done.exit_code, done.output.count("error: ")) == (78, 1)


def test_serve_may_be_started_again_where_a_file_is_missing(tmp_path: Path, write: Write) -> None:
    """A file system that is mounted later, or a certificate that is fetched after the first start."""
    text = f'[tls]\ncertificate = "none.pem"\nkey = "none.key"\n{REALM}{KPASSWD}'
    path = str(write(text))
    assert kkdcpd_process("serve", "--config", path).exit_code == 66
    assert kkdcpd_process("check", "--config", path).exit_code == 78
    write(f'{text}\n[log]\nlevel = "loud"\n')
    assert kkdcpd_process("serve", "--config", path).exit_code == 78
    (tmp_path / "none.pem").write_text("no certificate")
    write(text)
    assert kkdcpd_process("serve", "--config", path).exit_code == 78


def test_process_without_arguments_serves(tmp_path: Path) -> None:
    done = kkdcpd_process(KKDCPD_CONFIG=str(tmp_path / "none.toml"))
    assert done.exit_code == 78


def test_process_prints_its_version() -> None:
    assert kkdcpd_process("--version").expect_ok().output == f"kkdcpd {kkdcpd.__version__}\n"


def test_address_that_cannot_be_opened_is_exit_code_1(write: Write) -> None:
    no_control = '[process]\ncontrol = ""\n'
    path = write(PLAIN.replace("127.0.0.1:0", "unix:/nowhere/http.sock") + REALM + KPASSWD + no_control)
    done = kkdcpd_process("--config", str(path))
    assert done.exit_code == 1
    assert done.output == (
        "error: can't listen on unix:/nowhere/http.sock: No such file or directory; "
        "create the folder of the socket, or choose another path\n"
    )


JSON_LOG = '[log]\nformat = "json"\n'


def json_lines(done: Completed) -> list[dict[str, str]]:
    return [json.loads(line) for line in done.output.splitlines()]


def test_where_the_log_is_json_fatal_errors_of_the_configuration_are_json(write: Write) -> None:
    path = write(JSON_LOG + "colour = 1\n[http]\nbody_timeout = -1\n" + PLAIN + REALM)
    done = kkdcpd_process("--config", str(path))
    assert done.exit_code == 78
    lines = json_lines(done)
    assert {(line["event"], line["level"]) for line in lines} == {("start_failed", "error")}
    assert {line["key"] for line in lines} == {"http.body_timeout", "log.colour"}
    assert all(line["remedy"] for line in lines)


def test_where_the_log_is_json_other_fatal_errors_are_json_too(write: Write) -> None:
    no_control = '[process]\ncontrol = ""\n[admin]\naddress = ""\n'
    listen = PLAIN.replace("127.0.0.1:0", "unix:/nowhere/http.sock")
    done = kkdcpd_process("--config", str(write(JSON_LOG + listen + REALM + KPASSWD + no_control)))
    assert done.exit_code == 1
    (line,) = json_lines(done)
    assert line["event"] == "start_failed"
    assert "can't listen on unix:/nowhere/http.sock" in line["problem"]


@pytest.mark.parametrize(
    "text", [JSON_LOG + "[log]\n", "[log]\nformat = 1\n", 'log = "json"\n', "[log\n", ""], ids=repr
)
def test_where_the_format_cannot_be_read_errors_are_plain_text(write: Write, text: str) -> None:
    done = kkdcpd_process("--config", str(write(text)))
    assert done.exit_code == 78
    assert all(line.startswith("error: ") for line in done.output.splitlines())


def test_check_prints_plain_text_with_every_log_format(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--config", str(write(JSON_LOG + "colour = 1\n" + PLAIN + REALM))]) == 78
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("error: log.colour: ")
    assert last.startswith("the files were read as ")
