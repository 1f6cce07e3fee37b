"""`kkdcpd locate --as CLIENT`, with a real DNS server and something that listens."""

import re
import socket
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from kkdcpd import cli
from kkdcpd.cli import ExitCode, main
from lab.dns import KnotServer
from lab.namespace import NetworkNamespace

PROXY = "192.0.2.1"


def _records() -> str:
    """Return the output of `kkdcpd dns-records`, which each kind of client has to find."""
    with redirect_stdout(StringIO()) as output:
        assert main(["dns-records", "KK.TEST", "https://proxy.kk.test/KdcProxy"]) == ExitCode.OK
    return output.getvalue()


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnotServer]:
    zones = {
        "kk.test": f"proxy A {PROXY}\nproxy AAAA 2001:db8::1\n{_records()}",
        "none.test": "",
    }
    with KnotServer(tmp_path_factory.mktemp("knot"), zones) as running:
        yield running


def _config(directory: Path, knot: KnotServer) -> Path:
    path = directory / "config.toml"
    path.write_text(
        f"""
        [[listen]]
        address = "127.0.0.1:0"
        tls = false
        [locate]
        nameservers = ["{knot.endpoint}"]
        [realms."OTHER.TEST"]
        kdc = ["192.0.2.9"]
        """
    )
    return path


def _run(directory: Path, knot: KnotServer, *arguments: str) -> int:
    return main(["locate", "--config", str(_config(directory, knot)), *arguments])


@pytest.mark.parametrize(
    ("client", "record", "url"),
    [
        ("mit", "URI _kerberos.KK.TEST", "https://proxy.kk.test:443/KdcProxy"),
        ("apple", "SRV _kerberos._kkdcp.KK.TEST", "https://proxy.kk.test:443/kkdcp"),
        ("kerberos.net", "SRV _kerberos._https.KK.TEST", "https://proxy.kk.test:443/KdcProxy"),
    ],
)
def test_each_client_finds_the_proxy_by_its_own_record(
    client: str, record: str, url: str, tmp_path: Path, knot: KnotServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, knot, "--as", client, "--kdc", "KK.TEST") == ExitCode.OK
    output = capsys.readouterr().out
    assert re.search(rf"^  {re.escape(record)} .* used$", output, re.MULTILINE)
    assert re.search(rf"^  1  {re.escape(url)}  2001:db8::1, {PROXY}$", output, re.MULTILINE)


def test_client_that_finds_no_server_for_a_service_is_an_exit_code(
    tmp_path: Path, knot: KnotServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path, knot, "--as", "apple", "KK.TEST") == ExitCode.NOT_FOUND
    kdcs, passwords = capsys.readouterr().out.split("\n\nApple, Servers for password changes")
    assert "Finds no server" not in kdcs
    assert "Finds no server." in passwords
    assert _run(tmp_path, knot, "--as", "mit", "none.test") == ExitCode.NOT_FOUND


def test_agent_finds_the_proxy_and_shows_whether_it_accepts_connections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The default rules apply: port 443, and no address of this host."""
    with NetworkNamespace(tmp_path) as network:
        network.add_interface("outside", f"{PROXY}/24")
        zone = f"proxy A {PROXY}\nproxy A 127.0.0.1\n{_records()}"
        with (
            KnotServer(tmp_path / "knot", {"kk.test": zone}) as inner,
            socket.create_server((PROXY, 443)),
        ):
            assert _run(tmp_path, inner, "--as", "agent", "kk.test") == ExitCode.OK
    output = capsys.readouterr().out
    found = re.findall(r"^ *1  (\S+) +(\S+) .* (URI|SRV) (\S+)$", output, re.MULTILINE)
    assert found == [
        ("https://proxy.kk.test:443/KdcProxy", PROXY, "URI", "_kerberos.kk.test"),
        ("https://proxy.kk.test:443/KdcProxy", PROXY, "URI", "_kpasswd.kk.test"),
    ]
    assert "127.0.0.1 is loopback" in output


def test_hint_beside_as_is_a_usage_error(
    tmp_path: Path, knot: KnotServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        _run(tmp_path, knot, "--as", "mit", "--hint", "pdc", "KK.TEST")
    assert ended.value.code == ExitCode.USAGE
    assert "leave --hint or --as out" in capsys.readouterr().err


def test_host_without_a_configuration_asks_the_dns_servers_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a network, no DNS server answers."""
    monkeypatch.setattr(cli, "DEFAULT_CONFIG", str(tmp_path / "missing.toml"))
    monkeypatch.delenv("KKDCPD_CONFIG", raising=False)
    with NetworkNamespace(tmp_path):
        assert main(["locate", "--as", "kerberos.net", "--kdc", "KK.TEST"]) == ExitCode.NOT_FOUND
    assert "DNS look-up of SRV _kerberos._tcp.KK.TEST" in capsys.readouterr().out
