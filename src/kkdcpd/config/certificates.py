"""Checks the PEM files (RFC 7468) of a certificate and its key, and warns about their faults.

OpenSSL decides whether a pair can be served. This module never refuses a pair that OpenSSL serves, even if it
violates RFC 5280. The time is a parameter.
"""

import binascii
import re
import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from kkdcpd.config.dates import DatedItem, DatedKind, minute
from kkdcpd.config.disk import mode_problem, read_file
from kkdcpd.config.problems import collected, refusal
from kkdcpd.errors import ConfigError, ConfigProblem, MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol.x509 import CertificateFacts, folded_name, read_certificate

__all__ = ["CERTIFICATE_LABELS", "EXPIRY_WARNING", "PairFacts", "inspect_pair", "pem_blocks", "read_pem"]

# The labels that OpenSSL accepts for a certificate (pem.h).
CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")

# ACME clients renew a certificate 30 days before its end. At 14 days, two weeks of renewals have failed.
EXPIRY_WARNING = timedelta(days=14)

_MODE_TOO_OPEN = (
    0o037  # a group that reads the key (such as ssl-cert) is common practice, other users are not
)
_MISMATCHES = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}

_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
# PKCS #8 (RFC 7468 11) or the older form with RFC 1421 headers.
_ENCRYPTED_KEY = re.compile(r"-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED", re.MULTILINE)

_DNS = "dns:"
_UNREAD = CertificateFacts(subject="", issuer="", start=None, end=None, names=())


@frozen
class PairFacts:
    """The facts of a usable pair. `dns_names` are the names for SNI, in small letters."""

    item: DatedItem
    dns_names: tuple[str, ...]
    warnings: tuple[ConfigProblem, ...]


@frozen
class _Chain:
    """The certificates of a file, the server's own first. One that cannot be read has no facts."""

    path: Path
    setting: str
    certificates: Sequence[CertificateFacts]

    @property
    def leaf(self) -> CertificateFacts:
        return self.certificates[0]

    @property
    def item(self) -> DatedItem:
        return DatedItem(
            kind=DatedKind.SERVER,
            key=self.setting,
            path=self.path,
            subject=self.leaf.subject,
            names=self.leaf.names,
            start=self.leaf.start,
            end=self.leaf.end,
        )

    @property
    def dns_names(self) -> tuple[str, ...]:
        return tuple(name.removeprefix(_DNS).lower() for name in self.leaf.names if name.startswith(_DNS))

    def warning(self, problem: str, remedy: str) -> ConfigProblem:
        return ConfigProblem(key=self.setting, problem=problem, remedy=remedy)


def inspect_pair(certificate: Path, key: Path, *, section: str, now: datetime) -> PairFacts:
    """Return the facts of a certificate and its key.

    Raises:
        ConfigError: OpenSSL cannot serve the pair. The problems have keys below `section`.
    """
    certificate_setting, key_setting = f"{section}.certificate", f"{section}.key"
    problems: list[ConfigProblem] = []
    blocks: list[bytes] = []
    with collected(problems):
        blocks = _read_blocks(certificate, certificate_setting)
    with collected(problems):
        _check_key(key, key_setting)
    if problems:
        raise ConfigError(problems)
    chain = _Chain(path=certificate, setting=certificate_setting, certificates=list(map(_facts, blocks)))
    _check_openssl_loads(chain, key, key_setting)
    return PairFacts(
        item=chain.item,
        dns_names=tuple(filter(str.isascii, chain.dns_names)),
        warnings=(
            *_warn_of_dates(chain, now),
            *_warn_of_names(chain),
            *_warn_of_order(chain),
            *filter(None, [mode_problem(key, key_setting, _MODE_TOO_OPEN)]),
        ),
    )


def read_pem(path: Path, setting: str) -> str:
    """Return the text of a PEM file."""
    return read_file(path, setting).decode("latin-1")  # text between PEM blocks may have any encoding


def pem_blocks(pem: str, labels: Sequence[str]) -> list[bytes]:
    """Return the contents of all blocks with one of these labels. A block that is not base64 is empty."""
    label = "|".join(labels)
    blocks = re.findall(rf"-----BEGIN (?:{label})-----(.*?)-----END (?:{label})-----", pem, re.DOTALL)
    return list(map(_decoded, blocks))


def _decoded(block: str) -> bytes:
    try:
        return binascii.a2b_base64(block)
    except binascii.Error:
        return b""


