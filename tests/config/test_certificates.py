from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kkdcpd.config.certificates import CERTIFICATE_LABELS, EXPIRY_WARNING, inspect_pair, pem_blocks, read_pem
from kkdcpd.config.client_ca import CRL_LABELS
from kkdcpd.errors import ConfigError

from .conftest import NOT_AFTER, NOT_BEFORE, Issuer

NOW = datetime(2026, 2, 1, tzinfo=UTC)


def _refusal(certificate: Path, key: Path, now: datetime = NOW) -> str:
    with pytest.raises(ConfigError) as caught:
        inspect_pair(certificate, key, section="tls", now=now)
    return str(caught.value)


def _warnings(certificate: Path, key: Path, now: datetime = NOW) -> str:
    return "\n".join(map(str, inspect_pair(certificate, key, section="tls", now=now).warnings))


@pytest.mark.parametrize("key_type", list(trustme.KeyType))
def test_good_pair_has_dns_names_and_no_warnings(issuer: Issuer, key_type: trustme.KeyType) -> None:
    pair = issuer.issue("Kdc.Example.com", "*.example.com", "192.0.2.1", key_type=key_type)
    facts = inspect_pair(*pair, section="tls", now=NOW)
    assert facts.dns_names == ("kdc.example.com", "*.example.com")
    assert facts.warnings == ()


