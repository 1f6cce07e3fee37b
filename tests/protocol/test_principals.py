"""Spellings of one principal. tests/interop/test_guard_proofs.py compares them with real KDCs."""

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.protocol.principals import fold_principal, plain_letters
from kkdcpd.values import PrincipalName


def name(text: str, name_type: int = 1) -> PrincipalName:
    return PrincipalName(name_type=name_type, components=tuple(text.split("/")))


@pytest.mark.parametrize(
    "spelling",
    [
        "ALICE",
        "Alice@Example.com",
        "alice@EXAMPLE",
        "alice@EXAMPLE.COM.",
        "EXAMPLE\\alice",
        "alice\0",
        "alice\0anything",
        " alice",
        "alice  ",
        "alice\t",
        "alice.",
        "alice$",
        "ALICE$@EXAMPLE.COM",
        "álice",
        "a\u0301lice",
        "\uff41lice",
        "al\u0131ce",
        "AL\u0130CE",
    ],
)
@pytest.mark.parametrize("name_type", [0, 1, 2, 10, -128])
def test_spellings_of_one_principal_are_one(spelling: str, name_type: int) -> None:
    assert fold_principal(name(spelling, name_type)) == "alice"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("straße", "STRASSE"),
        ("host/kdc1", "HOST/KDC1"),
        ("jürgen", "JU\u0308RGEN"),
        ("\u212aarl", "karl"),
        ("mary anne", "maryanne"),
    ],
)
def test_unusual_spellings_of_one_principal_are_one(first: str, second: str) -> None:
    assert fold_principal(name(first)) == fold_principal(name(second))


def test_separators_in_a_component_and_between_components_are_the_same() -> None:
    one = PrincipalName(name_type=1, components=("host/kdc1",))
    assert fold_principal(one) == fold_principal(name("host/kdc1"))


@pytest.mark.parametrize("other", ["bob", "alice/admin", "alice1", "al.ice", "\u0430lice", ""])
def test_other_principals_are_others(other: str) -> None:
    assert fold_principal(name(other)) != "alice"


@pytest.mark.parametrize("odd", ["", "\0", "@", "\\", "$", "@EXAMPLE.COM", "\udcff", " "])
def test_names_without_a_stem_fold_to_something_without_a_nul(odd: str) -> None:
    assert "\0" not in fold_principal(name(odd))


def test_names_without_a_stem_stay_apart() -> None:
    assert fold_principal(name("@one")) != fold_principal(name("@two"))


def test_plain_letters_leave_ascii_alone() -> None:
    assert plain_letters("Admin-1") == "Admin-1"
    assert plain_letters("ádmin") == "admin"


@given(st.text(max_size=30))
def test_plain_letters_are_those_that_unicode_decomposes_the_text_into(text: str) -> None:
    parts = unicodedata.normalize("NFKD", text)
    assert plain_letters(text) == "".join(part for part in parts if not unicodedata.combining(part))


@pytest.mark.parametrize(
    "text",
    ["a" + "\u0344" * 30_000 + "\u0316" * 30_000, "\u0f73" * 60_000, "\ufdfa" * 60_000],
    ids=["combining characters out of order", "letters that decompose into such", "letters that grow"],
)
def test_long_names_fold_in_linear_time(text: str) -> None:
    """Sorting the combining characters takes seconds for a text this long."""
    started = time.process_time()
    fold_principal(PrincipalName(name_type=1, components=(text,)))
    assert time.process_time() - started < 0.5
