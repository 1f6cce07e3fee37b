"""How files are read: none keeps us waiting and none takes all memory, whatever has been put in its place.

Files are read again at a reload, by the process that looks after all others. To open a pipe that no program
writes to would never end.
"""

import errno
import os
import stat
from pathlib import Path

from kkdcpd.config.permissions import advice

__all__ = ["MAX_FILE_BYTES", "is_temporary", "read_bytes", "remedy_of"]

MAX_FILE_BYTES = 67108864
"""The largest files are revocation lists, of some 40 bytes for each certificate."""

_REMEDIES = {
    errno.EISDIR: "name a file in it",
    errno.ESPIPE: "put a regular file there",
    errno.EFBIG: "name another file",
    errno.ELOOP: "correct the symbolic link",
}


# What a file system that is mounted or answers a little later, or a system with more room, cures.
_PASSING = {
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
    """Return what is in a regular file.

    Raises:
        OSError: it can't be read, is something else, or has more than `most` bytes.
    """
    with open(path, "rb", opener=_open_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.ESPIPE, "it is no regular file")
        contents = file.read(most + 1)
    if len(contents) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes")
    return contents


def remedy_of(error: OSError, path: Path) -> str:
    """Say what to do about a file that is there, but can't be read."""
    return _REMEDIES.get(error.errno or 0) or advice(path)


def is_temporary(error: OSError) -> bool:
    """Whether the file may be there, and readable, at a later start without anybody's doing."""
    return error.errno in _PASSING


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
