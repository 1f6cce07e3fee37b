"""A certificate authority for one run: trustme's, with ECDSA P-256 keys."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

__all__ = ["Authority", "CertificateFiles"]

_LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
_DAY = datetime.timedelta(days=1)
_LIFETIME = 365 * _DAY

_USAGES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
_USER_PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """PEM files of a certificate, with its chain, and of its key, which only the owner can read."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates into `directory`; `certificate` is the PEM file of the authority's own certificate.

    A second authority issues certificates that clients of the first authority do not trust.
    """

    def __init__(self, directory: Path, ca: trustme.CA | None = None) -> None:
        self._directory = directory
        self._ca = ca or trustme.CA(organization_name="kkdcpd's lab")
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def child(self, directory: Path) -> Self:
        """Make a subordinate authority."""
        return type(self)(directory, self._ca.create_child_ca())

    def issue(
        self,
        *identities: str,
        file_name: str = "server",
        is_expired: bool = False,
        begins: datetime.datetime | None = None,
        has_rsa_key: bool = False,
    ) -> CertificateFiles:
        """Issue a certificate for DNS names and IP addresses; an expired one is of 2001.

        A host with a slow clock sees a certificate that `begins` in the future. MIT's PKINIT needs an RSA
        key.
        """
        leaf = self._ca.issue_cert(
            *identities,
            key_type=trustme.KeyType.RSA if has_rsa_key else trustme.KeyType.ECDSA,
            not_before=_LONG_AGO if is_expired else begins,
            not_after=_LONG_AGO + _DAY if is_expired else None,
        )
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return self._write(file_name, chain, leaf.private_key_pem.bytes())

    def issue_client(
        self,
        subject: str,
        *,
        names: Sequence[str] = (),
        file_name: str = "client",
        is_expired: bool = False,
        lifetime: datetime.timedelta = _LIFETIME,
        usage: Literal["client", "server"] = "client",
    ) -> CertificateFiles:
        """Issue a certificate with the usage of a TLS client or of a server.

        The subject has the form of RFC 4514. A name begins with `dns:`, `email:`, `uri:` or `upn:`.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        start = _LONG_AGO if is_expired else _now() - _DAY
        end = start + _DAY if is_expired else _now() + lifetime
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name.from_rfc4514_string(subject))
            .issuer_name(self._own.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.ExtendedKeyUsage([_USAGES[usage]]), critical=False)
        )
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        certificate = builder.sign(self._key, hashes.SHA256())
        chain = certificate.public_bytes(serialization.Encoding.PEM)
        if self._ca.parent_cert:
            chain += self._ca.cert_pem.bytes()
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return self._write(file_name, chain, secret)

    def revocation_list(self, *revoked: Path, file_name: str = "crl.pem", is_expired: bool = False) -> Path:
        """Write a list that revokes the first certificate of each file; an expired list is of 2001."""
        begin = _LONG_AGO if is_expired else _now() - _DAY
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._own.subject)
            .last_update(begin)
            .next_update(begin + (_DAY if is_expired else _LIFETIME))
        )
        for path in revoked:
            entry = (
                x509.RevokedCertificateBuilder()
                .serial_number(x509.load_pem_x509_certificate(path.read_bytes()).serial_number)
                .revocation_date(begin)
                .build()
            )
            builder = builder.add_revoked_certificate(entry)
        crl = builder.sign(self._key, hashes.SHA256())
        path = self._directory / file_name
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return path

    @property
    def _own(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())

    @property
    def _key(self) -> ec.EllipticCurvePrivateKey:
        key = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return key

    def _write(self, file_name: str, certificates: bytes, key: bytes) -> CertificateFiles:
        files = CertificateFiles(
            certificate=self._directory / f"{file_name}.pem",
            key=self._directory / f"{file_name}.key",
        )
        files.certificate.write_bytes(certificates)
        files.key.unlink(missing_ok=True)
        files.key.touch(mode=0o600)
        files.key.write_bytes(key)
        return files


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _general_name(name: str) -> x509.GeneralName:
    kind, _colon, value = name.partition(":")
    match kind:
        case "dns":
            return x509.DNSName(value)
        case "email":
            return x509.RFC822Name(value)
        case "uri":
            return x509.UniformResourceIdentifier(value)
        case "upn":
            encoded = value.encode()
            return x509.OtherName(_USER_PRINCIPAL_NAME, bytes((0x0C, len(encoded))) + encoded)
    raise ValueError(f"no kind of name: {name}")
