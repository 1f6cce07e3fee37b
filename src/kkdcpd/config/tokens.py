"""The secrets that open a realm, from the file that an administrator keeps them in. Only digests stay."""

import hashlib
import re
from pathlib import Path

from kkdcpd.config.pem import file_bytes, mode_problem, refusal
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["TokensFile", "read_tokens"]

# RFC 3986 2.3: the characters that every client leaves as they are. 16 of them, drawn at random, are 96 bits.
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,128}")
_MODE_TOO_OPEN = 0o037
_REMEDY = (
    "write a secret of 16 to 128 of the characters A-Z a-z 0-9 . _ ~ - on a line; "
    "`openssl rand -hex 16` makes one"
)


@frozen
class TokensFile:
    """What is in a file: SHA-256 digests, each once, and what is worth a warning."""

    digests: tuple[bytes, ...]
    warnings: tuple[ConfigProblem, ...]


def read_tokens(path: Path, *, setting: str) -> TokensFile:
    """Read a file with a secret on each line; empty ones and those that begin with # don't count.

    Raises:
        ConfigError: there is no file or no secret in it, or some can't be used; none is quoted.
    """
    lines = file_bytes(path, setting).decode("utf-8-sig", "replace").splitlines()
    tokens = {number: line.strip() for number, line in enumerate(lines, 1)}
    tokens = {number: token for number, token in tokens.items() if token and not token.startswith("#")}
    problems = [
        ConfigProblem(key=setting, problem=f"line {number} of {path} is no secret to use", remedy=_REMEDY)
        for number, token in tokens.items()
        if not _TOKEN.fullmatch(token)
    ]
    if problems:
        raise ConfigError(problems)
    if not tokens:
        raise refusal(setting, f"there is no secret in {path}", _REMEDY)
    warning = mode_problem(path, setting, _MODE_TOO_OPEN)
    digests = dict.fromkeys(hashlib.sha256(token.encode()).digest() for token in tokens.values())
    return TokensFile(digests=tuple(digests), warnings=(warning,) if warning else ())
