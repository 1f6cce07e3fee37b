"""Whether client certificates can be checked: by the authorities they come from, and what these revoked.

The time is a parameter; RFC 5280.
"""

import re
import ssl
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from kkdcpd.config.kinds import collected
from kkdcpd.config.pem import CERTIFICATE, minute, read_pem, refusal
from kkdcpd.errors import ConfigError, ConfigProblem, MalformedError
from kkdcpd.protocol.x509 import CertificateFacts, CrlFacts, read_certificate, read_crl

__all__ = ["inspect_client_ca"]

T = TypeVar("T")

_CA, _CRL = "tls.client_ca", "tls.client_crl"
_BLOCK = re.compile(r"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def inspect_client_ca(ca: Path, crl: Path | None, *, now: datetime) -> tuple[ConfigProblem, ...]:
    """Return what is worth a warning about the files of [tls] client_ca and client_crl.

    Raises:
        ConfigError: they can't be used, or would keep everybody out.
    """
    problems: list[ConfigProblem] = []
    authorities: Sequence[CertificateFacts] = ()
    with collected(problems):
        authorities = _read_authorities(ca)
    problems += _find_missing_issuers(authorities, ca)
    if crl:
        with collected(problems):
            lists = _read_lists(crl)
            problems += _find_missing_lists(authorities, lists, crl, now)
            problems += _find_lists_out_of_time(lists, crl, now)
    if problems:
        raise ConfigError(problems)
    return tuple(_warn_of_expiry(authorities, ca, now))


def _read_authorities(path: Path) -> Sequence[CertificateFacts]:
    blocks = CERTIFICATE.findall(read_pem(path, _CA))
    if not blocks:
        remedy = (
            "put the authorities' certificates there in PEM (-----BEGIN CERTIFICATE-----); "
            "openssl x509 -inform DER -in FILE makes that of a .cer of Windows"
        )
        raise refusal(_CA, f"{path} holds no certificate in PEM", remedy)
    facts = _read_all(blocks, ssl.PEM_cert_to_DER_cert, read_certificate, _CA, path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        problem = f"OpenSSL can't use {path}: {error.reason or error.strerror}"
        remedy = "copy it there anew; openssl x509 -in FILE -text tells whether it is whole"
        raise refusal(_CA, problem, remedy) from error
    return facts


def _read_lists(path: Path) -> Sequence[CrlFacts]:
    pem = read_pem(path, _CRL)
    if CERTIFICATE.search(pem):
        # OpenSSL takes both from one file, and would trust whoever has a certificate of it.
        problem = f"{path} holds a certificate too, which would be trusted as an authority's"
        raise refusal(_CRL, problem, "move it to client_ca, or remove it")
    blocks = _BLOCK.findall(pem)
    if not blocks:
        remedy = (
            "put the authorities' lists there in PEM (-----BEGIN X509 CRL-----); "
            "openssl crl -inform DER -in FILE makes that of a .crl of Windows"
        )
        raise refusal(_CRL, f"{path} holds no revocation list in PEM", remedy)
    return _read_all(blocks, _crl_to_der, read_crl, _CRL, path)


def _crl_to_der(block: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(block.replace("X509 CRL", "CERTIFICATE"))


def _read_all(
    blocks: Sequence[str], decode: Callable[[str], bytes], read: Callable[[bytes], T], key: str, path: Path
) -> Sequence[T]:
    facts = []
    for number, block in enumerate(blocks, 1):
        try:
            facts.append(read(decode(block)))
        except (MalformedError, ValueError) as error:
            raise refusal(key, f"block {number} of {path} is damaged", "copy it there anew") from error
    return facts


def _folded(name: str) -> str:
    """Return what is equal for equal names (RFC 5280 7.1, as far as it matters)."""
    return " ".join(name.casefold().split())


def _find_missing_issuers(authorities: Sequence[CertificateFacts], path: Path) -> Iterator[ConfigProblem]:
    there = {_folded(authority.subject) for authority in authorities}
    for authority in authorities:
        if _folded(authority.issuer) not in there:
            yield ConfigProblem(
                key=_CA,
                problem=f"{authority.subject} in {path} was issued by {authority.issuer}, which isn't there",
                remedy="add the certificates of all authorities up to the root",
            )


def _find_missing_lists(
    authorities: Sequence[CertificateFacts], lists: Sequence[CrlFacts], path: Path, now: datetime
) -> Iterator[ConfigProblem]:
    there = {_folded(crl.issuer) for crl in lists}
    for authority in authorities:
        if authority.end > now and _folded(authority.subject) not in there:
            yield ConfigProblem(
                key=_CRL,
                problem=f"{path} has no list of {authority.subject}, so its certificates are all refused",
                remedy="add it: each authority in client_ca needs its list there",
            )


def _find_lists_out_of_time(lists: Sequence[CrlFacts], path: Path, now: datetime) -> Iterator[ConfigProblem]:
    by_issuer: dict[str, CrlFacts] = {}
    for crl in sorted(lists, key=lambda crl: (crl.start <= now, crl.start)):
        by_issuer[_folded(crl.issuer)] = crl  # the newest of those that have begun
    for crl in by_issuer.values():
        whose = f"the list of {crl.issuer} in {path}"
        if crl.start > now:
            problem = f"{whose} is not valid before {minute(crl.start)}"
            yield ConfigProblem(key=_CRL, problem=problem, remedy="set this host's clock right, or wait")
        elif crl.next_update and crl.next_update < now:
            problem = f"{whose} expired on {minute(crl.next_update)}, so that all certificates are refused"
            yield ConfigProblem(key=_CRL, problem=problem, remedy="fetch the newest one")


def _warn_of_expiry(
    authorities: Sequence[CertificateFacts], path: Path, now: datetime
) -> Iterator[ConfigProblem]:
    for authority in authorities:
        if authority.end < now:
            problem = f"the certificate of {authority.subject} in {path} expired on {minute(authority.end)}"
            yield ConfigProblem(key=_CA, problem=problem, remedy="remove it, or renew it")
