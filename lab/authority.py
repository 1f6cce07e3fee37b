"""A certificate authority that exists for one run: trustme's, with ECDSA P-256 keys."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Authority", "ServerCertificate"]

_LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """The PEM files of a server: its certificate (with any chain) and its key, which only the owner reads."""

    certificate: Path
    key: Path


class Authority:
    """Issues server certificates into `directory`; `certificate` is the PEM file of the authority's own.

    Whoever needs a certificate that its clients don't trust makes a second authority.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA(organization_name="kkdcpd's lab")
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def issue(
        self, *identities: str, file_name: str = "server", is_expired: bool = False
    ) -> ServerCertificate:
        """Issue a certificate for DNS names and IP addresses; an expired one was good for a day in 2001."""
        leaf = self._ca.issue_cert(
            *identities,
            not_before=_LONG_AGO if is_expired else None,
            not_after=_LONG_AGO + datetime.timedelta(days=1) if is_expired else None,
        )
        files = ServerCertificate(
            certificate=self._directory / f"{file_name}.pem",
            key=self._directory / f"{file_name}.key",
        )
        files.certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        files.key.unlink(missing_ok=True)
        files.key.touch(mode=0o600)
        leaf.private_key_pem.write_to_path(files.key)
        return files
