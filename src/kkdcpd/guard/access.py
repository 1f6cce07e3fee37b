"""Checks the TLS client certificate and the token of a client against a realm's settings.

TLS has already verified the certificate. This module only compares its names.
"""

import hmac

from kkdcpd.config import RealmConfig
from kkdcpd.values import ClientCertificate, ClientConnection, Outcome, Refusal, Rule

__all__ = ["check_access"]


def check_access(client: ClientConnection, realm: RealmConfig) -> tuple[Refusal, ...]:
    """Return the refusals of a client that may not use the realm."""
    checks = _check_certificate(client.certificate, realm), _check_token(client.token, realm)
    return tuple(refusal for refusal in checks if refusal)


def _check_certificate(certificate: ClientCertificate | None, realm: RealmConfig) -> Refusal | None:
    if not realm.client_certificates:
        return None
    if certificate is None:
        return _refusal(
            Rule.CLIENT_CERTIFICATE,
            "This realm needs a TLS client certificate, and the client has sent none.",
            "no certificate",
        )
    if any(pattern.matches(certificate) for pattern in realm.client_certificates):
        return None
    names = " ".join((f"subject:{certificate.subject}", *certificate.names))
    return _refusal(
        Rule.CLIENT_CERTIFICATE,
        "The client's TLS certificate is valid, but its owner may not use this realm.",
        f"no pattern of the realm matches {names}",
    )


def _check_token(digest: bytes | None, realm: RealmConfig) -> Refusal | None:
    if not realm.tokens:
        return None
    if digest is None:
        return _refusal(
            Rule.TOKEN,
            "This realm needs a URL that ends in a secret token, and this URL has no token.",
            "no token",
        )
    # Every token is compared in full, so that the time shows nothing about the tokens.
    if sum(hmac.compare_digest(digest, token) for token in realm.tokens):
        return None
    return _refusal(
        Rule.TOKEN,
        "The token at the end of the URL is not a token of this realm: it may have been replaced.",
        "unknown token",
    )


def _refusal(rule: Rule, text: str, detail: str) -> Refusal:
    return Refusal(rule=rule, outcome=Outcome.REFUSED, text=text, detail=detail)
