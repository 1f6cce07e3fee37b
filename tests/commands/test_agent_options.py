"""The command line of `kkdcpd agent`."""

import argparse
from pathlib import Path

import pytest

from kkdcpd.commands.agent_arguments import add_arguments
from kkdcpd.commands.agent_options import AgentOptions, AgentOptionsError, read_options
from kkdcpd.commands.krb5_texts import mit_text

URL = "https://proxy.example.com/KdcProxy"
TENANT = "0a1b2c3d-0000-1111-2222-333344445555"


def _read(*arguments: str, is_root: bool = False) -> AgentOptions:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_options(parser.parse_args(arguments), is_root=is_root)


def _texts(options: AgentOptions) -> tuple[list[str], list[str]]:
    return [str(each) for each in options.kdc], [str(each) for each in options.kpasswd]


def test_user_needs_no_low_port_and_root_gets_the_ports_of_kdcs() -> None:
    arguments = (URL, "--realm", "EXAMPLE.COM")
    assert _texts(_read(*arguments)) == (
        ["127.0.0.1:10088", "[::1]:10088"],
        ["127.0.0.1:10464", "[::1]:10464"],
    )
    assert _texts(_read(*arguments, is_root=True)) == (
        ["127.0.0.1:88", "[::1]:88"],
        ["127.0.0.1:464", "[::1]:464"],
    )


def test_address_without_a_port_has_the_usual_port() -> None:
    options = _read("--realm", "A", "--listen", "127.0.0.9", "--listen", "[::1]:1088", "--listen", "::1")
    assert _texts(options)[0] == ["127.0.0.9:10088", "[::1]:1088", "[::1]:10088"]
    assert _texts(options)[1] == ["127.0.0.9:10464", "[::1]:1464", "[::1]:10464"]


def test_sockets_replace_the_default_addresses_and_come_after_named_ones() -> None:
    assert _texts(_read("--realm", "A", "--socket", "/run/a")) == (["/run/a/kdc"], ["/run/a/kpasswd"])
    both = _read("--realm", "A", "--socket", "/run/a", "--listen", "127.0.0.1")
    assert _texts(both)[0] == ["127.0.0.1:10088", "/run/a/kdc"]
    assert "kdc = 127.0.0.1:10088\n" in mit_text(both.service)


def test_proxies_are_in_the_order_of_preference_and_may_be_left_to_dns() -> None:
    options = _read("wss://b/KdcTunnel", URL, "--realm", "EXAMPLE.COM", "--realm", "OTHER.TEST")
    assert [(each.transports[0].value, each.host, each.path) for each in options.proxies] == [
        ("wss", "b", "/KdcTunnel"),
        ("https", "proxy.example.com", "/KdcProxy"),
    ]
    assert options.realms == ("EXAMPLE.COM", "OTHER.TEST")
    assert _read("--realm", "EXAMPLE.COM").proxies == ()


@pytest.mark.parametrize("tenant", [TENANT, "contoso.onmicrosoft.com"])
def test_entra_names_proxy_and_realm_and_has_no_password_changes(tenant: str) -> None:
    options = _read("--entra", tenant, "--write-krb5-conf", "/etc/krb5.conf.d/entra.conf")
    (proxy,) = options.proxies
    assert (proxy.host, proxy.port, proxy.path) == ("login.microsoftonline.com", 443, f"/{tenant}/kerberos")
    assert options.realms == ("KERBEROS.MICROSOFTONLINE.COM",)
    assert options.kpasswd == ()
    assert options.krb5_conf == Path("/etc/krb5.conf.d/entra.conf")
    assert "kpasswd_server" not in mit_text(options.service)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((URL,), "no realm is named; add --realm REALM"),
        (("http://proxy", "--realm", "A"), "does not begin with https:// or wss://"),
        (("--entra", TENANT, URL), "leave the URL and --realm out"),
        (("--entra", TENANT, "--realm", "A"), "leave the URL and --realm out"),
        (("--entra", "../etc"), "neither the id nor the domain of a tenant"),
        (("--entra", "a/b.c"), "neither the id nor the domain of a tenant"),
        (("--entra", f"{TENANT}\n"), "neither the id nor the domain of a tenant"),
        (("--entra", ""), "neither the id nor the domain of a tenant"),
        (("--realm", "A", "--listen", "localhost"), "name an IP address, such as 127.0.0.1:10088"),
        (("--realm", "A", "--listen", "0.0.0.0:88"), "other hosts could use the agent"),
        (("--realm", "A", "--listen", "tcp://127.0.0.1"), "--listen tcp://127.0.0.1: "),
        (("--realm", "A", "--listen", "127.0.0.1:0"), "the port is no number from 1 to 65159"),
        (("--realm", "A", "--listen", "127.0.0.1:65160"), "the port is no number from 1 to 65159"),
        (("--realm", "A", "--listen", "127.0.0.1:x"), "the port is no number from 1 to 65159"),
    ],
)
def test_invalid_argument_is_an_error_that_names_it(arguments: tuple[str, ...], problem: str) -> None:
    with pytest.raises(AgentOptionsError) as caught:
        _read(*arguments)
    assert problem in str(caught.value)
