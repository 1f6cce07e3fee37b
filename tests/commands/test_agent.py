"""`kkdcpd agent` without any program: its configuration, its texts and its errors."""

import argparse
import socket
import sys
from pathlib import Path

import pytest

from kkdcpd.cli import ExitCode, main
from kkdcpd.commands.agent import config_of, krb5_texts
from kkdcpd.commands.agent_arguments import add_arguments
from kkdcpd.commands.agent_options import AgentOptions, read_options
from kkdcpd.endpoints import Transport
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.messages import inspect_reply
from kkdcpd.values import MessageKind, Mode
from lab.ports import free_port
from lab.program import Program, environment
from tests.support import messages

URLS = ("https://one.example.com/KdcProxy", "wss://two.example.com/KdcTunnel")


def _options(*arguments: str) -> AgentOptions:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_options(parser.parse_args(arguments), is_root=False)


def test_proxies_serve_both_services_of_each_realm() -> None:
    config = config_of(_options(*URLS, "--realm", "EXAMPLE.COM", "--realm", "EXAMPLE.NET"))
    assert [realm.name for realm in config.realms] == ["EXAMPLE.COM", "EXAMPLE.NET"]
    for realm in config.realms:
        assert realm.kdc == realm.kpasswd
        assert [each.transports for each in realm.kdc] == [(Transport.HTTPS,), (Transport.WSS,)]
        assert realm.discovery == "none"


def test_agent_without_a_url_finds_the_proxies_in_dns() -> None:
    (realm,) = config_of(_options("--realm", "EXAMPLE.COM")).realms
    assert (realm.kdc, realm.kpasswd, realm.discovery) == ((), (), "proxies")


def test_agent_of_entra_takes_no_password_changes() -> None:
    (realm,) = config_of(_options("--entra", "contoso.example")).realms
    assert realm.kdc
    assert realm.kpasswd == ()


def test_failures_of_one_user_do_not_block_the_others() -> None:
    config = config_of(_options(*URLS, "--realm", "EXAMPLE.COM"))
    assert config.guard.failures.mode is Mode.OFF


def test_texts_are_for_all_programs_that_can_reach_the_agent() -> None:
    by_port = "\n".join(krb5_texts(_options(*URLS, "--realm", "EXAMPLE.COM").service))
    assert all(name in by_port for name in ("MIT Kerberos", "Heimdal", "Java", "gokrb5"))
    by_socket = krb5_texts(_options(*URLS, "--realm", "EXAMPLE.COM", "--socket", "/run/x").service)
    assert len(by_socket) == 1
    assert "kdc = /run/x/kdc" in by_socket[0]


def test_address_that_is_taken_ends_the_agent(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", free_port(("127.0.0.1",)))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["agent", *URLS, "--realm", "EXAMPLE.COM", "--listen", address]) == ExitCode.FAILED
    assert f"can't listen on {address} for --listen: Address already in use" in capsys.readouterr().err


def test_drop_in_of_another_program_ends_the_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = tmp_path / "other.conf"
    conf.write_text("[libdefaults]\n")
    arguments = ["agent", *URLS, "--realm", "EXAMPLE.COM", "--socket", str(tmp_path)]
    assert main([*arguments, "--write-krb5-conf", str(conf)]) == ExitCode.FAILED
    assert "was not made by kkdcpd agent" in capsys.readouterr().err
    assert conf.read_text() == "[libdefaults]\n"
    assert not (tmp_path / "kdc").exists()


@pytest.mark.parametrize("arguments", [[], ["ftp://proxy.example.com", "--realm", "EXAMPLE.COM"]])
def test_invalid_command_line_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["agent", *arguments])
    assert ended.value.code == ExitCode.USAGE


def test_datagram_starts_the_agent_by_systemds_socket(tmp_path: Path) -> None:
    """No proxy can be reached, so the answer is an error."""
    port = free_port(("127.0.0.1",))
    command = ("systemd-socket-activate", "--datagram", f"--listen=127.0.0.1:{port}")
    agent = (sys.executable, "-m", "kkdcpd", "agent", "https://127.0.0.1:9/", "--realm", "EXAMPLE.COM")
    with (
        Program("agent", *command, *agent, environment=environment(tmp_path)) as program,
        socket.socket(type=socket.SOCK_DGRAM) as client,
    ):
        program.wait_for_line(lambda line: "Listening on" in line)
        client.connect(("127.0.0.1", port))
        client.settimeout(20.0)
        client.send(messages.as_req())
        facts = inspect_reply(MessageKind.AS_REQ, client.recv(65536))
        assert facts.error_code == KrbErrorCode.KRB_ERR_GENERIC
        assert any(f"listen=udp://127.0.0.1:{port}" in line for line in program.lines)
