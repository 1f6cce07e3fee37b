from collections.abc import Sequence

import pytest

from kkdcpd.config import PrincipalPattern
from kkdcpd.guard.name_patterns import find_objection
from kkdcpd.values import PrincipalName

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
def test_a_pattern_matches_the_name_when_denied_and_when_allowed(name: PrincipalName, pattern: str) -> None:
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
def test_a_pattern_of_others_leaves_the_name_alone_and_does_not_allow_it(
    name: PrincipalName, pattern: str
) -> None:
    assert _objection(name, deny=[pattern]) is None
    assert _objection(name, allow=[pattern]) == f"{name} is not among those allowed"


@pytest.mark.parametrize("text", ["ádmin", "\uff41dmin", "ADMÍN", "ádmin@corp.example", "a\u0301dmin"])
def test_what_active_directory_takes_for_the_name_is_denied_and_not_allowed(text: str) -> None:
    name = _name(text)

    assert _objection(name, deny=["admin"])
    assert _objection(name, allow=["admin"])


def test_without_lists_there_is_no_objection() -> None:
    assert _objection(_name("alice")) is None


def test_to_be_denied_goes_before_to_be_allowed() -> None:
    assert _objection(_name("alice", "admin"), allow=["alice*"], deny=["*/admin"])
    assert _objection(_name("alice"), allow=["alice*"], deny=["*/admin"]) is None


def test_a_name_that_is_longer_than_any_is_not_allowed_and_is_denied() -> None:
    name = _name("a/" * 60_000, "admin")

    assert _objection(name, deny=["*/root"]) == "a name of more than 1024 characters"
    assert _objection(name, allow=["*"]) == "a name of more than 1024 characters"
    assert _objection(name) is None
