import os
from pathlib import Path

import pytest

from kkdcpd.config.pem import CERTIFICATE_LABELS, CRL_LABELS, file_bytes, mode_problem, pem_blocks, read_pem
from kkdcpd.errors import ConfigError

OTHER_USER = 65534


def test_certificates_are_found_whatever_stands_between(tmp_path: Path) -> None:
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


def test_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        file_bytes(tmp_path, "key")
    assert not caught.value.is_temporary
    assert str(caught.value) == (f"key: {tmp_path} can't be read: Is a directory; name a file in it")


def test_file_that_the_user_may_not_read_is_told_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    os.seteuid(OTHER_USER)
    try:
        with pytest.raises(ConfigError, match=r"can't be read: Permission denied; let .*chmod"):
            file_bytes(path, "tls.key")
    finally:
        os.seteuid(0)


@pytest.mark.parametrize(("mode", "remedy"), [(0o644, "0640"), (0o666, "0640"), (0o660, "0640"), (0o600, "")])
def test_mode_is_closed_as_far_as_need_be(tmp_path: Path, mode: int, remedy: str) -> None:
    path = tmp_path / "key.pem"
    path.touch()
    path.chmod(mode)
    problem = mode_problem(path, "key", 0o037)
    assert (problem.remedy if problem else "") == (f"close it: chmod {remedy} {path}" if remedy else "")
