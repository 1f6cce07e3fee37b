"""Authorities and their lists; handshakes use them in tests/test_tls.py."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kkdcpd.config.client_ca import inspect_client_ca
from kkdcpd.errors import ConfigError
from lab.authority import Authority

NOW = datetime.now(UTC)
NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # trustme's authorities end in 3000


@pytest.fixture
def root(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "root")


@pytest.fixture
def branch(root: Authority, tmp_path: Path) -> Authority:
    return root.child(tmp_path / "branch")


def _refusal(ca: Path, crl: Path | None = None, *, now: datetime = NOW) -> str:
    with pytest.raises(ConfigError) as caught:
        inspect_client_ca(ca, crl, now=now)
    return str(caught.value)


def _problems(ca: Path, crl: Path | None = None, *, now: datetime = NOW) -> list[str]:
    """Return the warnings, and the problems of dates."""
    facts = inspect_client_ca(ca, crl, now=now)
    outside = (problem for item in facts.items if (problem := item.problem(now)))
    return list(map(str, (*facts.warnings, *outside)))


def _joined(path: Path, *files: Path) -> Path:
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


def test_authority_is_valid_with_and_without_its_list(root: Authority) -> None:
    assert _problems(root.certificate) == []
    assert _problems(root.certificate, root.revocation_list()) == []


def test_authorities_with_their_lists_are_valid(root: Authority, branch: Authority, tmp_path: Path) -> None:
    ca = _joined(tmp_path / "both.pem", branch.certificate, root.certificate)
    crl = _joined(tmp_path / "lists.pem", branch.revocation_list(), root.revocation_list())
    assert _problems(ca, crl) == []
    kinds = [item.kind.value for item in inspect_client_ca(ca, crl, now=NOW).items]
    assert kinds == ["client_ca", "client_ca", "client_crl", "client_crl"]


def test_newest_list_of_an_authority_counts(root: Authority, tmp_path: Path) -> None:
    outdated = root.revocation_list(file_name="outdated.pem", is_expired=True)
    for files in ((outdated, root.revocation_list()), (root.revocation_list(), outdated)):
        crl = _joined(tmp_path / "lists.pem", *files)
        assert _problems(root.certificate, crl) == []


def test_both_missing_files_are_problems(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "a", tmp_path / "b") == (
        f"tls.client_ca: there is no file {tmp_path}/a; put it there, or correct the path\n"
        f"tls.client_crl: there is no file {tmp_path}/b; put it there, or correct the path"
    )


def test_swapped_files_are_refused(root: Authority) -> None:
    crl = root.revocation_list()
    assert _refusal(crl, root.certificate) == (
        f"tls.client_ca: {crl} holds no certificate in PEM; put the authorities' certificates there in PEM "
        "(-----BEGIN CERTIFICATE-----); openssl x509 -inform DER -in FILE makes that of a .cer of Windows\n"
        f"tls.client_crl: {root.certificate} holds a certificate too, which would be trusted as an "
        "authority's; move it to client_ca, or remove it"
    )


def test_file_without_lists_is_refused(root: Authority, tmp_path: Path) -> None:
    crl = tmp_path / "crl.der"
    crl.write_bytes(b"0\x82")
    assert _refusal(root.certificate, crl) == (
        f"tls.client_crl: {crl} holds no revocation list in PEM; put the authorities' lists there in PEM "
        "(-----BEGIN X509 CRL-----); openssl crl -inform DER -in FILE makes that of a .crl of Windows"
    )


@pytest.mark.parametrize("inside", ["MIIB", "not base64", ""])
def test_damaged_blocks_are_named_by_number(root: Authority, tmp_path: Path, inside: str) -> None:
    ca, crl = tmp_path / "ca.pem", tmp_path / "crl.pem"
    whole = root.certificate.read_text()
    ca.write_text(f"{whole}-----BEGIN CERTIFICATE-----\n{inside}\n-----END CERTIFICATE-----\n")
    crl.write_text(f"-----BEGIN X509 CRL-----\n{inside}\n-----END X509 CRL-----\n")
    assert _refusal(ca, crl) == (
        f"tls.client_ca: block 2 of {ca} is damaged; copy it there anew\n"
        f"tls.client_crl: block 1 of {crl} is damaged; copy it there anew"
    )


def test_authority_without_its_root_is_refused(branch: Authority) -> None:
    line = _refusal(branch.certificate)
    assert line.startswith("tls.client_ca: OU=")
    assert "kkdcpd's lab, which isn't there; add the certificates of all authorities up to the root" in line


def test_authority_without_its_list_is_refused(root: Authority, branch: Authority, tmp_path: Path) -> None:
    ca = _joined(tmp_path / "both.pem", root.certificate, branch.certificate)
    line = _refusal(ca, root.revocation_list())
    assert line.startswith(f"tls.client_crl: {root.revocation_list()} has no list of OU=")
    assert line.endswith("; add it: each authority in client_ca needs its list there")


def test_outdated_list_is_usable_with_a_dated_problem(root: Authority) -> None:
    (line,) = _problems(root.certificate, root.revocation_list(is_expired=True))
    assert line.startswith("tls.client_crl: the revocation list of OU=")
    assert "expired on 2001-01-02 00:00 UTC; fetch the newest one; until then" in line


def test_list_of_the_future_is_usable_with_a_dated_problem(root: Authority) -> None:
    line = _problems(root.certificate, root.revocation_list(), now=NOW - timedelta(days=7))[-1]
    assert " is not valid before " in line
    assert line.endswith(" UTC), or wait")


def test_expired_authority_is_usable_with_a_dated_problem(root: Authority) -> None:
    (line,) = _problems(root.certificate, now=NEVER)
    assert line.startswith("tls.client_ca: the certificate of OU=")
    assert "expired on 3000-01-01 00:00 UTC; renew it, or remove it" in line


def test_authority_that_was_renewed_may_leave_its_old_certificate(tmp_path: Path) -> None:
    old, new = (_root(tmp_path / name, year) for name, year in (("old.pem", 2001), ("new.pem", 2026)))
    for files in ((old, new), (new, old)):
        facts = inspect_client_ca(_joined(tmp_path / "both.pem", *files), None, now=NOW)
        (item,) = facts.items
        assert item.problem(NOW) is None


def _root(path: Path, year: int) -> Path:
    """Create an authority with a name, valid for two years."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Root")])
    start = datetime(year, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    issued = (
        builder.serial_number(year)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=730))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(issued.public_bytes(serialization.Encoding.PEM))
    return path
