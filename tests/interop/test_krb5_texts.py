"""The krb5.conf texts for programs behind the agent, used by MIT's, Heimdal's and Java's programs.

A real realm stands in place of the agent: programs reach both in the same way.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.commands.krb5_texts import (
    AgentService,
    LocalAddress,
    heimdal_text,
    java_options,
    java_text,
    mit_text,
)
from kkdcpd.endpoints import Transport
from lab.client import RealmServers
from lab.heimdal import HeimdalClient
from lab.namespace import NetworkNamespace
from lab.program import Completed, environment, run
from lab.realm import MitRealm, Principal

REALM = "KK.TEST"
PASSWORD = "correct horse"
NEW_PASSWORD = "another correct horse"
SERVICE = "HTTP/www.kk.test"
LOGIN = Path(__file__).parent / "java" / "Login.java"


def _principals() -> list[Principal]:
    users = ("mit", "heimdal", "java")
    return [
        *(Principal(name=user, password=PASSWORD, options=("+requires_preauth",)) for user in users),
        Principal(name=SERVICE),
    ]


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    """A realm with a KDC that listens by TCP only, because the texts make programs use TCP."""
    directory = tmp_path_factory.mktemp("realm")
    with MitRealm(directory, name=REALM, principals=_principals(), transports={Transport.TCP}) as running:
        yield running


@pytest.fixture
def agent(realm: MitRealm) -> AgentService:
    return AgentService(
        realms=(REALM,), kdc=_address(realm.kdc.endpoints[0]), kpasswd=_address(realm.kpasswd_endpoint)
    )


def _address(endpoint: str) -> LocalAddress:
    host, _, port = endpoint.rpartition(":")
    return LocalAddress(host=host, port=int(port))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_mit_clients_reach_all_servers_by_tcp_and_look_up_nothing_in_dns(
    tmp_path: Path, agent: AgentService
) -> None:
    variables = environment(
        tmp_path,
        KRB5_CONFIG=_written(tmp_path / "krb5.conf", mit_text(agent, is_whole=True)),
        KRB5CCNAME=f"FILE:{tmp_path}/ccache",
        KRB5_TRACE="/dev/stdout",
    )
    login = run("kinit", "mit", stdin=f"{PASSWORD}\n", environment=variables).expect_ok()
    failed = run("kinit", "mit", stdin="wrong\n", environment=variables)
    assert "Password incorrect" in failed.output
    passwords = f"{PASSWORD}\n{NEW_PASSWORD}\n{NEW_PASSWORD}\n"
    changed = run("kpasswd", "mit", stdin=passwords, environment=variables).expect_ok()
    for trace in (login.output, failed.output, changed.output):
        assert "to stream 127.0.0.1" in trace
        assert "dgram" not in trace
        assert "DNS" not in trace


def test_drop_in_for_mit_names_all_servers_and_leaves_dns_to_other_realms(
    tmp_path: Path, agent: AgentService
) -> None:
    """A login that fails makes libkrb5 look for the primary KDC."""
    folder = tmp_path / "krb5.conf.d"
    folder.mkdir()
    _written(folder / "kkdcpd-agent.conf", mit_text(agent))
    whole = _written(
        tmp_path / "krb5.conf", f"includedir {folder}\n[libdefaults]\n    default_realm = {REALM}\n"
    )
    variables = environment(
        tmp_path, KRB5_CONFIG=whole, KRB5CCNAME=f"FILE:{tmp_path}/ccache", KRB5_TRACE="/dev/stdout"
    )
    failed = run("kinit", "java", stdin="wrong\n", environment=variables)
    assert "Password incorrect" in failed.output
    assert "DNS" not in failed.output
    assert "dgram" not in failed.output
    assert "dns_lookup" not in mit_text(agent)


def test_heimdal_clients_log_in_and_change_a_password_by_tcp(
    tmp_path: Path, agent: AgentService, heimdal_root: Path
) -> None:
    client = HeimdalClient(tmp_path / "client", heimdal_root, {REALM: RealmServers(kdc=())})
    _written(tmp_path / "client" / "krb5.conf", heimdal_text(agent))
    client.kinit("heimdal", PASSWORD).expect_ok()
    client.kgetcred(SERVICE).expect_ok()
    changed = client.kpasswd("heimdal", PASSWORD, NEW_PASSWORD)
    assert "Success" in changed.output
    client.kinit("heimdal", NEW_PASSWORD).expect_ok()


def _java(tmp_path: Path, *options: str) -> Completed:
    command = (
        "java",
        "-Dsun.security.krb5.debug=true",
        *options,
        str(LOGIN),
        f"java@{REALM}",
        SERVICE.replace("/", "@"),
    )
    return run(*command, environment=environment(tmp_path), stdin=f"{PASSWORD}\n").expect_ok()


def test_java_logs_in_and_gets_a_ticket_by_tcp(tmp_path: Path, agent: AgentService) -> None:
    krb5_conf = _written(tmp_path / "krb5.conf", java_text(agent))
    login = _java(tmp_path, *java_options(agent, krb5_conf))
    assert "has a ticket" in login.output
    assert set(re.findall(r"KrbKdcReq send: kdc=\S+ (\w+):", login.output)) == {"TCP"}


def test_java_needs_no_file_if_the_agent_is_at_port_88(tmp_path: Path) -> None:
    with (
        NetworkNamespace(tmp_path),
        MitRealm(tmp_path / "realm", name=REALM, principals=_principals()) as realm,
    ):
        realm.start_kdc(port=88)
        agent = AgentService(realms=(REALM,), kdc=LocalAddress(host="127.0.0.1", port=88))
        options = java_options(agent, Path("/unused"))
        assert not any("krb5.conf" in option for option in options)
        assert "has a ticket" in _java(tmp_path, *options).output
