"""Opens UNIX listening sockets, and watches their files."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

__all__ = ["BACKLOG", "UnixFile", "open_unix"]

BACKLOG = 1024
"""Connections that may wait to be accepted. The kernel lowers the number to net.core.somaxconn."""


class UnixFile:
    """The file of a listening UNIX socket. Another process may have replaced the file by its own.

    Errors of the file system are ignored: they are no reason to end the service.
    """

    def __init__(self, path: Path) -> None:
        """Remember the identity of the file at the path.

        Raises:
            OSError: no file is there.
        """
        self._path = path
        self._identity = _identity(path)

    @property
    def is_there(self) -> bool:
        """Whether the file is still at its path. Without it, no client can connect."""
        with contextlib.suppress(OSError):
            return _identity(self._path) == self._identity
        return False

    def set_mode(self, mode: int) -> None:
        """Set the mode of the file, if it is still ours."""
        with contextlib.suppress(OSError):
            if self.is_there:
                self._path.chmod(mode)

    def remove(self) -> None:
        """Remove the file, if it is still ours."""
        with contextlib.suppress(OSError):
            if self.is_there:
                self._path.unlink()


def open_unix(path: Path, mode: int) -> socket.socket:
    """Listen on a UNIX socket with this file mode. Replace the socket file of a process that was killed.

    Raises:
        OSError: the socket cannot be opened.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # Between bind and chmod only the user of kkdcpd may connect.
        umask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(umask)
        path.chmod(mode)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _remove_stale(path: Path) -> None:
    """Remove the socket file of a killed process. If a process listens there, it stays, and bind fails.

    Raises:
        FileExistsError: the path has another kind of file.
    """
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except BlockingIOError:
            return  # a process listens there, and its backlog is full


def _identity(path: Path) -> tuple[int, int]:
    """Return values that identify a file. The kernel may use the number of an inode again."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns
