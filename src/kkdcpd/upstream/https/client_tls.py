"""The TLS of a client: the context for connections to KDC proxies, and the check of pinned keys."""

import hashlib
import ssl
from collections.abc import Mapping

from kkdcpd.config import HttpsConfig, load_authorities, load_certificate
from kkdcpd.errors import MalformedError
from kkdcpd.protocol import der

__all__ = ["build_client_context", "has_pinned_key", "pin_of"]

_VERSION = 0xA0  # [0] of TBSCertificate
_FIELDS_BEFORE_KEY = 5  # serialNumber, signature, issuer, validity, subject (RFC 5280 4.1)
_ANY_TAG = bytes(range(256))


def build_client_context(https: HttpsConfig) -> ssl.SSLContext:
    """Return the context of all connections. Names and chains of certificates are checked.

    Raises:
        SettingError: a file is unusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_authorities(context, https)
    load_certificate(context, https)
    return context


def has_pinned_key(tls: ssl.SSLObject, host: str, pins: Mapping[str, frozenset[bytes]]) -> bool:
    """Whether the server's certificate has a pinned key. A host without pins may have any key."""
    pinned = pins.get(host.lower().rstrip("."))
    if pinned is None:
        return True
    certificate = tls.getpeercert(binary_form=True)
    return certificate is not None and pin_of(certificate) in pinned


def pin_of(certificate: bytes) -> bytes | None:
    """Return the SHA-256 digest of the SubjectPublicKeyInfo of a certificate in DER, None if it has none."""
    try:
        outer = der.read_element(certificate, 0, len(certificate), der.SEQUENCE)
        position, end = der.read_element(certificate, *outer, der.SEQUENCE)
        if certificate[position] == _VERSION:
            position = der.read_element(certificate, position, end, _ANY_TAG)[1]
        for _ in range(_FIELDS_BEFORE_KEY):
            position = der.read_element(certificate, position, end, _ANY_TAG)[1]
        key_end = der.read_element(certificate, position, end, der.SEQUENCE)[1]
    except (MalformedError, IndexError):
        return None
    return hashlib.sha256(certificate[position:key_end]).digest()
