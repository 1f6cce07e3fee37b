from collections.abc import Sequence

import pytest

from kkdcpd.config import PrincipalPattern, RealmConfig
from kkdcpd.guard.names import RealmNames, find_objection, names_of
from kkdcpd.values import PrincipalName

# Realms

LONG = "averylongdomainname.example.com"


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["EXAMPLE.COM"], "EXAMPLE.COM"),
        (["EXAMPLE.COM"], "example.com"),
        (["EXAMPLE.COM"], "Example.Com."),
        (["example.com."], "EXAMPLE.COM"),
        (["EXAMPLE.COM", "CORP"], "corp"),
        (["EXAMPLE.COM", "CORP"], "EXAMPLE"),
        (["EXAMPLE.COM"], "EXAMPLE"),
        ([LONG], "AVERYLONGDOMAIN"),
        (["CORP"], "CORP"),
        (["CORP"], "CORP.EXAMPLE.COM"),
        (["AVERYLONGDOMAIN"], LONG),
        (["BÜCHER.EXAMPLE"], "BÜCHER.example"),
    ],
    ids=str,
)
def test_name_is_a_name_of_the_realm(names: list[str], name: str) -> None:
    assert name in RealmNames(names)


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["EXAMPLE.COM"], "EXAMPLE.ORG"),
        (["EXAMPLE.COM"], "SUB.EXAMPLE.COM"),
        (["EXAMPLE.COM"], "COM"),
        (["EXAMPLE.COM"], "EXAMPL"),
        (["EXAMPLE.COM"], ""),
        (["EXAMPLE.COM"], "EXAMPLE.COM.."),
        (["EXAMPLE.COM", "CORP"], "CORP.EXAMPLE.COM"),
        (["CORP"], "OTHER.EXAMPLE.COM"),
        ([LONG], "AVERYLONGDOMAINNAME"),
        (["BÜCHER.EXAMPLE"], "bücher.example"),
    ],
    ids=str,
)
def test_name_is_not_a_name_of_the_realm(names: list[str], name: str) -> None:
    assert name not in RealmNames(names)


def test_realm_and_aliases_are_names_of_each_other() -> None:
    realm = RealmConfig(name="EXAMPLE.COM", aliases=("CORP",))

    for target_domain in ("EXAMPLE.COM", "CORP"):
        assert all(name in names_of(realm, target_domain) for name in ("EXAMPLE.COM", "CORP"))


def test_realm_under_a_wildcard_has_only_the_requested_name() -> None:
    names = names_of(RealmConfig(name="*.EXAMPLE.COM"), "sub.example.com")

    assert "SUB.EXAMPLE.COM" in names
    assert "OTHER.EXAMPLE.COM" not in names
    assert "EXAMPLE.COM" not in names


# Allow and deny lists

NT_PRINCIPAL, NT_ENTERPRISE = 1, 10


def _objection(name: PrincipalName, *, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> str | None:
    return find_objection(
        name, allow=tuple(map(PrincipalPattern, allow)), deny=tuple(map(PrincipalPattern, deny))
    )


def _name(*components: str, name_type: int = NT_PRINCIPAL) -> PrincipalName:
    return PrincipalName(name_type=name_type, components=components)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (_name("alice", "admin"), "*/admin"),
        (_name("ALICE", "Admin"), "*/admin"),
        (_name("alice/admin"), "*/admin"),
        (_name("alice"), "ALICE"),
        (_name("alice@corp.example", name_type=NT_ENTERPRISE), "alice"),
        (_name("alice@corp.example"), "alice"),
        (_name("alice", "admin@EXAMPLE.COM"), "*/admin"),
        (_name("host", "www.example.com"), "host/*"),
    ],
    ids=str,
)
def test_matching_pattern_denies_or_allows_the_name(name: PrincipalName, pattern: str) -> None:
    assert _objection(name, deny=[pattern]) == f'{name} is denied by "{pattern}"'
    assert _objection(name, allow=[pattern]) is None


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        (_name("alice"), "*/admin"),
        (_name("admin"), "*/admin"),
        (_name("malice"), "alice"),
        (_name("alice@corp.example"), "corp.example"),
        (_name("@alice"), "alice"),
        (_name(""), "?*"),
        (_name(), "alice"),
        (_name("a\udcfc"), "a"),
    ],
    ids=repr,
)
def test_other_pattern_neither_denies_nor_allows_the_name(name: PrincipalName, pattern: str) -> None:
    assert _objection(name, deny=[pattern]) is None
    assert _objection(name, allow=[pattern]) == f"{name} is not among the allowed names"


@pytest.mark.parametrize("text", ["ádmin", "\uff41dmin", "ADMÍN", "ádmin@corp.example", "a\u0301dmin"])
def test_similar_name_is_denied_and_not_allowed(text: str) -> None:
    name = _name(text)

    assert _objection(name, deny=["admin"])
    assert _objection(name, allow=["admin"])


def test_without_lists_there_is_no_objection() -> None:
    assert _objection(_name("alice")) is None


def test_deny_list_beats_allow_list() -> None:
    assert _objection(_name("alice", "admin"), allow=["alice*"], deny=["*/admin"])
    assert _objection(_name("alice"), allow=["alice*"], deny=["*/admin"]) is None


def test_too_long_name_is_denied_and_not_allowed() -> None:
    name = _name("a/" * 60_000, "admin")

    assert _objection(name, deny=["*/root"]) == "a name of more than 1024 characters"
    assert _objection(name, allow=["*"]) == "a name of more than 1024 characters"
    assert _objection(name) is None
