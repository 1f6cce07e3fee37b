import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config.patterns import (
    PrincipalPattern,
    parse_certificate_pattern,
    parse_principal_pattern,
)
from kkdcpd.errors import SettingError
from kkdcpd.values import ClientCertificate, PrincipalName


def _principal(*components: str) -> PrincipalName:
    return PrincipalName(name_type=1, components=components)


@pytest.mark.parametrize(
    ("pattern", "components", "expected"),
    [
        ("ann", ("ann",), True),
        ("ann", ("ANN",), True),
        ("ann", ("anna",), False),
        ("ann", ("ann", "admin"), False),
        ("*/admin", ("ann", "admin"), True),
        ("*/admin", ("ann", "Admin"), True),
        ("*/admin", ("a", "b", "admin"), True),
        ("*/admin", ("ann/admin",), True),
        ("*/admin", ("admin",), False),
        ("*/admin", ("ann", "administrator"), False),
        ("svc-*", ("svc-",), True),
        ("*-adm-*", ("x-adm-y",), True),
        ("*-adm-*", ("x-adm",), False),
        ("*$", ("HOST$",), True),
        ("a*a", ("a",), False),
        ("a*a", ("aa",), True),
        ("a*ab*b", ("aabb",), True),
        ("a*ab*b", ("aab",), False),
        ("STRASSE", ("straße",), True),
        ("host.*", ("hostx",), False),
        ("[ab]", ("a",), False),
        ("*", ("",), True),
        ("a*b", ("a\nb",), True),
    ],
)
def test_star_is_any_text_and_case_does_not_count(
    pattern: str, components: tuple[str, ...], expected: bool
) -> None:
    assert parse_principal_pattern(pattern).matches(_principal(*components)) is expected


@given(name=st.text("ab", max_size=12), pattern=st.text("ab*", max_size=8))
def test_stars_match_as_regular_expressions_do(name: str, pattern: str) -> None:
    expected = re.fullmatch(pattern.replace("*", ".*"), name) is not None
    assert PrincipalPattern(pattern).matches(_principal(name)) is expected


def test_long_name_takes_no_time() -> None:
    pattern = parse_principal_pattern("*a*a*a*a*a*ab")
    started = time.process_time()
    assert not pattern.matches(_principal("a" * 100000))
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no principal's name"),
        ("a\n", "is no principal's name"),
        ("*/admin@EXAMPLE.COM", "has an @ in it"),
    ],
)
def test_bad_principal_pattern_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_principal_pattern(text)
    assert caught.value.problem == problem


ANN = ClientCertificate(
    subject=r"CN=Ann\, Example,OU=Laptops+L=Berlin,O=Example",
    names=("dns:laptop.example.com", "email:ann@example.com", "upn:ann@EXAMPLE.COM", "uri:spiffe://a/b"),
)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("dns:*.example.com", True),
        ("DNS:LAPTOP.example.COM", True),
        ("dns:example.com", False),
        ("email:*@example.com", True),
        ("upn:*@example.com", True),
        ("uri:spiffe://a/*", True),
        ("email:laptop.example.com", False),
        (r"subject:CN=Ann\, Example,OU=Laptops+L=Berlin,O=Example", True),
        ("subject:cn=*,ou=laptops+l=*,o=example", True),
        ("subject:CN=*,OU=*+*,O=*", True),
        ("subject:*,*+*,*", True),
        ("subject:*", False),
        ("subject:CN=*,O=Example", False),
        ("subject:CN=Ann*,O=Example", False),
        ("subject:*O=Example", False),
        ("subject:CN=*,OU=Laptops,L=Berlin,O=Example", False),
    ],
)
def test_pattern_compares_one_kind_of_name(pattern: str, expected: bool) -> None:
    assert parse_certificate_pattern(pattern).matches(ANN) is expected


@pytest.mark.parametrize("subject", [r"CN=x\,O=Example", r"CN=x\\\,O=Example", r"CN=x,OU=y,O=Example", ""])
def test_star_in_a_subject_stays_within_one_value(subject: str) -> None:
    certificate = ClientCertificate(subject=subject, names=())
    assert not parse_certificate_pattern("subject:CN=*,O=Example").matches(certificate)
    assert parse_certificate_pattern("subject:CN=*,O=Example").matches(
        ClientCertificate(subject=r"CN=x\\,O=Example", names=())
    )


def test_unread_certificate_is_like_no_pattern() -> None:
    unread = ClientCertificate(subject="", names=())
    patterns = ("subject:*", "dns:*", "email:*", "upn:*", "uri:*")
    assert not any(parse_certificate_pattern(pattern).matches(unread) for pattern in patterns)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("*.example.com", "does not begin with the kind of name"),
        ("ip:192.0.2.1", "does not begin with the kind of name"),
        ("dns:", "has no name after the kind"),
        ("dns:a\0", "has no name after the kind"),
        ("subject:/O=Example/CN=*", "is not written as RFC 4514 has it"),
        ("subject:CN = *, O = Example", "is not written as RFC 4514 has it"),
    ],
)
def test_bad_certificate_pattern_is_refused(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_certificate_pattern(text)
    assert caught.value.problem == problem


def test_text_of_a_pattern_is_as_written() -> None:
    assert str(parse_principal_pattern("*/Admin")) == "*/Admin"
    assert str(parse_certificate_pattern("DNS:*.Example.com")) == "dns:*.Example.com"
