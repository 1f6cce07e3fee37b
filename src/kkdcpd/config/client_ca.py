"""Checks the certificate authorities of clients, and their revocation lists (RFC 5280).

OpenSSL decides whether the files can be used. The time is a parameter.
"""

import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from kkdcpd.config.certificates import CERTIFICATE_LABELS, pem_blocks, read_pem
from kkdcpd.config.dates import DatedItem, DatedKind
from kkdcpd.config.problems import collected, refusal
from kkdcpd.errors import ConfigError, ConfigProblem, MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol.x509 import CertificateFacts, CrlFacts, folded_name, read_certificate, read_crl

__all__ = ["CRL_LABELS", "ClientCaFacts", "inspect_client_ca"]

CRL_LABELS = ("X509 CRL",)  # as OpenSSL accepts it (pem.h)

T = TypeVar("T")

_CA, _CRL = "tls.client_ca", "tls.client_crl"
_LONG_AGO = datetime.min.replace(tzinfo=UTC)
_NEVER = datetime.max.replace(tzinfo=UTC)


@frozen
class ClientCaFacts:
    """The facts of usable files: the valid certificate and the valid list of each subject, and warnings."""

    items: tuple[DatedItem, ...]
    warnings: tuple[ConfigProblem, ...]


def inspect_client_ca(ca: Path, crl: Path | None, *, now: datetime) -> ClientCaFacts:
    """Return the facts of the files of [tls] client_ca and client_crl.

    Raises:
        ConfigError: OpenSSL cannot use the files, or would refuse each client.
    """
    problems: list[ConfigProblem] = []
    warnings: list[ConfigProblem] = []
    authorities: Sequence[CertificateFacts] = ()
    lists: Sequence[CrlFacts] = ()
    with collected(problems):
        authorities = _read_authorities(ca, warnings)
    problems += _find_missing_issuers(authorities, ca)
    if crl:
        with collected(problems):
            lists = _read_lists(crl, warnings)
            problems += _find_missing_lists(authorities, lists, crl, now)
    if problems:
        raise ConfigError(problems)
    items = [_authority_item(authority, ca) for authority in authorities]
    items += [_list_item(each, crl) for each in lists if crl]
    return ClientCaFacts(items=tuple(_newest_valid(items, now)), warnings=tuple(warnings))


def _authority_item(facts: CertificateFacts, path: Path) -> DatedItem:
    return DatedItem(
        kind=DatedKind.CLIENT_CA,
        key=_CA,
        path=path,
        subject=facts.subject,
        names=facts.names,
        start=facts.start,
        end=facts.end,
    )


def _list_item(facts: CrlFacts, path: Path) -> DatedItem:
    return DatedItem(
        kind=DatedKind.CLIENT_CRL,
        key=_CRL,
        path=path,
        subject=facts.issuer,
        start=facts.start,
        end=facts.next_update,
    )


def _newest_valid(items: Iterable[DatedItem], now: datetime) -> Iterable[DatedItem]:
    """Return one item for each subject: the newest item within its dates, else the newest item."""
    found: dict[tuple[DatedKind, str], DatedItem] = {}
    for item in sorted(items, key=lambda item: (item.problem(now) is None, item.start or _LONG_AGO)):
        found[item.kind, folded_name(item.subject)] = item
    return found.values()


def _read_authorities(path: Path, warnings: list[ConfigProblem]) -> Sequence[CertificateFacts]:
    blocks = pem_blocks(read_pem(path, _CA), CERTIFICATE_LABELS)
    if not blocks:
        remedy = (
            "put the authorities' certificates there in PEM (-----BEGIN CERTIFICATE-----); "
            "openssl x509 -inform DER -in FILE makes that of a .cer of Windows"
        )
        raise refusal(_CA, f"{path} holds no certificate in PEM", remedy)
    return _read_all(blocks, read_certificate, _CA, path, warnings)


def _read_lists(path: Path, warnings: list[ConfigProblem]) -> Sequence[CrlFacts]:
    pem = read_pem(path, _CRL)
    if pem_blocks(pem, CERTIFICATE_LABELS):
        # OpenSSL reads both kinds from one file, and would trust each certificate that this one issued.
        problem = f"{path} holds a certificate too, which would be trusted as an authority's"
        raise refusal(_CRL, problem, "move it to client_ca, or remove it")
    blocks = pem_blocks(pem, CRL_LABELS)
    if not blocks:
        remedy = (
            "put the authorities' lists there in PEM (-----BEGIN X509 CRL-----); "
            "openssl crl -inform DER -in FILE makes that of a .crl of Windows"
        )
        raise refusal(_CRL, f"{path} holds no revocation list in PEM", remedy)
    return _read_all(blocks, read_crl, _CRL, path, warnings)


def _read_all(
    blocks: Sequence[bytes],
    read: Callable[[bytes], T],
    key: str,
    path: Path,
    warnings: list[ConfigProblem],
) -> Sequence[T]:
    """Return the facts of the readable blocks. Another block is a warning, if OpenSSL accepts the file."""
    facts, damaged = [], []
    for number, block in enumerate(blocks, 1):
        try:
            facts.append(read(block))
        except MalformedError:
            damaged.append(number)
    _check_openssl_loads(key, path, damaged)
    for number in damaged:
        problem = f"block {number} of {path} cannot be read, so that its names and dates are not known"
        warnings.append(ConfigProblem(key=key, problem=problem, remedy="check it by openssl asn1parse"))
    return facts


def _check_openssl_loads(key: str, path: Path, damaged: Sequence[int]) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        if damaged:
            problem = f"block {damaged[0]} of {path} is damaged"
            raise refusal(key, problem, "copy it there anew") from error
        problem = f"OpenSSL can't use {path}: {error.reason or error.strerror}"
        remedy = "copy it there anew; openssl storeutl -text FILE shows whether it is whole"
        raise refusal(key, problem, remedy) from error


def _find_missing_issuers(authorities: Sequence[CertificateFacts], path: Path) -> Iterator[ConfigProblem]:
    known = {folded_name(authority.subject) for authority in authorities}
    for authority in authorities:
        if authority.issuer and folded_name(authority.issuer) not in known:
            yield ConfigProblem(
                key=_CA,
                problem=f"{authority.subject} in {path} was issued by {authority.issuer}, which isn't there",
                remedy="add the certificates of all authorities up to the root",
            )


def _find_missing_lists(
    authorities: Sequence[CertificateFacts], lists: Sequence[CrlFacts], path: Path, now: datetime
) -> Iterator[ConfigProblem]:
    known = {folded_name(crl.issuer) for crl in lists}
    for authority in authorities:
        if (authority.end or _NEVER) > now and folded_name(authority.subject) not in known:
            yield ConfigProblem(
                key=_CRL,
                problem=f"{path} has no list of {authority.subject}, so its certificates are all refused",
                remedy="add it: each authority in client_ca needs its list there",
            )
