"""An issuer of certificates for configurations."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

NOT_BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2026, 4, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Issuer:
    """Puts certificates and keys into a directory, as an administrator would."""

    ca: trustme.CA
    directory: Path

    def issue(
        self, *names: str, file: str = "", key_type: trustme.KeyType = trustme.KeyType.ECDSA
    ) -> tuple[Path, Path]:
        issued = self.ca.issue_cert(*names, not_before=NOT_BEFORE, not_after=NOT_AFTER, key_type=key_type)
        certificate, key = self.directory / f"{file}certificate.pem", self.directory / f"{file}key.pem"
        certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        key.chmod(0o640)
        return certificate, key


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def issuer(ca: trustme.CA, tmp_path: Path) -> Issuer:
    return Issuer(ca=ca, directory=tmp_path)
