"""Names of served realms, and the limits of realms under wildcards."""

import pytest

from kkdcpd.locate.realms import (
    IDLE_SECONDS,
    MAX_WAITING_LOOKUPS,
    NEW_LOOKUP_SHARE,
    NewRealm,
    RealmTable,
    WildcardRealms,
)
from kkdcpd.values import DcLocatorFlags
from tests.locate.support import NO_FLAGS, realm

FLAT, DNS = DcLocatorFlags.IS_FLAT_NAME, DcLocatorFlags.IS_DNS_NAME

TABLE = RealmTable(
    [
        realm("EXAMPLE.COM", aliases=("EXAMPLE", "Old.Example.NET")),
        realm("LAB"),
        realm("*.EXAMPLE.COM"),
        realm("*.EU.EXAMPLE.COM"),
        realm("TOP.EXAMPLE.COM"),
    ]
)


def _found(name: str, flags: DcLocatorFlags = NO_FLAGS) -> tuple[str, str] | None:
    served = TABLE.match(name, flags)
    return (served.config.name, served.name) if served else None


@pytest.mark.parametrize("name", ["EXAMPLE.COM", "example.com", "Example.Com.", "example", "OLD.EXAMPLE.NET"])
def test_realm_is_found_by_any_of_its_names_in_any_case(name: str) -> None:
    assert _found(name) == ("EXAMPLE.COM", "example.com")


@pytest.mark.parametrize(
    ("name", "wildcard"),
    [
        ("A.EXAMPLE.COM", "*.EXAMPLE.COM"),
        ("A.B.EXAMPLE.COM", "*.EXAMPLE.COM"),
        ("a.eu.example.com.", "*.EU.EXAMPLE.COM"),
        ("EU.EXAMPLE.COM", "*.EXAMPLE.COM"),
        ("TOP.EXAMPLE.COM", "TOP.EXAMPLE.COM"),
        ("A.TOP.EXAMPLE.COM", "*.EXAMPLE.COM"),
    ],
)
def test_exact_names_take_precedence_over_the_longest_wildcard(name: str, wildcard: str) -> None:
    assert _found(name) == (wildcard, name.lower().removesuffix("."))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "COM",
        "XEXAMPLE.COM",
        "EXAMPLE.COM.EVIL.NET",
        ".EXAMPLE.COM",
        "A..EXAMPLE.COM",
        "A B.EXAMPLE.COM",
        "A\0.EXAMPLE.COM",
        "Ä.EXAMPLE.COM",
        "\N{KELVIN SIGN}.EXAMPLE.COM",  # the Kelvin sign, which str.lower makes a k of
        "-A.EXAMPLE.COM",
        f"{'A' * 64}.EXAMPLE.COM",
        f"{'A.' * 125}EXAMPLE.COM",
        f"{'A.' * 50_000}EXAMPLE.COM",
        "*.EXAMPLE.COM",
    ],
)
def test_no_other_name_is_served(name: str) -> None:
    assert _found(name) is None


def test_flat_name_is_an_alias_or_a_realm_without_a_dot() -> None:
    assert _found("EXAMPLE", FLAT) == _found("OLD.EXAMPLE.NET", FLAT) == ("EXAMPLE.COM", "example.com")
    assert _found("LAB", FLAT) == ("LAB", "lab")
    assert _found("EXAMPLE.COM", FLAT) is None
    assert _found("A.EXAMPLE.COM", FLAT) is None


def test_dns_name_is_no_flat_alias() -> None:
    assert _found("EXAMPLE", DNS) is None
    assert _found("EXAMPLE.COM", DNS) == _found("OLD.EXAMPLE.NET", DNS) == ("EXAMPLE.COM", "example.com")
    assert _found("A.EXAMPLE.COM", DNS) == ("*.EXAMPLE.COM", "a.example.com")


def test_both_kinds_together_and_unknown_bits_have_no_effect() -> None:
    assert _found("EXAMPLE", FLAT | DNS) == ("EXAMPLE.COM", "example.com")
    assert _found("EXAMPLE", DcLocatorFlags(0x80000010)) == ("EXAMPLE.COM", "example.com")


