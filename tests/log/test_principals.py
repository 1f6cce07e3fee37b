import subprocess
import sys
from typing import Any

import pytest

from kkdcpd.config import LogConfig
from kkdcpd.log.principals import Principals
from kkdcpd.values import PrincipalName

KEY = b"0123456789abcdef"


def name(text: str, name_type: int = 1) -> PrincipalName:
    return PrincipalName(name_type=name_type, components=tuple(text.split("/")))


FIELDS: dict[str, object] = {
    "id": "1",
    "client": "192.0.2.7",
    "certificate": "CN=alice",
    "realm": "EXAMPLE.COM",
    "cname": name("alice"),
    "sname": name("HTTP/www.example.com"),
    "detail": "tcp://a:88 refused",
}


def hidden(mode: str, key: bytes | None = KEY, **fields: object) -> dict[str, Any]:
    config = LogConfig(principals=mode, principals_key=key)  # type: ignore[arg-type]
    return dict(Principals(config).hide({**FIELDS, **fields}))


def pseudonym(cname: object, realm: str = "EXAMPLE.COM", key: bytes | None = KEY) -> str:
    found = hidden("hashed", key, cname=cname, realm=realm)["cname"]
    assert isinstance(found, str)
    return found


def test_plain_names_stay() -> None:
    assert hidden("plain") == FIELDS


def test_omitted_names_are_left_out_and_services_stay() -> None:
    assert list(hidden("omitted")) == ["id", "client", "realm", "sname", "detail"]


def test_hashed_names_are_short_words() -> None:
    fields = hidden("hashed")
    assert list(fields) == list(FIELDS)
    for key in ("cname", "certificate"):
        word, digits = fields[key].split(":")
        assert (word, len(digits), int(digits, 16) > 0) == ("hashed", 16, True)
    assert fields["sname"] == FIELDS["sname"]


@pytest.mark.parametrize("mode", ["hashed", "omitted"])
def test_service_that_may_be_a_user_is_hidden(mode: str) -> None:
    assert hidden(mode, sname=name("alice")).get("sname") == hidden(mode).get("cname")


@pytest.mark.parametrize("mode", ["hashed", "omitted"])
def test_detail_of_a_refusal_may_quote_a_name(mode: str) -> None:
    assert "detail" not in hidden(mode, rule="unproven_ticket", detail="a ticket for alice")


@pytest.mark.parametrize("spelling", [name("ALICE"), name("Alice@Example.com", 10), "alice"])
def test_spellings_that_the_guard_counts_as_one_have_one_pseudonym(spelling: object) -> None:
    assert pseudonym(spelling) == pseudonym(name("alice"))


def test_case_of_the_realm_does_not_count() -> None:
    assert pseudonym(name("alice"), "example.com") == pseudonym(name("alice"))


@pytest.mark.parametrize("other", ["bob", "alice/admin", "alic\udce9", ""])
def test_others_have_others(other: str) -> None:
    assert pseudonym(name(other)) != pseudonym(name("alice"))


def test_same_name_in_another_realm_is_another_principal() -> None:
    assert pseudonym(name("alice"), "OTHER.COM") != pseudonym(name("alice"))


def test_pseudonym_depends_on_the_key_alone() -> None:
    assert pseudonym(name("alice"), key=b"another secret key") != pseudonym(name("alice"))
    program = (
        "from kkdcpd.config import LogConfig; from kkdcpd.log.principals import Principals\n"
        f"config = LogConfig(principals='hashed', principals_key={KEY!r})\n"
        "print(Principals(config).hide({'realm': 'EXAMPLE.COM', 'cname': 'alice'})['cname'])"
    )
    elsewhere = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert elsewhere.stdout.strip() == pseudonym(name("alice"))


def test_without_a_key_pseudonyms_hold_for_one_start() -> None:
    first, again = pseudonym(name("alice"), key=None), pseudonym(name("alice"), key=None)
    assert first == again != pseudonym(name("alice"))
