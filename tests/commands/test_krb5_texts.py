"""The texts for krb5.conf. tests/interop/test_krb5_texts.py gives them to the programs that they are for."""

import re
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

REALM = "KK.TEST"

TCP = LocalAddress(host="127.0.0.1", port=10088)
SOCKET = LocalAddress(socket=Path("/run/user/1000/kkdcpd/kdc"))


def test_text_for_mit_on_a_socket_has_its_path() -> None:
    """MIT Kerberos 1.22 and later read it; Debian 12 has 1.20."""
    text = mit_text(
        AgentService(realms=(REALM,), kdc=SOCKET, kpasswd=LocalAddress(socket=Path("/run/kpasswd")))
    )
    assert (
        "        kdc = /run/user/1000/kkdcpd/kdc\n        primary_kdc = /run/user/1000/kkdcpd/kdc\n" in text
    )
    assert "        kpasswd_server = /run/kpasswd\n        admin_server = /run/kpasswd\n" in text


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