def _new_realm(name: str, network: str = "192.0.2.1") -> NewRealm:
    """Make a new realm; its branch is the last label of the name."""
    return NewRealm(name=name, branch=name.rpartition(".")[2], network=network)


def test_branch_is_the_domain_directly_below_the_wildcard() -> None:
    names = ("A.EXAMPLE.COM", "C.B.A.EXAMPLE.COM", "EXAMPLE.COM")
    realms = {name: TABLE.match(name, NO_FLAGS) for name in names}
    assert [realm.branch for realm in realms.values() if realm] == ["a.example.com", "a.example.com", ""]


@pytest.mark.parametrize(
    ("network", "wide"),
    [("192.0.2.1", "192.0.2.1"), ("2001:db8:1:2::/64", "2001:db8:1::/48"), ("unix", "unix"), ("", "")],
)
def test_shares_of_ipv6_apply_to_the_network_of_a_subscriber(network: str, wide: str) -> None:
    realm = TABLE.match("A.EXAMPLE.COM", NO_FLAGS)
    assert realm
    assert NewRealm.of(realm, network) == NewRealm(name="a.example.com", branch="a.example.com", network=wide)


def test_realm_in_use_is_not_evicted() -> None:
    wildcard = WildcardRealms(2)
    assert wildcard.keep(_new_realm("a"), 0.0) is None
    assert wildcard.keep(_new_realm("b"), 1.0) is None
    assert wildcard.use("a", 2.0)
    assert not wildcard.has_room(_new_realm("c"), 3.0)
    assert wildcard.keep(_new_realm("c"), 3.0) == "c"
    assert "a" in wildcard
    assert "b" in wildcard


def test_realm_that_is_idle_for_longest_is_evicted() -> None:
    wildcard = WildcardRealms(2)
    wildcard.keep(_new_realm("a"), 0.0)
    wildcard.keep(_new_realm("b"), 1.0)
    wildcard.use("a", 2.0)
    late = 1.0 + IDLE_SECONDS
    assert wildcard.has_room(_new_realm("c"), late)
    assert wildcard.keep(_new_realm("c"), late) == "b"
    assert not wildcard.use("b", late)


def test_one_branch_does_not_lock_out_another_branch() -> None:
    wildcard = WildcardRealms(64)
    for number in range(64):
        assert wildcard.keep(_new_realm(f"made-up-{number}.evil", f"192.0.2.{number}"), 0.0) is None
    assert not wildcard.has_room(_new_realm("more.evil", "192.0.2.100"), 1.0)
    for number in range(31):
        assert wildcard.keep(_new_realm(f"good{number}", "198.51.100.1"), 1.0) == f"made-up-{number}.evil"
    assert not wildcard.has_room(_new_realm("more.evil", "192.0.2.100"), 1.0)


def test_one_network_does_not_lock_out_another_network() -> None:
    wildcard = WildcardRealms(64)
    for number in range(64):
        assert wildcard.keep(_new_realm(f"made-up-{number}"), 0.0) is None
    assert not wildcard.has_room(_new_realm("more"), 1.0)
    for number in range(31):
        assert wildcard.keep(_new_realm(f"good{number}", f"198.51.100.{number}"), 1.0) == f"made-up-{number}"


def test_concurrent_look_ups_of_new_names_are_limited_per_network() -> None:
    wildcard = WildcardRealms(1000)
    for _ in range(NEW_LOOKUP_SHARE + MAX_WAITING_LOOKUPS):
        assert wildcard.has_room(_new_realm("x"), 0.0)
        wildcard.begin_lookup(_new_realm("x"))
    assert not wildcard.has_room(_new_realm("y"), 0.0)
    assert wildcard.has_room(_new_realm("y", "198.51.100.1"), 0.0)
    wildcard.end_lookup(_new_realm("x"))
    assert wildcard.has_room(_new_realm("y"), 0.0)
