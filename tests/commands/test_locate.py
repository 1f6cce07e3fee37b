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
from lab.realm import MitRealm


@pytest.fixture
def port() -> Iterator[int]:
    """The port of a KDC that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    return free_port(("127.0.0.1", "127.0.0.2"))


@pytest.fixture
def config(tmp_path: Path, port: int, closed_port: int) -> Iterator[Path]:
    zone = f"""
        _kerberos._tcp SRV 10 5 {port} kdc1
        _kerberos._udp SRV 10 5 {port} kdc1
        _kerberos._tcp SRV 20 5 {closed_port} kdc2
        _kerberos._tcp SRV 20 5 22 kdc1
        _kpasswd._tcp SRV 0 0 0 .
        kdc1 A 127.0.0.1
        kdc2 A 127.0.0.2
        kdc1 A 192.0.2.1
    """
    with KnotServer(tmp_path / "knot", {"kk.test": zone}, ttl=600) as knot:
        file = tmp_path / "config.toml"
        file.write_text(
            f"""
            [[listen]]
            address = "127.0.0.1:0"
            tls = false
            [locate]
            nameservers = ["{knot.endpoint}"]
            allowed_networks = ["127.0.0.0/8"]
            allowed_ports = [{port}, {closed_port}]
            [realms."KK.TEST"]
            aliases = ["KK"]
            [realms."LISTED.TEST"]
            kdc = ["tcp://127.0.0.1:{port}"]
            primary_kdc = ["127.0.0.1:{port}"]
            [realms."DOWN.TEST"]
            kdc = ["127.0.0.1:{closed_port}", "127.0.0.2:{closed_port}"]
            kpasswd = ["tcp://127.0.0.1:{port}"]
            [realms."FROZEN.TEST"]
            kdc = ["tcp://127.0.0.1:{port}"]
            kpasswd = ["127.0.0.1:{closed_port}"]
            [realms."ZONED.TEST"]
            kdc = ["[fe80::77%absent0]"]
            [realms."OUTSIDE.TEST"]
            """
        )
        yield file


def _run(config: Path, *arguments: str) -> int:
    return main(["locate", "--config", str(config), *arguments])


def _rows(output: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]


def test_candidates_are_shown_with_their_origin_and_whether_they_answer(
    config: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(config, "kk") == ExitCode.OK
    output, errors = capsys.readouterr()
    title, head, first, second, third, *rest = _rows(output)
    assert title == ["KDCs:"]
    assert head == ["ENDPOINT", "ADDRESS", "PRIORITY", "WEIGHT", "TTL", "ANSWERS", "FOUND IN"]
    assert first[:5] == ["1", f"tcp://kdc1.kk.test:{port}", "127.0.0.1", "10", "5"]
    assert re.fullmatch(r"(600|599) s", first[5])
    assert re.fullmatch(r"in \d+\.\d ms", first[6])
    assert first[7] == "SRV _kerberos._tcp.kk.test"
    assert second[2] == "127.0.0.2"
    assert second[6] == "no: refused"
    assert third[1] == f"udp://kdc1.kk.test:{port}*"
    assert third[6] == "no: refused"
    assert ["* asked only when no other answers"] in rest
    assert "port 22 is not in locate.allowed_ports" in output
    assert "192.0.2.1 is outside locate.allowed_networks" in output
    assert errors == ""


def test_realm_may_have_no_servers_for_password_changes(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(config, "KK.TEST") == ExitCode.OK
    assert "Servers for password changes: none; " in capsys.readouterr().out
    assert _run(config, "KK.TEST", "--kpasswd") == ExitCode.NOT_FOUND.value == 3
    assert "the domain says that it has no such service" in capsys.readouterr().out


@pytest.mark.parametrize("realm", ["OTHER.TEST", "OUTSIDE.TEST"], ids=["not served", "DNS fails"])
@pytest.mark.parametrize("service", [(), ("--kdc",), ("--kpasswd",)], ids=["both", "kdc", "kpasswd"])
def test_realm_without_servers_is_an_exit_code_of_its_own(
    config: Path, realm: str, service: tuple[str, ...]
) -> None:
    assert _run(config, realm, *service) == ExitCode.NOT_FOUND


def test_servers_that_all_refuse_are_an_exit_code_of_their_own(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(config, "DOWN.TEST") == ExitCode.NO_ANSWER.value == 5
    output = capsys.readouterr().out
    assert output.count("no: refused") == 4  # each by TCP and UDP
    assert "None of them answers." in output
    assert _run(config, "DOWN.TEST", "--kdc") == ExitCode.NO_ANSWER
    assert _run(config, "DOWN.TEST", "--kpasswd") == ExitCode.OK


def test_servers_for_password_changes_are_looked_at_without_being_asked_for(config: Path) -> None:
    assert _run(config, "FROZEN.TEST") == ExitCode.NO_ANSWER
    assert _run(config, "FROZEN.TEST", "--kdc") == ExitCode.OK


def test_real_servers_answer_over_either_transport(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with MitRealm(tmp_path / "realm", name="REAL.TEST") as realm:
        kdc, kpasswd = realm.kdc.endpoints[0], realm.kpasswd_endpoint
        for scheme in ("tcp", "udp"):
            section = (
                f'[realms."REAL.TEST"]\nkdc = ["{scheme}://{kdc}"]\nkpasswd = ["{scheme}://{kpasswd}"]\n'
            )
            file = tmp_path / f"{scheme}.toml"
            file.write_text(config.read_text() + section)
            assert _run(file, "REAL.TEST") == ExitCode.OK
            assert [row[6][:3] for row in _rows(capsys.readouterr().out) if row[0] == "1"] == ["in ", "in "]


def test_interface_that_is_not_there_is_named_as_the_reason(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(config, "zoned.test") == ExitCode.NO_ANSWER
    assert capsys.readouterr().out.count("no: this host has no such network interface") == 2


def test_hint_changes_the_servers(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(config, "LISTED.TEST") == ExitCode.OK
    output = capsys.readouterr().out
    assert "udp://" not in output
    assert re.search(r" -  .*configuration$", output, re.MULTILINE)
    for hint in ("pdc", "0x80", "writable,128"):
        assert _run(config, "LISTED.TEST", "--hint", hint) == ExitCode.OK
        assert "udp://" in capsys.readouterr().out


def test_hint_is_words_and_numbers() -> None:
    assert parse_hint("0") == 0
    assert parse_hint("PDC,flat,0x200") == DcLocatorFlags(0x10280)
    assert parse_hint("-2147483648") == DcLocatorFlags(0x80000000)


def test_hint_that_is_neither_is_a_usage_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(config, "KK.TEST", "--hint", "primary")
    assert ended.value.code == ExitCode.USAGE
    assert "none of pdc, writable, force" in capsys.readouterr().err
