"""`kkdcpd locate`, with a real DNS server and something that listens."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.cli import ExitCode, main
from kkdcpd.commands.locate import parse_hint
from kkdcpd.values import DcLocatorFlags
from lab.dns import KnotServer
from lab.ports import free_port


@pytest.fixture
def port() -> Iterator[int]:
    """Where a KDC accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def config(tmp_path: Path, port: int) -> Iterator[Path]:
    zone = f"""
        _kerberos._tcp SRV 10 5 {port} kdc1
        _kerberos._udp SRV 10 5 {port} kdc1
        _kerberos._tcp SRV 20 5 {free_port(("127.0.0.2",))} kdc2
        _kerberos._tcp SRV 20 5 22 kdc1
        _kpasswd._tcp SRV 0 0 0 .
        kdc1 A 127.0.0.1
        kdc2 A 127.0.0.2
        kdc1 A 192.0.2.1
    """
    with KnotServer(tmp_path / "knot", {"kk.test": zone}, ttl=600) as knot:
        ports = sorted({port, *map(int, re.findall(r"SRV 20 5 (\d{3,})", zone))})
        file = tmp_path / "config.toml"
        file.write_text(
            f"""
            [[listen]]
            address = "127.0.0.1:0"
            tls = false
            [locate]
            nameservers = ["{knot.endpoint}"]
            allowed_networks = ["127.0.0.0/8"]
            allowed_ports = {ports}
            [realms."KK.TEST"]
            aliases = ["KK"]
            [realms."LISTED.TEST"]
            kdc = ["tcp://127.0.0.1:{port}"]
            primary_kdc = ["127.0.0.1:{port}"]
            """
        )
        yield file


def _run(config: Path, *arguments: str) -> int:
    return main(["locate", "--config", str(config), *arguments])


def test_candidates_are_shown_with_their_origin_and_whether_they_answer(
    config: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(config, "kk") == ExitCode.OK
    output, errors = capsys.readouterr()
    head, *lines = output.splitlines()
    assert head.split("  ")[0] == ""
    assert re.split(r"\s{2,}", head.strip()) == [
        "ENDPOINT",
        "ADDRESS",
        "PRIORITY",
        "WEIGHT",
        "TTL",
        "ANSWERS",
        "FOUND IN",
    ]
    rows = [re.split(r"\s{2,}", line) for line in lines]
    first, second, third = rows[:3]
    assert first[:5] == ["1", f"tcp://kdc1.kk.test:{port}", "127.0.0.1", "10", "5"]
    assert re.fullmatch(r"(600|599) s", first[5])
    assert re.fullmatch(r"in \d+\.\d ms", first[6])
    assert first[7] == "SRV _kerberos._tcp.kk.test"
    assert second[2] == "127.0.0.2"
    assert second[6] == "no: refused"
    assert third[1] == f"udp://kdc1.kk.test:{port}*"
    assert third[6] == "not tried"
    assert "* asked only when nobody else is left" in lines
    assert "port 22 is not in locate.allowed_ports" in output
    assert "192.0.2.1 is outside locate.allowed_networks" in output
    assert errors == ""


def test_nobody_found_is_an_exit_code_of_its_own(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config, "KK.TEST", "--kpasswd") == ExitCode.NOBODY_FOUND.value == 3
    assert "the domain says that it has no such service" in capsys.readouterr().err
    assert _run(config, "OTHER.TEST") == ExitCode.NOBODY_FOUND
    assert "error: OTHER.TEST: neither in [realms]" in capsys.readouterr().err


def test_a_hint_changes_who_is_asked(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config, "LISTED.TEST") == ExitCode.OK
    output = capsys.readouterr().out
    assert "udp://" not in output
    assert re.search(r" -  .*configuration$", output, re.MULTILINE)
    for hint in ("pdc", "0x80", "writable,128"):
        assert _run(config, "LISTED.TEST", "--hint", hint) == ExitCode.OK
        assert "udp://" in capsys.readouterr().out


def test_a_hint_is_words_and_numbers() -> None:
    assert parse_hint("0") == 0
    assert parse_hint("PDC,flat,0x200") == DcLocatorFlags(0x10280)
    assert parse_hint("-2147483648") == DcLocatorFlags(0x80000000)


def test_a_hint_that_is_neither_is_a_usage_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(config, "KK.TEST", "--hint", "primary")
    assert ended.value.code == ExitCode.USAGE
    assert "none of pdc, writable, force" in capsys.readouterr().err