def _read_blocks(path: Path, setting: str) -> list[bytes]:
    blocks = pem_blocks(read_pem(path, setting), CERTIFICATE_LABELS)
    if not blocks:
        remedy = "put the server's certificate there in PEM (-----BEGIN CERTIFICATE-----), then its chain"
        raise refusal(setting, f"{path} holds no certificate in PEM", remedy)
    return blocks


def _facts(block: bytes) -> CertificateFacts:
    try:
        return read_certificate(block)
    except MalformedError:
        return _UNREAD


def _check_key(path: Path, setting: str) -> None:
    pem = read_pem(path, setting)
    if _ENCRYPTED_KEY.search(pem):
        remedy = f"decrypt it: openssl pkey -in {path} -out NEW_FILE, and name the new file here"
        raise refusal(setting, f"the key in {path} needs a passphrase, and kkdcpd has none", remedy)
    if not _KEY.search(pem):
        remedy = "put the certificate's private key there in PEM (-----BEGIN PRIVATE KEY-----)"
        raise refusal(setting, f"{path} holds no private key in PEM", remedy)


def _check_openssl_loads(chain: _Chain, key: Path, key_setting: str) -> None:
    try:
        # Without a password, OpenSSL would ask for it on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain.path, key, password="")
    except ssl.SSLError as error:
        raise _explained(error, chain, key, key_setting) from error


def _explained(error: ssl.SSLError, chain: _Chain, key: Path, key_setting: str) -> ConfigError:
    if chain.leaf is _UNREAD:
        remedy = "copy it there anew; openssl x509 -in FILE -text shows whether it is whole"
        return refusal(chain.setting, f"the first certificate in {chain.path} is damaged", remedy)
    if error.reason in _MISMATCHES:
        problem = f"{key} is not the key of the first certificate in {chain.path}"
        remedy = "name the key that belongs to it; the server's own certificate comes before its chain"
        return refusal(key_setting, problem, remedy)
    if error.reason == "INVALID_CERTIFICATE":
        problem = f"OpenSSL refuses the certificate in {chain.path}: it has an extension that cannot be read"
        remedy = "get another one; openssl x509 -in FILE -text shows its extensions"
        return refusal(chain.setting, problem, remedy)
    problem = f"OpenSSL can't use {key} with {chain.path}: {error.reason or error.strerror}"
    remedy = "copy both files there anew; openssl pkey -in FILE -check shows whether a key is whole"
    return refusal(key_setting, problem, remedy)


def _warn_of_dates(chain: _Chain, now: datetime) -> Iterator[ConfigProblem]:
    start, end = chain.leaf.start, chain.leaf.end
    if start is None or end is None:
        problem = f"the validity dates of the certificate in {chain.path} cannot be read"
        yield chain.warning(problem, "ask its issuer for one with dates as RFC 5280 has them")
    elif now <= end < now + EXPIRY_WARNING:
        problem = f"the certificate in {chain.path} expires on {minute(end)}"
        yield chain.warning(problem, "renew it before")
    for number, issuer in enumerate(chain.certificates[1:], 2):
        if issuer.end and issuer.end < now:
            problem = (
                f"certificate {number} in {chain.path} ({issuer.subject}) expired on {minute(issuer.end)}"
            )
            yield chain.warning(problem, "replace the chain by the one that its issuer gives out now")


def _warn_of_names(chain: _Chain) -> Iterator[ConfigProblem]:
    # RFC 9525 2: clients look at subjectAltName only, never at the common name.
    if not chain.leaf.names:
        problem = f"the certificate in {chain.path} has no subjectAltName, so clients will refuse it"
        yield chain.warning(problem, "get one that has the server's name there")
    for name in chain.dns_names:
        if not name.isascii():
            problem = f'the certificate in {chain.path} has a DNS name beyond ASCII, "{name}"'
            remedy = "clients never find it: get a certificate that has the name as DNS writes it (xn--...)"
            yield chain.warning(problem, remedy)


def _warn_of_order(chain: _Chain) -> Iterator[ConfigProblem]:
    """Find the first certificate that its issuer does not follow, as far as both can be read."""
    for number, (one, following) in enumerate(pairwise(chain.certificates), 1):
        is_known = one.issuer and following.subject
        if is_known and folded_name(one.issuer) != folded_name(following.subject):
            words = f"was issued by {one.issuer}, but {following.subject} follows it"
            problem = f"certificate {number} in {chain.path} {words}"
            remedy = "let each certificate's issuer follow it: some clients find no way to the root otherwise"
            yield chain.warning(problem, remedy)
            return
