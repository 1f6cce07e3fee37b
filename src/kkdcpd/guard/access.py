"""Whether a client may use a realm at all: by its certificate, and by the token in the path it asked for.

Pure. That a certificate is true was seen to by TLS; here it is only asked whose it is.
"""

import hmac

from kkdcpd.config import RealmConfig
from kkdcpd.values import ClientCertificate, ClientConnection, Outcome, Refusal, Rule

__all__ = ["check_access"]


def check_access(client: ClientConnection, realm: RealmConfig) -> tuple[Refusal, ...]:
    """Return what is against the client's using the realm."""
    checks = _check_certificate(client.certificate, realm), _check_token(client.token, realm)
    return tuple(refusal for refusal in checks if refusal)


def _check_certificate(certificate: ClientCertificate | None, realm: RealmConfig) -> Refusal | None:
    if not realm.client_certificates:
        return None
    if certificate is None:
        return _refusal(
            Rule.CLIENT_CERTIFICATE,
            "This realm needs a TLS client certificate, and the client has shown none.",
            "no certificate",
        )
    if any(pattern.matches(certificate) for pattern in realm.client_certificates):
        return None
    names = " ".join((f"subject:{certificate.subject}", *certificate.names))
    return _refusal(
        Rule.CLIENT_CERTIFICATE,
        "The client's TLS certificate is good, but its owner may not use this realm.",
        f"no pattern of the realm is like {names}",
    )


def _check_token(digest: bytes | None, realm: RealmConfig) -> Refusal | None:
    if not realm.tokens:
        return None
    if digest is None:
        return _refusal(
            Rule.TOKEN,
            "This realm is only reached by a URL that ends in a secret token, and this one has none.",
            "no token",
        )
    # All are compared, and each in full: the time taken tells nothing of them.
    if sum(hmac.compare_digest(digest, token) for token in realm.tokens):
        return None
    return _refusal(
        Rule.TOKEN,
        "The token at the end of the URL is not one of this realm's: it may have been replaced.",
        "unknown token",
    )


def _refusal(rule: Rule, text: str, detail: str) -> Refusal:
    return Refusal(rule=rule, outcome=Outcome.REFUSED, text=text, detail=detail)
