import hashlib
from pathlib import Path

import pytest

from kkdcpd.config.secret_files import TokensFile, read_principals_key, read_tokens
from kkdcpd.errors import ConfigError

SETTING = "realms.TEST.tokens_file"
REMEDY = (
    "write a secret of 16 to 128 of the characters A-Z a-z 0-9 . _ ~ - on a line; "
    "`openssl rand -hex 16` makes one"
)


def _read(path: Path, text: str, *, mode: int = 0o640) -> TokensFile:
    path.write_text(text)
    path.chmod(mode)
    return read_tokens(path, setting=SETTING)


def _refusal(path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        _read(path, text)
    return str(caught.value)


def test_digests_of_secrets_are_read_each_once(tmp_path: Path) -> None:
    text = "# ours\n\n  first-secret-of-all  \r\nSecond.Secret_of~all\nfirst-secret-of-all"
    found = _read(tmp_path / "tokens", text)
    digests = [hashlib.sha256(token).digest() for token in (b"first-secret-of-all", b"Second.Secret_of~all")]
    assert found == TokensFile(digests=tuple(digests), warnings=())


def test_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path) -> None:
    with_mark = _read(tmp_path / "a", "\ufeff0123456789abcdef")
    assert with_mark == _read(tmp_path / "b", "0123456789abcdef")


@pytest.mark.parametrize("token", ["a" * 15, "a" * 129, "0123456789abcde/", "0123456789 abcdef", "ä" * 16])
def test_bad_token_is_refused_with_its_line_and_not_quoted(tmp_path: Path, token: str) -> None:
    path = tmp_path / "tokens"
    text = f"# comment\n{'b' * 16}\n{token}\n"
    assert _refusal(path, text) == f"{SETTING}: line 3 of {path} is no secret to use; {REMEDY}"


def test_file_without_tokens_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    assert _refusal(path, "# none yet\n\n") == f"{SETTING}: there is no secret in {path}; {REMEDY}"


def test_missing_tokens_are_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_tokens(tmp_path / "tokens", setting=SETTING)
    assert str(caught.value) == (
        f"{SETTING}: there is no file {tmp_path}/tokens; put it there, or correct the path"
    )


def test_tokens_that_others_can_read_are_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    (warning,) = _read(path, "a" * 16, mode=0o644).warnings
    assert str(warning) == (
        f"{SETTING}: {path} is open to other users (mode 0644); close it: chmod 0640 {path}"
    )


@pytest.mark.parametrize(
    "contents", [b"0123456789abcdef\n", b"  0123456789abcdef\r\n\r\n", b"0123456789abcdef"]
)
def test_white_space_around_the_key_does_not_count(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(contents)
    path.chmod(0o640)
    found = read_principals_key(path, setting="log.principals_key_file")
    assert (found.key, found.warnings) == (b"0123456789abcdef", ())
    assert "0123" not in repr(found)


@pytest.mark.parametrize("contents", [b"", b"\n", b"0123456789abcde\n"])
def test_short_key_is_refused_without_being_quoted(tmp_path: Path, contents: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(contents)
    with pytest.raises(ConfigError) as refused:
        read_principals_key(path, setting="log.principals_key_file")
    (problem,) = refused.value.problems
    assert problem.key == "log.principals_key_file"
    assert "openssl rand -hex 32" in str(problem)
    assert "0123" not in str(problem)


def test_key_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef")
    path.chmod(0o644)
    (warning,) = read_principals_key(path, setting="log.principals_key_file").warnings
    assert "chmod 0640" in str(warning)
