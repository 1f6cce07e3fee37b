import pytest

from kkdcpd.protocol.principals import fold_principal
from kkdcpd.values import PrincipalName

REALM = "EXAMPLE.COM"


def name(text: str, name_type: int = 1) -> PrincipalName:
    return PrincipalName(name_type=name_type, components=tuple(text.split("/")))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (name("alice"), name("ALICE")),
        (name("alice"), name("Alice@Example.com", 10)),
        (name("straße"), name("STRASSE")),
        (name("host/kdc1"), name("HOST/KDC1")),
    ],
)
def test_spellings_of_one_principal_are_one(first: PrincipalName, second: PrincipalName) -> None:
    assert fold_principal(first, REALM) == fold_principal(second, REALM)


@pytest.mark.parametrize("other", ["bob", "alice@OTHER.COM", "alice/admin", "alice\0"])
def test_other_principals_are_others(other: str) -> None:
    assert fold_principal(name(other), REALM) != fold_principal(name("alice"), REALM)
