from pathlib import Path

import pytest

from kkdcpd.config.principals_key import read_principals_key
from kkdcpd.errors import ConfigError


@pytest.mark.parametrize(
    "contents", [b"0123456789abcdef\n", b"  0123456789abcdef\r\n\r\n", b"0123456789abcdef"]
)
def test_white_space_around_the_secret_does_not_count(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(contents)
    path.chmod(0o640)
    found = read_principals_key(path, setting="log.principals_key_file")
    assert (found.key, found.warnings) == (b"0123456789abcdef", ())
    assert "0123" not in repr(found)


@pytest.mark.parametrize("contents", [b"", b"\n", b"0123456789abcde\n"])
def test_short_secret_is_refused_without_being_quoted(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(contents)
    with pytest.raises(ConfigError) as refused:
        read_principals_key(path, setting="log.principals_key_file")
    (problem,) = refused.value.problems
    assert problem.key == "log.principals_key_file"
    assert "openssl rand -hex 32" in str(problem)
    assert "0123" not in str(problem)


def test_file_that_others_can_read_is_worth_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef")
    path.chmod(0o644)
    (warning,) = read_principals_key(path, setting="log.principals_key_file").warnings
    assert "chmod 0640" in str(warning)
