"""The texts for krb5.conf, read by the programs that they are for."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kkdcpd.commands.krb5_texts import (
    AgentService,
    Krb5TextError,
    LocalAddress,
    heimdal_text,
    java_options,
    java_text,
    mit_text,
)
from kkdcpd.endpoints import Transport
from lab.heimdal import HeimdalPrograms
from lab.namespace import NetworkNamespace
from lab.program import Completed, environment, run
from lab.realm import MitRealm, Principal

REALM = "KK.TEST"
PASSWORD = "correct horse"
NEW_PASSWORD = "another correct horse"
LOGIN = Path(__file__).parents[1] / "support" / "Login.java"

TCP = LocalAddress(host="127.0.0.1", port=10088)
SOCKET = LocalAddress(socket=Path("/run/user/1000/kkdcpd/kdc"))


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    """A realm with a KDC that listens by TCP only, because the texts make programs use TCP."""
    users = [
        Principal(name=name, password=PASSWORD, options=("+requires_preauth",))
        for name in ("mit", "heimdal", "java")
    ]
    directory = tmp_path_factory.mktemp("realm")
    with MitRealm(directory, name=REALM, principals=users, transports={Transport.TCP}) as running:
        yield running


def _address(endpoint: str) -> LocalAddress:
    host, _, port = endpoint.rpartition(":")
    return LocalAddress(host=host, port=int(port))


@pytest.fixture
def agent(realm: MitRealm) -> AgentService:
    """The servers of the realm in place of an agent: programs reach both in the same way."""
    return AgentService(
        realms=(REALM,), kdc=_address(realm.kdc.endpoints[0]), kpasswd=_address(realm.kpasswd_endpoint)
    )


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


def test_text_for_mit_on_a_socket_has_its_path() -> None:
    """MIT Kerberos 1.22 and later read it; Debian 12 has 1.20."""
    text = mit_text(
        AgentService(realms=(REALM,), kdc=SOCKET, kpasswd=LocalAddress(socket=Path("/run/kpasswd")))
    )
    assert (
        "        kdc = /run/user/1000/kkdcpd/kdc\n        primary_kdc = /run/user/1000/kkdcpd/kdc\n" in text
    )
    assert "        kpasswd_server = /run/kpasswd\n        admin_server = /run/kpasswd\n" in text


@pytest.fixture(scope="module")
def heimdal(tmp_path_factory: pytest.TempPathFactory) -> HeimdalPrograms:
    return HeimdalPrograms(tmp_path_factory.mktemp("heimdal"))


def test_heimdal_clients_log_in_by_tcp(tmp_path: Path, agent: AgentService, heimdal: HeimdalPrograms) -> None:
    krb5_conf = _written(tmp_path / "krb5.conf", heimdal_text(agent))
    variables = {"KRB5_CONFIG": str(krb5_conf), "KRB5CCNAME": f"FILE:{tmp_path}/ccache"}
    password = _written(tmp_path / "password", f"{PASSWORD}\n")
    heimdal.run("kinit.heimdal", f"--password-file={password}", "heimdal", **variables).expect_ok()
    assert (
        f"heimdal@{REALM}" in run("klist", environment=environment(tmp_path, **variables)).expect_ok().output
    )


def _java(tmp_path: Path, *options: str) -> Completed:
    return run(
        "java",
        "-Dsun.security.krb5.debug=true",
        *options,
        str(LOGIN),
        "java",
        PASSWORD,
        environment=environment(tmp_path),
    )


def test_java_logs_in_by_tcp_with_the_text_and_the_option(tmp_path: Path, agent: AgentService) -> None:
    krb5_conf = _written(tmp_path / "krb5.conf", java_text(agent))
    login = _java(tmp_path, *java_options(agent, krb5_conf)).expect_ok()
    assert f"logged in: java@{REALM}" in login.output
    assert set(re.findall(r"KrbKdcReq send: kdc=\S+ (\w+):", login.output)) == {"TCP"}


def test_java_logs_in_without_a_file_at_port_88(tmp_path: Path) -> None:
    user = Principal(name="java", password=PASSWORD, options=("+requires_preauth",))
    with NetworkNamespace(tmp_path), MitRealm(tmp_path / "realm", name=REALM, principals=[user]) as realm:
        realm.start_kdc(port=88)
        agent = AgentService(realms=(REALM,), kdc=LocalAddress(host="127.0.0.1", port=88))
        options = java_options(agent, Path("/unused"))
        assert not any("krb5.conf" in option for option in options)
        assert f"logged in: java@{REALM}" in _java(tmp_path, *options).expect_ok().output


@pytest.mark.parametrize(
    "agent",
    [
        AgentService(realms=(REALM,), kdc=TCP),
        AgentService(realms=(REALM,), kdc=LocalAddress(host="::1", port=88)),
        AgentService(realms=(REALM, "OTHER.TEST"), kdc=LocalAddress(host="127.0.0.1", port=88)),
    ],
)
def test_properties_of_java_cannot_have_a_port_an_ipv6_address_or_two_realms(agent: AgentService) -> None:
    assert java_options(agent, Path("/etc/java.conf")) == ("-Djava.security.krb5.conf=/etc/java.conf",)


def test_examples_in_the_documents_are_what_is_written() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    folder = Path("/run/user/1000/kkdcpd")
    by_port = AgentService(
        realms=("EXAMPLE.COM",), kdc=TCP, kpasswd=LocalAddress(host="127.0.0.1", port=10464)
    )
    by_socket = replace(
        by_port, kdc=LocalAddress(socket=folder / "kdc"), kpasswd=LocalAddress(socket=folder / "kpasswd")
    )
    written = [mit_text(by_port), mit_text(by_socket), java_text(by_port), heimdal_text(by_port)]
    assert re.findall(r"```ini\n(.*?)```", page, re.DOTALL) == written


def test_ipv6_address_is_in_brackets() -> None:
    agent = AgentService(realms=(REALM,), kdc=LocalAddress(host="::1", port=10088))
    assert "kdc = [::1]:10088\n" in mit_text(agent)
    assert "kdc = [::1]:10088\n" in java_text(agent)
    assert "kdc = tcp/[::1]:10088\n" in heimdal_text(agent)


def test_service_without_password_changes_has_no_password_server() -> None:
    agent = AgentService(realms=(REALM,), kdc=TCP)
    for text in (mit_text(agent), heimdal_text(agent), java_text(agent)):
        assert "kpasswd_server" not in text
        assert "admin_server" not in text


def test_all_realms_are_in_the_text_and_the_first_is_the_default() -> None:
    agent = AgentService(realms=("A.TEST", "B.TEST"), kdc=TCP)
    for text in (mit_text(agent, is_whole=True), heimdal_text(agent), java_text(agent)):
        assert "default_realm = A.TEST\n" in text
        assert re.findall(r"(\S+) = \{", text) == ["A.TEST", "B.TEST"]


@pytest.mark.parametrize("write", [heimdal_text, java_text])
def test_programs_that_cannot_use_a_unix_socket_get_an_error_with_the_remedy(write: object) -> None:
    assert callable(write)
    with pytest.raises(Krb5TextError, match="give the agent an address and a port"):
        write(AgentService(realms=(REALM,), kdc=SOCKET))


@pytest.mark.parametrize("realm", ["", "A B", "A}", "A\nB", "A=B", "*", "A{", ".A", "A."])
def test_realm_that_would_change_the_meaning_of_the_file_is_refused(realm: str) -> None:
    with pytest.raises(Krb5TextError, match=r"krb5\.conf cannot have the realm"):
        AgentService(realms=(realm,), kdc=TCP)


@pytest.mark.parametrize("path", ["/run/a b", "/run/a\nb", "relative"])
def test_path_that_krb5_conf_cannot_have_is_refused(path: str) -> None:
    with pytest.raises(Krb5TextError, match="use a path without blanks"):
        AgentService(realms=(REALM,), kdc=LocalAddress(socket=Path(path)))
