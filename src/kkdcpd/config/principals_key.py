"""The secret that hashed names in the log depend on, from the file that an administrator keeps it in."""

from dataclasses import field
from pathlib import Path

from kkdcpd.config.pem import file_bytes, mode_problem, refusal
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["PrincipalsKey", "read_principals_key"]

MIN_KEY_BYTES = 16
_MODE_TOO_OPEN = 0o037


@frozen
class PrincipalsKey:
    """What is in a file, without white space around it, and what is worth a warning."""

    key: bytes = field(repr=False)
    warnings: tuple[ConfigProblem, ...]


def read_principals_key(path: Path, *, setting: str) -> PrincipalsKey:
    """Read a file with one secret, text or not.

    Raises:
        ConfigError: there is no file, or its secret is so short that it could be guessed.
    """
    key = file_bytes(path, setting).strip()
    if len(key) < MIN_KEY_BYTES:
        raise refusal(
            setting,
            f"{path} has less than {MIN_KEY_BYTES} bytes",
            f"put a secret there, the same on all hosts: openssl rand -hex 32 > {path}",
        )
    warning = mode_problem(path, setting, _MODE_TOO_OPEN)
    return PrincipalsKey(key=key, warnings=(warning,) if warning else ())
