"""Writes lines to a descriptor even if its reader is slow or gone.

Each line is one write. A write waits only for a short time, and partial lines are avoided where possible.
"""

import contextlib
import fcntl
import functools
import os
import select
import socket
import stat
from collections.abc import Callable

__all__ = ["Output", "is_journal"]

PATIENCE_MILLISECONDS = 100
"""Longest wait for a slow reader. The whole process waits, so it waits only once."""

PIPE_BYTES = 1048576
"""Size of a pipe: enough for seconds of lines. Ordinary users may set this size (pipe(7), pipe-max-size)."""


def is_journal(descriptor: int, journal_stream: str | None) -> bool:
    """Whether systemd's journal reads this; `journal_stream` is $JOURNAL_STREAM (systemd.exec(5))."""
    if not journal_stream:
        return False
    status = os.fstat(descriptor)
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


class Output:
    """A descriptor for lines. Writing never blocks for long.

    All processes with the same open file, such as the shell, share the flag O_NONBLOCK. So a pipe or terminal
    is opened again, and each write to a socket has its own flag.
    """

    def __init__(self, descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        self._send: Callable[[bytes], int]
        if stat.S_ISSOCK(mode):
            own = socket.socket(fileno=os.dup(descriptor))
            self._descriptor = own.fileno()
            self._send = lambda line: own.send(line, socket.MSG_DONTWAIT)
            self._close = own.close
        else:
            self._descriptor = _open(descriptor, mode)
            self._send = functools.partial(os.write, self._descriptor)
            self._close = functools.partial(os.close, self._descriptor)
        self._is_stuck = False
        self._is_broken_off = False

    def write(self, line: bytes) -> bool:
        """Write the line or nothing. Return whether the line was written.

        A line has at most PIPE_BUF - 1 bytes, so lines of several processes do not mix.
        """
        if self._is_broken_off:
            line = b"\n" + line
        try:
            try:
                written = self._send(line)
            except BlockingIOError:
                if self._is_stuck:
                    raise  # an earlier line has waited
                self._wait()
                written = self._send(line)
        except BlockingIOError:
            self._is_stuck = True
            return False
        except OSError:
            return False  # the reader has ended, or the disk is full
        self._is_stuck = False
        self._is_broken_off = written < len(line)
        return not self._is_broken_off

    def close(self) -> None:
        """Close the descriptor. Idempotent, because logging closes every handler again at the end."""
        close, self._close = self._close, _nothing
        close()
        # Another file may get the number of the descriptor.
        self._send = functools.partial(os.write, -1)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(PATIENCE_MILLISECONDS)


def _nothing() -> None:
    """Do nothing: the descriptor is closed already."""


def _open(descriptor: int, mode: int) -> int:
    """Return a new descriptor of the file. If possible, a descriptor of a pipe or terminal does not block."""
    if stat.S_ISFIFO(mode):
        return _open_pipe(descriptor)
    return _open_terminal(descriptor) if os.isatty(descriptor) else os.dup(descriptor)


def _open_pipe(descriptor: int) -> int:
    """Return a descriptor of the same pipe that does not block."""
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        # The pipe of another user, or no /proc. Then all processes that share the pipe get the flag.
        own = os.dup(descriptor)
        os.set_blocking(own, False)
    with contextlib.suppress(OSError):
        if fcntl.fcntl(own, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
            fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return own


def _open_terminal(descriptor: int) -> int:
    """Return a descriptor of the same terminal that does not block, if it may be opened."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return os.dup(descriptor)
