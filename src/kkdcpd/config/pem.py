"""The PEM files that a configuration names (RFC 7468), and the words for what is wrong with them."""

import re
from datetime import UTC, datetime
from pathlib import Path

from pyasn1.type.base import Asn1Item

from kkdcpd.config.disk import may_pass, read_octets, remedy_of
from kkdcpd.errors import ConfigError, ConfigProblem

__all__ = ["CERTIFICATE", "file_bytes", "minute", "mode_problem", "moment", "read_pem", "refusal"]

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def refusal(key: str, problem: str, remedy: str, *, passing: bool = False) -> ConfigError:
    """Return the error of a file that cannot be used; a `passing` one may be gone at a later start."""
    return ConfigError([ConfigProblem(key=key, problem=problem, remedy=remedy, may_pass=passing)])


def file_bytes(path: Path, setting: str) -> bytes:
    """Return what is in a file."""
    try:
        return read_octets(path)
    except FileNotFoundError as error:
        remedy = "put it there, or correct the path"
        raise refusal(setting, f"there is no file {path}", remedy, passing=True) from error
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        remedy = remedy_of(error)
        if isinstance(error, PermissionError):
            remedy += f"; for systemd's unit: chgrp kkdcpd-tls {path} && chmod 0640 {path}"
        raise refusal(setting, problem, remedy, passing=may_pass(error)) from error


def read_pem(path: Path, setting: str) -> str:
    """Return what is in a PEM file."""
    return file_bytes(path, setting).decode("latin-1")  # text between PEM blocks may be in any encoding


def moment(time: Asn1Item) -> datetime:
    """Read a Time (RFC 5280 4.1.2.5), which is in UTC."""
    when: datetime = time.getComponent().asDateTime
    return when.astimezone(UTC)


def minute(when: datetime) -> str:
    """Write a time for people."""
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
