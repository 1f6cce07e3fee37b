"""Certificates, and the options with which kkdcpd trusts them."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kkdcpd.config import HttpsConfig
from lab.authority import Authority, CertificateFiles
from tests.support.fake_kdc_proxy import NAME


@pytest.fixture(scope="module")
def files(authority: Authority) -> CertificateFiles:
    """The certificate of the fake KDC proxies."""
    return authority.issue(NAME, file_name="proxy")


@pytest.fixture
def options(authority: Authority) -> HttpsConfig:
    return HttpsConfig(ca_file=authority.certificate)


@pytest.fixture(scope="module")
def client_files(authority: Authority) -> CertificateFiles:
    return authority.issue_client("CN=agent")


@pytest.fixture(scope="module")
def pin(files: CertificateFiles) -> bytes:
    """The digest of the proxies' public key."""
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).digest()