def test_certificate_and_key_may_share_a_file(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    key.write_bytes(key.read_bytes() + certificate.read_bytes())
    assert inspect_pair(key, key, section="tls", now=NOW).dns_names == ("kdc.example.com",)


def test_text_in_any_encoding_may_stand_round_the_certificate(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    certificate.write_bytes(b"Issuer: \xe9\xff\n" + certificate.read_bytes())
    assert _warnings(certificate, key) == ""


def test_both_missing_files_are_problems(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "a.pem", tmp_path / "b.pem") == (
        f"tls.certificate: there is no file {tmp_path}/a.pem; put it there, or correct the path\n"
        f"tls.key: there is no file {tmp_path}/b.pem; put it there, or correct the path"
    )


def test_unreadable_file_is_refused_with_the_reason(issuer: Issuer, tmp_path: Path) -> None:
    certificate, _key = issuer.issue("kdc.example.com")
    assert _refusal(certificate, tmp_path) == (
        f"tls.key: {tmp_path} can't be read: Is a directory; name a file in it"
    )


def test_swapped_files_are_refused(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    assert _refusal(key, certificate) == (
        f"tls.certificate: {key} holds no certificate in PEM; "
        "put the server's certificate there in PEM (-----BEGIN CERTIFICATE-----), then its chain\n"
        f"tls.key: {certificate} holds no private key in PEM; "
        "put the certificate's private key there in PEM (-----BEGIN PRIVATE KEY-----)"
    )


def test_damaged_certificate_is_refused(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    certificate.write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    assert _refusal(certificate, key) == (
        f"tls.certificate: the first certificate in {certificate} is damaged; "
        "copy it there anew; openssl x509 -in FILE -text shows whether it is whole"
    )


def test_damaged_key_is_refused(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    key.write_text("-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n")
    line = _refusal(certificate, key)
    assert line.startswith(f"tls.key: OpenSSL can't use {key} with {certificate}: ")
    assert line.endswith(
        "; copy both files there anew; openssl pkey -in FILE -check shows whether a key is whole"
    )


@pytest.mark.parametrize("other_type", list(trustme.KeyType))
def test_key_of_another_certificate_is_refused(issuer: Issuer, other_type: trustme.KeyType) -> None:
    certificate, _key = issuer.issue("kdc.example.com")
    _other, key = issuer.issue("kdc.example.com", file="other-", key_type=other_type)
    assert _refusal(certificate, key) == (
        f"tls.key: {key} is not the key of the first certificate in {certificate}; "
        "name the key that belongs to it; the server's own certificate comes before its chain"
    )


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_key_with_a_passphrase_is_refused_with_a_command_to_decrypt(
    issuer: Issuer, form: serialization.PrivateFormat
) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    encrypted = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, form, serialization.BestAvailableEncryption(b"secret")
    )
    key.write_bytes(encrypted)
    assert _refusal(certificate, key) == (
        f"tls.key: the key in {key} needs a passphrase, and kkdcpd has none; "
        f"decrypt it: openssl pkey -in {key} -out NEW_FILE, and name the new file here"
    )


def test_certificate_outside_its_dates_can_be_served(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    for now in (NOT_AFTER + timedelta(seconds=1), NOT_BEFORE - timedelta(seconds=1)):
        facts = inspect_pair(certificate, key, section="tls", now=now)
        assert facts.item.problem(now)
        assert facts.warnings == ()


def test_certificate_that_expires_soon_is_a_warning(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    assert _warnings(certificate, key, NOT_AFTER - EXPIRY_WARNING) == ""
    assert _warnings(certificate, key, NOT_AFTER - EXPIRY_WARNING + timedelta(seconds=1)) == (
        f"tls.certificate: the certificate in {certificate} expires on 2026-04-01 00:00 UTC; renew it before"
    )


def test_certificate_without_alternative_names_is_a_warning(tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kdc.example.com")])
    issued = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=private.public_key())
        .serial_number(1)
        .not_valid_before(NOT_BEFORE)
        .not_valid_after(NOT_AFTER)
        .sign(private, hashes.SHA256())
    )
    certificate.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)
    assert _warnings(certificate, key) == (
        f"tls.certificate: the certificate in {certificate} has no subjectAltName, "
        "so clients will refuse it; "
        "get one that has the server's name there"
    )


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o440])
def test_key_for_owner_and_group_is_no_warning(issuer: Issuer, mode: int) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    key.chmod(mode)
    assert _warnings(certificate, key) == ""


@pytest.mark.parametrize(("mode", "remedy"), [(0o644, "0640"), (0o660, "0640"), (0o604, "0600")])
def test_key_open_to_others_is_a_warning(issuer: Issuer, mode: int, remedy: str) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    key.chmod(mode)
    assert _warnings(certificate, key) == (
        f"tls.key: {key} is open to other users (mode {mode:04o}); close it: chmod {remedy} {key}"
    )


def test_first_certificate_whose_issuer_does_not_follow_is_a_warning(ca: trustme.CA, tmp_path: Path) -> None:
    branch, stranger = ca.create_child_ca(), trustme.CA()
    issued = branch.issue_cert("kdc.example.com")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    key.touch(mode=0o600)
    key.write_bytes(issued.private_key_pem.bytes())
    leaf, *_chain = issued.cert_chain_pems
    certificate.write_bytes(leaf.bytes() + branch.cert_pem.bytes())
    assert _warnings(certificate, key) == ""
    certificate.write_bytes(leaf.bytes() + stranger.cert_pem.bytes() + branch.cert_pem.bytes())
    (warning,) = _warnings(certificate, key).splitlines()
    assert warning.startswith(f"tls.certificate: certificate 1 in {certificate} was issued by OU=")


def test_certificate_of_the_chain_that_has_expired_is_a_warning(issuer: Issuer) -> None:
    certificate, key = issuer.issue("kdc.example.com")
    _other, _key = issuer.issue("other.example.com", file="other-")
    certificate.write_bytes(certificate.read_bytes() + _other.read_bytes())
    warnings = _warnings(certificate, key, NOT_AFTER + timedelta(days=1))
    assert f"certificate 2 in {certificate} (" in warnings
    assert "expired on 2026-04-01 00:00 UTC; replace the chain" in warnings


def test_certificates_are_found_between_other_texts(tmp_path: Path) -> None:
    block = "-----BEGIN CERTIFICATE-----\r\nMI\r\nIB\r\n-----END CERTIFICATE-----"
    path = tmp_path / "ca.pem"
    path.write_bytes(f"one\n{block}\n".encode() + b"\xe9\xff\n" + block.encode())
    assert pem_blocks(read_pem(path, "key"), CERTIFICATE_LABELS) == [b"0\x82\x01"] * 2


@pytest.mark.parametrize(
    ("label", "labels"),
    [(label, CERTIFICATE_LABELS) for label in CERTIFICATE_LABELS] + [("X509 CRL", CRL_LABELS)],
)
def test_every_label_that_openssl_takes_is_found(label: str, labels: tuple[str, ...]) -> None:
    pem = f"-----BEGIN {label}-----\nMIIB\n-----END {label}-----\n-----BEGIN OTHER-----\n-----END OTHER-----"
    assert pem_blocks(pem, labels) == [b"0\x82\x01"]


def test_block_that_is_not_base64_is_empty() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----"
    assert pem_blocks(pem, CERTIFICATE_LABELS) == [b""]
