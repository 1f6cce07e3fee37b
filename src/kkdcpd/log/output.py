"""Where the lines go: a descriptor that somebody may read slowly, or not at all.

Each line is one write. Nobody waits long for it to be taken, and none is written in part if that can be
helped.
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
"""How long a line waits for its reader, once: all that is served waits with it."""

PIPE_BYTES = 1048576
"""What a pipe is to hold: seconds of lines. An ordinary user may ask for as much (pipe(7), pipe-max-size)."""


def is_journal(descriptor: int, journal_stream: str | None) -> bool:
    """Whether systemd's journal reads this; `journal_stream` is $JOURNAL_STREAM (systemd.exec(5))."""
    if not journal_stream:
        return False
    status = os.fstat(descriptor)
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


class Output:
    """A descriptor to write lines to, without ever being held up by who reads them.

    The flag O_NONBLOCK is everybody's who has the same open file: the shell's, the parent's. So a pipe or
    terminal is opened anew, and a socket is told with each line.
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
        """Write the line, or nothing; tell whether it was written.

        At most PIPE_BUF - 1 octets are written by one call, whatever other processes write there too.
        """
        if self._is_broken_off:
            line = b"\n" + line
        try:
            try:
                written = self._send(line)
            except BlockingIOError:
                if self._is_stuck:
                    raise  # one has waited already
                self._wait()
                written = self._send(line)
        except BlockingIOError:
            self._is_stuck = True
            return False
        except OSError:
            return False  # nobody reads any more, or the disk is full
        self._is_stuck = False
        self._is_broken_off = written < len(line)
        return not self._is_broken_off

    def close(self) -> None:
        """Let go of it. Idempotent, as logging closes every handler once more at the end."""
        close, self._close = self._close, _nothing
        close()
        # Nothing goes there any more: another file may get the number.
        self._send = functools.partial(os.write, -1)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll(PATIENCE_MILLISECONDS)


def _nothing() -> None:
    """Do nothing: what is closed stays closed."""


def _open(descriptor: int, mode: int) -> int:
    """Return a descriptor of our own for it; that of a pipe or terminal doesn't block, where that can be."""
    if stat.S_ISFIFO(mode):
        return _open_pipe(descriptor)
    return _open_terminal(descriptor) if os.isatty(descriptor) else os.dup(descriptor)


def _open_pipe(descriptor: int) -> int:
    """Return a descriptor of the same pipe that doesn't block."""
    try:
        own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        # Somebody else's pipe, or no /proc. Then all who share it have to bear with it.
        own = os.dup(descriptor)
        os.set_blocking(own, False)
    with contextlib.suppress(OSError):
        if fcntl.fcntl(own, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
            fcntl.fcntl(own, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return own


def _open_terminal(descriptor: int) -> int:
    """Return a descriptor of the same terminal that doesn't block, if it may be opened."""
    try:
        return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return os.dup(descriptor)
