"""The TLS of a client: the context for connections to KDC proxies, and the check of pinned keys."""

import hashlib
import ssl
from collections.abc import Mapping

from kkdcpd.errors import MalformedError, SettingError
from kkdcpd.protocol import der
from kkdcpd.upstream.https.options import HttpsOptions

__all__ = ["build_client_context", "has_pinned_key", "pin_of"]

_VERSION = 0xA0  # [0] of TBSCertificate
_FIELDS_BEFORE_KEY = 5  # serialNumber, signature, issuer, validity, subject (RFC 5280 4.1)
_ANY_TAG = bytes(range(256))


def build_client_context(options: HttpsOptions) -> ssl.SSLContext:
    """Return the context of all connections. Names and chains of certificates are checked.

    Raises:
        SettingError: a file is unusable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        if options.ca_file:
            context.load_verify_locations(options.ca_file)
        else:
            context.set_default_verify_paths()
    except OSError as error:
        raise SettingError(
            f"{options.ca_file} has no readable certificates of authorities: {error.strerror or error}",
            "name a PEM file with at least one certificate of an authority",
        ) from error
    if options.certificate:
        _load_certificate(context, options)
    return context


def _load_certificate(context: ssl.SSLContext, options: HttpsOptions) -> None:
    assert options.certificate
    try:
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(options.certificate, options.key, password="")
    except OSError as error:
        raise SettingError(
            f"{options.certificate} is no client certificate with its key: {error.strerror or error}",
            "name PEM files of a certificate and of its key, which has no password",
        ) from error


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
