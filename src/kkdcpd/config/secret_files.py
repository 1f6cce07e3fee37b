"""Reads the files with secrets: the tokens of a realm, and the key of the pseudonyms in the log."""

import hashlib
import re
from dataclasses import field
from pathlib import Path

from kkdcpd.config.disk import mode_problem, read_file
from kkdcpd.config.problems import refusal
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["PrincipalsKey", "TokensFile", "read_principals_key", "read_tokens"]

# RFC 3986 2.3: no client changes these characters. 16 of them, drawn at random, are 96 bits.
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,128}")
_LINE_REMEDY = (
    "write a secret of 16 to 128 of the characters A-Z a-z 0-9 . _ ~ - on a line; "
    "`openssl rand -hex 16` makes one"
)
_MIN_KEY_BYTES = 16
_MODE_TOO_OPEN = 0o037


@frozen
class TokensFile:
    """The SHA-256 digests of the tokens in a file, each once, and warnings."""

    digests: tuple[bytes, ...]
    warnings: tuple[ConfigProblem, ...]


def read_tokens(path: Path, *, setting: str) -> TokensFile:
    """Read a file with a token on each line. Empty lines and lines that begin with # are comments.

    Raises:
        ConfigError: there is no file, no token, or an unusable token. The error does not quote tokens.
    """
    lines = read_file(path, setting).decode("utf-8-sig", "replace").splitlines()
    tokens = {number: line.strip() for number, line in enumerate(lines, 1)}
    tokens = {number: token for number, token in tokens.items() if token and not token.startswith("#")}
    problems = [
        ConfigProblem(
            key=setting, problem=f"line {number} of {path} is no secret to use", remedy=_LINE_REMEDY
        )
        for number, token in tokens.items()
        if not _TOKEN.fullmatch(token)
    ]
    if problems:
        raise ConfigError(problems)
    if not tokens:
        raise refusal(setting, f"there is no secret in {path}", _LINE_REMEDY)
    warning = mode_problem(path, setting, _MODE_TOO_OPEN)
    digests = dict.fromkeys(hashlib.sha256(token.encode()).digest() for token in tokens.values())
    return TokensFile(digests=tuple(digests), warnings=(warning,) if warning else ())


@frozen
class PrincipalsKey:
    """The key in a file, without white space around it, and warnings."""

    key: bytes = field(repr=False)
    warnings: tuple[ConfigProblem, ...]


def read_principals_key(path: Path, *, setting: str) -> PrincipalsKey:
    """Read a file with a key, which may be any bytes.

    Raises:
        ConfigError: there is no file, or an attacker could guess the key, because it is short.
    """
    key = read_file(path, setting).strip()
    if len(key) < _MIN_KEY_BYTES:
        raise refusal(
            setting,
            f"{path} has less than {_MIN_KEY_BYTES} bytes",
            f"put a secret there, the same on all hosts: openssl rand -hex 32 > {path}",
        )
    warning = mode_problem(path, setting, _MODE_TOO_OPEN)
    return PrincipalsKey(key=key, warnings=(warning,) if warning else ())
