"""The context for connections to KDC proxies, and pins."""

import hashlib
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config import HttpsConfig
from kkdcpd.errors import SettingError
from kkdcpd.upstream.https.client_tls import build_client_context, pin_of
from lab.authority import Authority


@pytest.mark.parametrize("has_rsa_key", [False, True])
def test_pin_is_the_digest_of_the_public_key(authority: Authority, has_rsa_key: bool) -> None:
    pair = authority.issue("pinned.test", file_name=f"pinned-{has_rsa_key}", has_rsa_key=has_rsa_key)
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert pin_of(certificate.public_bytes(Encoding.DER)) == hashlib.sha256(key).digest()


@given(st.binary(max_size=300))
def test_bytes_that_are_no_certificate_have_no_pin_or_one_of_their_own(data: bytes) -> None:
    pin = pin_of(data)
    assert pin is None or len(pin) == 32


def test_context_checks_names_and_chains_and_speaks_no_old_tls(authority: Authority) -> None:
    context = build_client_context(HttpsConfig(ca_file=authority.certificate))
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.cert_store_stats()["x509_ca"] == 1


def test_unusable_files_are_named_with_a_remedy(tmp_path: Path, authority: Authority) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for options in (
        HttpsConfig(ca_file=tmp_path / "missing.pem"),
        HttpsConfig(ca_file=empty),
        HttpsConfig(ca_file=authority.certificate, certificate=empty),
        HttpsConfig(ca_file=authority.certificate, certificate=authority.certificate, key=empty),
    ):
        with pytest.raises(SettingError) as caught:
            build_client_context(options)
        assert str(tmp_path) in caught.value.problem or str(authority.certificate) in caught.value.problem
        assert caught.value.remedy
