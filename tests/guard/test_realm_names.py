import pytest

from kkdcpd.config import RealmConfig
from kkdcpd.guard.realm_names import RealmNames, names_of

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
def test_a_realm_has_the_name(names: list[str], name: str) -> None:
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
def test_a_realm_has_not_the_name(names: list[str], name: str) -> None:
    assert name not in RealmNames(names)


def test_aliases_are_names_both_ways() -> None:
    realm = RealmConfig(name="EXAMPLE.COM", aliases=("CORP",))

    for target_domain in ("EXAMPLE.COM", "CORP"):
        assert all(name in names_of(realm, target_domain) for name in ("EXAMPLE.COM", "CORP"))


def test_a_realm_under_a_wildcard_has_the_name_it_was_asked_for_by() -> None:
    names = names_of(RealmConfig(name="*.EXAMPLE.COM"), "sub.example.com")

    assert "SUB.EXAMPLE.COM" in names
    assert "OTHER.EXAMPLE.COM" not in names
    assert "EXAMPLE.COM" not in names
