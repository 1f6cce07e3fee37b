"""Reads the PEM files that a configuration names (RFC 7468), and words what is wrong with them."""

import binascii
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from kkdcpd.config.disk import is_temporary, read_bytes, remedy_of
from kkdcpd.errors import ConfigError, ConfigProblem

__all__ = [
    "CERTIFICATE_LABELS",
    "CRL_LABELS",
    "file_bytes",
    "minute",
    "mode_problem",
    "pem_blocks",
    "read_pem",
    "refusal",
]

# The labels that OpenSSL takes for each (pem.h).
CERTIFICATE_LABELS = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
CRL_LABELS = ("X509 CRL",)


def refusal(key: str, problem: str, remedy: str, *, passing: bool = False) -> ConfigError:
    """Return the error of a file that cannot be used; a `passing` one may be gone at a later start."""
    return ConfigError([ConfigProblem(key=key, problem=problem, remedy=remedy, is_temporary=passing)])


def file_bytes(path: Path, setting: str) -> bytes:
    """Return what is in a file."""
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        remedy = "put it there, or correct the path"
        raise refusal(setting, f"there is no file {path}", remedy, passing=True) from error
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise refusal(setting, problem, remedy_of(error, path), passing=is_temporary(error)) from error


def read_pem(path: Path, setting: str) -> str:
    """Return what is in a PEM file."""
    return file_bytes(path, setting).decode("latin-1")  # text between PEM blocks may be in any encoding


def pem_blocks(pem: str, labels: Sequence[str]) -> list[bytes]:
    """Return the contents of all blocks with one of these labels; of a block that is not base64, none."""
    label = "|".join(labels)
    blocks = re.findall(rf"-----BEGIN (?:{label})-----(.*?)-----END (?:{label})-----", pem, re.DOTALL)
    return list(map(_decoded, blocks))


def _decoded(block: str) -> bytes:
    try:
        return binascii.a2b_base64(block)
    except binascii.Error:
        return b""


def minute(when: datetime) -> str:
    """Write a time for an administrator."""
    return f"{when:%Y-%m-%d %H:%M} UTC"


def mode_problem(path: Path, setting: str, too_open: int) -> ConfigProblem | None:
    """Return what is wrong if the file's mode has any of these bits."""
    mode = path.stat().st_mode & 0o777
    if not mode & too_open:
        return None
    return ConfigProblem(
        key=setting,
        problem=f"{path} is open to other users (mode {mode:04o})",
        remedy=f"close it: chmod {mode & ~too_open:04o} {path}",
    )
