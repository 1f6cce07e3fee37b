import os
from pathlib import Path

import pytest

from kkdcpd.config.pem import CERTIFICATE, file_bytes, mode_problem, read_pem
from kkdcpd.errors import ConfigError

NOBODY = 65534


def test_certificates_are_found_whatever_stands_between(tmp_path: Path) -> None:
    block = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
    path = tmp_path / "ca.pem"
    path.write_bytes(f"one\n{block}\n".encode() + b"\xe9\xff\n" + block.encode())
    assert CERTIFICATE.findall(read_pem(path, "key")) == [block, block]


def test_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        file_bytes(tmp_path, "key")
    assert str(caught.value) == (f"key: {tmp_path} can't be read: Is a directory; name a file in it")


def test_file_that_the_user_may_not_read_is_given_to_the_units_group(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.touch(mode=0o600)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(ConfigError, match=f"chgrp kkdcpd-tls {path} && chmod 0640 {path}"):
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
