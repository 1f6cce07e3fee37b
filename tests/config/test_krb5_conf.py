from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config import RealmConfig
from kkdcpd.config.addresses import EndpointSpec, parse_endpoint
from kkdcpd.config.krb5_conf import import_realms, is_dns_allowed
from kkdcpd.config.krb5_profile import Relation
from kkdcpd.errors import ConfigError
from kkdcpd.values import KdcService

REALM = RealmConfig(name="EXAMPLE.COM")


def _relations(*entries: str, realm: str = "EXAMPLE.COM") -> tuple[Relation, ...]:
    """Return the realm's relations from lines `key = value`."""
    pairs = (entry.split(" = ") for entry in entries)
    return tuple(
        Relation(path=("realms", realm, key), value=value, origin=f"/etc/krb5.conf, line {number}")
        for number, (key, value) in enumerate(pairs, start=1)
    )


def _kdcs(*texts: str) -> tuple[EndpointSpec, ...]:
    return tuple(parse_endpoint(text, service=KdcService.KDC) for text in texts)


def _kpasswd(*texts: str) -> tuple[EndpointSpec, ...]:
    return tuple(parse_endpoint(text, service=KdcService.KPASSWD) for text in texts)


def _imported(*entries: str) -> RealmConfig:
    (realm,) = import_realms([REALM], _relations(*entries)).realms
    return realm


@pytest.mark.parametrize(
    ("value", "kdcs"),
    [
        ("kdc1.example.com", ["kdc1.example.com"]),
        ("kdc1:1088", ["kdc1:1088"]),
        ("192.0.2.1", ["192.0.2.1"]),
        ("[2001:db8::1]:88", ["[2001:db8::1]:88"]),
        ("kdc1 kdc2,kdc3 , kdc4", ["kdc1", "kdc2", "kdc3", "kdc4"]),
        ("kdc1 # the old one", ["kdc1"]),
        ("kdc1 KDC1:88 tcp/kdc1", ["kdc1"]),
        ("tcp/kdc1 UDP/kdc2:1088", ["tcp://kdc1", "udp://kdc2:1088"]),
        ("", []),
    ],
)
def test_hosts_are_written_as_in_krb5_conf(value: str, kdcs: list[str]) -> None:
    assert _imported(f"kdc = {value}").kdc == _kdcs(*kdcs)


def test_repeated_relations_are_one_list() -> None:
    assert _imported("kdc = kdc1", "default_domain = example.com", "kdc = kdc2").kdc == _kdcs("kdc1", "kdc2")


def test_source_tells_where_the_lists_come_from() -> None:
    assert _imported("kdc = kdc1").source == "krb5.conf"
    assert _imported("default_domain = example.com") == REALM


def test_primary_kdc_was_called_master_kdc() -> None:
    assert _imported("kdc = kdc1", "master_kdc = kdc2").primary_kdc == _kdcs("kdc2")
    assert _imported("master_kdc = kdc2", "primary_kdc = kdc3").primary_kdc == _kdcs("kdc3")


def test_admin_server_changes_passwords_at_port_464_if_no_other_server_does() -> None:
    assert _imported("admin_server = kdc1:749").kpasswd == _kpasswd("kdc1:464")
    assert _imported("admin_server = kdc1", "kpasswd_server = kdc2:1464").kpasswd == _kpasswd("kdc2:1464")


def test_case_of_the_realm_does_not_count() -> None:
    relations = _relations("kdc = kdc1", realm="example.com")
    assert import_realms([REALM], relations).realms[0].kdc == _kdcs("kdc1")


def test_only_configured_realms_are_had_from_krb5_conf() -> None:
    imported = import_realms([REALM], _relations("kdc = kdc1", realm="EXAMPLE.NET"))
    assert imported.realms == (REALM,)


