"""Whether a certificate and its key can be served, and what the administrator should know of them.

The time is a parameter; RFC 5280.
"""

import re
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from pyasn1.codec.der.decoder import decode
from pyasn1.error import PyAsn1Error
from pyasn1.type.base import Asn1Item
from pyasn1_modules import rfc5280

from kkdcpd.config.kinds import collected
from kkdcpd.config.pem import CERTIFICATE, minute, mode_problem, moment, read_pem, refusal
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["EXPIRY_WARNING", "PairFacts", "ServedCertificate", "inspect_pair"]

# As long as the shortest renewal period in wide use leaves: ACME clients renew 30 days before the end, so
# that at 14 days two weeks of renewals have failed.
EXPIRY_WARNING = timedelta(days=14)

_MODE_TOO_OPEN = 0o037  # a group that reads the key (such as ssl-cert) is common practice; more is not
_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}

_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
# PKCS #8 (RFC 7468 11) or the older form with RFC 1421 headers.
_ENCRYPTED_KEY = re.compile(r"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)


@frozen
class ServedCertificate:
    """A certificate that is served, and until when it is valid."""

    path: Path
    expires: datetime


@frozen
class PairFacts:
    """What a usable pair says: the DNS names of its subjectAltName, and what is worth a warning."""

    served: ServedCertificate
    dns_names: tuple[str, ...]
    warnings: tuple[ConfigProblem, ...]


@frozen
class _Leaf:
    """What matters of a server's own certificate."""

    start: datetime
    end: datetime
    has_names: bool
    dns_names: tuple[str, ...]


def inspect_pair(certificate: Path, key: Path, *, section: str, now: datetime) -> PairFacts:
    """Return what there is to know of a certificate and its key.

    Raises:
        ConfigError: the pair can't be served; what is wrong stands under keys below `section`.
    """
    certificate_setting, key_setting = f"{section}.certificate", f"{section}.key"
    problems: list[ConfigProblem] = []
    with collected(problems):
        leaf = _read_leaf(certificate, certificate_setting)
        _check_validity(leaf, certificate, certificate_setting, now)
    with collected(problems):
        _check_key(key, key_setting)
    if problems:
        raise ConfigError(problems)
    _check_match(certificate, key, key_setting)
    warnings = (
        *_warn_of_expiry(leaf, certificate, certificate_setting, now),
        *_warn_of_no_names(leaf, certificate, certificate_setting),
        *filter(None, [mode_problem(key, key_setting, _MODE_TOO_OPEN)]),
    )
    served = ServedCertificate(path=certificate, expires=leaf.end)
    return PairFacts(served=served, dns_names=leaf.dns_names, warnings=warnings)


def _read_leaf(path: Path, setting: str) -> _Leaf:
    first = CERTIFICATE.search(read_pem(path, setting))
    if first is None:
        remedy = "put the server's certificate there in PEM (-----BEGIN CERTIFICATE-----), then its chain"
        raise refusal(setting, f"{path} holds no certificate in PEM", remedy)
    try:
        return _decode_leaf(ssl.PEM_cert_to_DER_cert(first[0]))
    except (PyAsn1Error, ValueError) as error:
        remedy = "copy it there anew; openssl x509 -in FILE -text tells whether it is whole"
        raise refusal(setting, f"the first certificate in {path} is damaged", remedy) from error


def _decode_leaf(octets: bytes) -> _Leaf:
    certificate, _rest = decode(octets, asn1Spec=rfc5280.Certificate())
    body = certificate["tbsCertificate"]
    names = _alternative_names(body)
    return _Leaf(
        start=moment(body["validity"]["notBefore"]),
        end=moment(body["validity"]["notAfter"]),
        has_names=bool(names),
        dns_names=tuple(str(name["dNSName"]).lower() for name in names if name.getName() == "dNSName"),
    )


def _alternative_names(body: Asn1Item) -> tuple[Asn1Item, ...]:
    """Return the names of subjectAltName (RFC 5280 4.2.1.6)."""
    if not body["extensions"].isValue:
        return ()
    for extension in body["extensions"]:
        if extension["extnID"] == rfc5280.id_ce_subjectAltName:
            names, _rest = decode(extension["extnValue"].asOctets(), asn1Spec=rfc5280.SubjectAltName())
            return tuple(names)
    return ()


def _check_key(path: Path, setting: str) -> None:
    pem = read_pem(path, setting)
    if _ENCRYPTED_KEY.search(pem):
        remedy = f"decrypt it: openssl pkey -in {path} -out NEW_FILE, and name the new file here"
        raise refusal(setting, f"the key in {path} needs a passphrase, which nobody can type", remedy)
    if not _KEY.search(pem):
        remedy = "put the certificate's private key there in PEM (-----BEGIN PRIVATE KEY-----)"
        raise refusal(setting, f"{path} holds no private key in PEM", remedy)


def _check_match(certificate: Path, key: Path, setting: str) -> None:
    try:
        # Any password will do: without one, OpenSSL would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            problem = f"{key} is not the key of the first certificate in {certificate}"
            remedy = "name the key that belongs to it; the server's own certificate comes before its chain"
            raise refusal(setting, problem, remedy) from error
        problem = f"OpenSSL can't use {key} with {certificate}: {error.reason or error.strerror}"
        remedy = "copy both files there anew; openssl pkey -in FILE -check tells whether a key is whole"
        raise refusal(setting, problem, remedy) from error


def _check_validity(leaf: _Leaf, path: Path, setting: str, now: datetime) -> None:
    if now < leaf.start:
        problem = f"the certificate in {path} is not valid before {minute(leaf.start)}"
        raise refusal(setting, problem, "set this host's clock right, or wait")
    if now > leaf.end:
        problem = f"the certificate in {path} expired on {minute(leaf.end)}"
        raise refusal(setting, problem, "renew it")


def _warn_of_expiry(leaf: _Leaf, path: Path, setting: str, now: datetime) -> Iterator[ConfigProblem]:
    if leaf.end - now < EXPIRY_WARNING:
        problem = f"the certificate in {path} expires on {minute(leaf.end)}"
        yield ConfigProblem(key=setting, problem=problem, remedy="renew it before")


def _warn_of_no_names(leaf: _Leaf, path: Path, setting: str) -> Iterator[ConfigProblem]:
    # RFC 9525 2: clients look at subjectAltName only, never at the common name.
    if not leaf.has_names:
        problem = f"the certificate in {path} has no subjectAltName, so clients will refuse it"
        yield ConfigProblem(key=setting, problem=problem, remedy="get one that bears the server's name there")
