"""Tests of access by certificate and token. tests/config/test_patterns.py has the matching of patterns."""

import hashlib

import pytest

from kkdcpd.config import RealmConfig
from kkdcpd.config.patterns import parse_certificate_pattern
from kkdcpd.guard.access import check_access
from kkdcpd.values import ClientCertificate, ClientConnection, Outcome, Rule

OPEN = RealmConfig(name="EXAMPLE.COM")
CERTIFIED = RealmConfig(
    name="EXAMPLE.COM",
    client_certificates=(
        parse_certificate_pattern("dns:*.example.com"),
        parse_certificate_pattern("subject:CN=*,O=Example"),
    ),
)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


SECRET = RealmConfig(name="EXAMPLE.COM", tokens=(_digest("first-of-the-two"), _digest("second-of-the-two")))


def _client(*names: str, subject: str = "CN=Guest", token: str | None = None) -> ClientConnection:
    return ClientConnection(
        address="192.0.2.1",
        certificate=ClientCertificate(subject=subject, names=names) if names or subject else None,
        token=None if token is None else _digest(token),
    )


STRANGER = ClientConnection(address="192.0.2.1")


def test_realm_without_settings_is_open_to_all_clients() -> None:
    assert check_access(STRANGER, OPEN) == ()
    assert check_access(_client("dns:host.example.com", token="whatever"), OPEN) == ()


@pytest.mark.parametrize(
    "client", [_client("dns:other.test", "dns:HOST.example.com"), _client(subject="CN=Ann,O=Example")]
)
def test_certificate_that_matches_any_pattern_passes(client: ClientConnection) -> None:
    assert check_access(client, CERTIFIED) == ()


@pytest.mark.parametrize(
    ("client", "detail"),
    [
        (STRANGER, "no certificate"),
        (
            _client("dns:host.example.net", "upn:ann@EXAMPLE.COM", subject="CN=Ann"),
            "no pattern of the realm matches subject:CN=Ann dns:host.example.net upn:ann@EXAMPLE.COM",
        ),
    ],
)
def test_any_other_certificate_is_refused(client: ClientConnection, detail: str) -> None:
    (refusal,) = check_access(client, CERTIFIED)
    assert (refusal.rule, refusal.outcome, refusal.detail) == (
        Rule.CLIENT_CERTIFICATE,
        Outcome.REFUSED,
        detail,
    )


@pytest.mark.parametrize("token", ["first-of-the-two", "second-of-the-two"])
def test_each_token_passes(token: str) -> None:
    assert check_access(_client(token=token), SECRET) == ()


@pytest.mark.parametrize(
    ("token", "detail"), [(None, "no token"), ("third-of-the-two", "unknown token"), ("", "unknown token")]
)
def test_any_other_token_is_refused(token: str | None, detail: str) -> None:
    (refusal,) = check_access(_client(token=token), SECRET)
    assert (refusal.rule, refusal.outcome, refusal.detail) == (Rule.TOKEN, Outcome.REFUSED, detail)


def test_certificate_and_token_are_both_needed_if_both_are_configured() -> None:
    realm = RealmConfig(
        name="EXAMPLE.COM", client_certificates=CERTIFIED.client_certificates, tokens=SECRET.tokens
    )
    both = _client("dns:a.example.com", token="first-of-the-two")
    without_certificate = _client("dns:a.test", token="first-of-the-two")

    def rules(client: ClientConnection) -> list[Rule]:
        return [refusal.rule for refusal in check_access(client, realm)]

    assert rules(both) == []
    assert rules(_client("dns:a.example.com")) == [Rule.TOKEN]
    assert rules(without_certificate) == [Rule.CLIENT_CERTIFICATE]
    assert rules(STRANGER) == [Rule.CLIENT_CERTIFICATE, Rule.TOKEN]


def test_refusals_are_one_sentence_without_tokens_or_patterns() -> None:
    clients = (STRANGER, _client("dns:a.test", token="third-of-the-two"), _client(token="third-of-the-two"))
    for realm in (CERTIFIED, SECRET):
        for client in clients:
            (refusal,) = check_access(client, realm)
            assert refusal.text.endswith(".")
            assert not any(word in repr(refusal) for word in ("of-the-two", "*", _digest("x").hex()[:4]))