@pytest.mark.parametrize(
    "own",
    [
        {"kdc": _kdcs("own")},
        {"kpasswd": _kpasswd("own")},
        {"primary_kdc": _kdcs("own")},
        {"discovery": "dns"},
        {"discovery": "active_directory"},
    ],
)
def test_realm_with_lists_or_discovery_of_its_own_is_left_alone(own: dict[str, Any]) -> None:
    realm = RealmConfig(name="EXAMPLE.COM", **own)
    assert import_realms([realm], _relations("kdc = kdc1")).realms == (realm,)


def test_realm_without_discovery_gets_the_lists_of_krb5_conf() -> None:
    realm = RealmConfig(name="EXAMPLE.COM", discovery="none")
    assert import_realms([realm], _relations("kdc = kdc1")).realms[0].kdc == _kdcs("kdc1")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("https://kdcproxy.example.com/KdcProxy", "names a proxy, perhaps kkdcpd itself"),
        ("http/kdc1", "names a proxy"),
        ("/run/kdc.sock", "is a unix socket, which may not be here when it is needed"),
    ],
)
def test_entry_that_is_no_kdc_is_left_out_with_a_warning(entry: str, reason: str) -> None:
    imported = import_realms([REALM], _relations(f"kdc = {entry}", "kdc = kdc1"))
    assert imported.realms[0].kdc == _kdcs("kdc1")
    assert "\n".join(map(str, imported.warnings)) == (
        f'/etc/krb5.conf, line 1: kdc = "{entry}" {reason}: it is left out; '
        "name the KDCs in the configuration of kkdcpd, if krb5.conf has no others"
    )


def test_every_bad_entry_is_a_problem_with_file_and_line() -> None:
    with pytest.raises(ConfigError) as caught:
        _imported(
            "kdc = kdc1:0 kdc_2..x", "default_domain = ..", "kpasswd_server = [2001:db8::x]", "kdc = ok"
        )
    remedy = 'write a host such as "kdc1.example.com", "kdc1.example.com:88" or "[2001:db8::1]:88"'
    bracketed = "has brackets round a text that is no IPv6 address"
    assert str(caught.value) == "\n".join(
        [
            f'/etc/krb5.conf, line 1: kdc = "kdc1:0" has a port that is no number from 1 to 65535; {remedy}',
            f'/etc/krb5.conf, line 1: kdc = "kdc_2..x" has no valid host name; {remedy}',
            f'/etc/krb5.conf, line 3: kpasswd_server = "[2001:db8::x]" {bracketed}; {remedy}',
        ]
    )


def test_servers_are_bounded() -> None:
    names = " ".join(f"kdc{number}" for number in range(256))
    assert len(_imported(f"kdc = {names}").kdc) == 256
    with pytest.raises(ConfigError) as caught:
        _imported(f"kdc = {names}", "kdc = one.more")
    assert str(caught.value) == (
        "/etc/krb5.conf, line 2: kdc names 257 servers of one realm; leave at most 256"
    )


@pytest.mark.parametrize(
    ("values", "is_allowed"),
    [
        ([], True),
        (["true"], True),
        (["Yes"], True),
        (["1"], True),
        (["false"], False),
        (["off"], False),
        (["maybe"], False),
        (["no", "yes"], False),
    ],
)
def test_dns_is_allowed_unless_krb5_conf_forbids_it(values: list[str], is_allowed: bool) -> None:
    other = _relations("kdc = kdc1")
    path = ("libdefaults", "dns_lookup_kdc")
    assert (
        is_dns_allowed([*other, *(Relation(path=path, value=each, origin="") for each in values)])
        is is_allowed
    )


@given(
    key=st.sampled_from(["kdc", "primary_kdc", "kpasswd_server", "admin_server"]),
    value=st.text() | st.from_regex(r"(tcp/|udp://|https://)?[\[\]a-z0-9.:, #]*", fullmatch=True),
)
def test_no_value_is_a_crash(key: str, value: str) -> None:
    relation = Relation(path=("realms", "EXAMPLE.COM", key), value=value, origin=str(Path("/etc/krb5.conf")))
    with suppress(ConfigError):
        import_realms([REALM], [relation])
