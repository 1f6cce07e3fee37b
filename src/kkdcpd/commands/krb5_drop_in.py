"""Writes a krb5.conf drop-in and removes it again, and never touches a file of another program."""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MARK", "DropInError", "is_read_by_includedir", "krb5_drop_in"]

MARK = "# Made by kkdcpd agent, which removes this file when it ends."
"""The first line of each drop-in. A file with it may be replaced: a killed agent cannot remove its file."""

_MODE = 0o644  # all programs of the host read krb5.conf
_MAX_BYTES = 1 << 20

_INCLUDED = re.compile(r"[A-Za-z0-9_-]+|[^.].*\.conf")
"""The names that libkrb5 reads in an `includedir` (krb5.conf(5))."""


class DropInError(Exception):
    """The drop-in cannot be written; the text names the file, the reason and a remedy."""


def is_read_by_includedir(path: Path) -> bool:
    """Whether libkrb5 reads a file of this name in the folder of an `includedir` line."""
    return bool(_INCLUDED.fullmatch(path.name))


@contextmanager
def krb5_drop_in(path: Path, text: str) -> Iterator[None]:
    """Keep a drop-in at `path` while the context lasts.

    At the end, the file is removed only if it still has the content that was written here: another agent may
    have replaced it.

    Raises:
        DropInError: the file exists and is not a drop-in of kkdcpd, or it cannot be written.
    """
    # The agent of another run may write the same text. The number tells the two files apart.
    content = f"{MARK}\n# {secrets.token_hex(8)}\n{text}".encode()
    try:
        _write(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "name a file in an existing folder where this user may write"
        raise DropInError(f"{path}: {reason}; {remedy}") from error
    try:
        yield
    finally:
        _remove(path, content)


def _write(path: Path, content: bytes) -> None:
    """Write the whole content or nothing: programs may read the file at any time."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, content)
        try:
            # Unlike a rename, a link never replaces a file.
            os.link(temporary, path)
        except FileExistsError:
            _expect_own(path)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_new(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        os.fchmod(file.fileno(), _MODE)  # whatever the umask is
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _expect_own(path: Path) -> None:
    if not _read(path).startswith(MARK.encode() + b"\n"):
        raise DropInError(f"{path}: this file was not made by kkdcpd agent; name another file, or remove it")


def _remove(path: Path, content: bytes) -> None:
    with contextlib.suppress(OSError):
        if _read(path) == content:
            path.unlink()


def _read(path: Path) -> bytes:
    """Return the content; nothing of a path that is no regular file, such as a symbolic link."""
    try:
        # Without O_NONBLOCK, a named pipe without a writer would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.read(descriptor, _MAX_BYTES) if is_file else b""
    finally:
        os.close(descriptor)
