"""Reads the files that a configuration names, in bounded time and memory.

The parent process reads the files again at a reload. A pipe or a device instead of a file must not block it.
"""

import errno
import os
import stat
from pathlib import Path

from kkdcpd.config.permissions import advice
from kkdcpd.config.problems import refusal
from kkdcpd.errors import ConfigProblem

__all__ = ["MAX_FILE_BYTES", "is_temporary", "mode_problem", "read_bytes", "read_file", "remedy_of"]

MAX_FILE_BYTES = 67108864
"""The largest files are revocation lists, of some 40 bytes for each certificate."""

_REMEDIES = {
    errno.EISDIR: "name a file in it",
    errno.ESPIPE: "put a regular file there",
    errno.EFBIG: "name another file",
    errno.ELOOP: "correct the symbolic link",
}

# A later start may succeed: the file system is mounted, or responds, or the system has free memory.
_TEMPORARY = {
    errno.ENOENT,
    errno.EIO,
    errno.ENXIO,
    errno.ENODEV,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}


def read_bytes(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """Return the contents of a regular file.

    Raises:
        OSError: the file cannot be read, is no regular file, or has more than `most` bytes.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.ESPIPE, "it is no regular file")
        contents = file.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes")
    return contents


def read_file(path: Path, setting: str) -> bytes:
    """Return the contents of the file that a setting names.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return read_bytes(path)
    except FileNotFoundError as error:
        remedy = "put it there, or correct the path"
        raise refusal(setting, f"there is no file {path}", remedy, is_temporary=True) from error
    except OSError as error:
        problem = f"{path} can't be read: {error.strerror}"
        raise refusal(setting, problem, remedy_of(error, path), is_temporary=is_temporary(error)) from error


def mode_problem(path: Path, setting: str, too_open: int) -> ConfigProblem | None:
    """Return the problem of a file with any of these bits in its mode."""
    mode = path.stat().st_mode & 0o777
    if not mode & too_open:
        return None
    return ConfigProblem(
        key=setting,
        problem=f"{path} is open to other users (mode {mode:04o})",
        remedy=f"close it: chmod {mode & ~too_open:04o} {path}",
    )


def remedy_of(error: OSError, path: Path) -> str:
    """Return the remedy for a file that exists and cannot be read."""
    return _REMEDIES.get(error.errno or 0) or advice(path)


def is_temporary(error: OSError) -> bool:
    """Whether a later start may find the file readable, although no administrator changes it."""
    return error.errno in _TEMPORARY


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
