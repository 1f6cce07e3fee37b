"""The control socket: by it `kkdcpd reload` asks for a reload, and hears what came of it.

A question is one line, and so is the answer, in JSON. Who may connect is a matter of the file's mode: only
our own user and root.
"""

import contextlib
import errno
import json
import selectors
import socket
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from kkdcpd.frozen import frozen
from kkdcpd.supervisor.sockets import UnixFile, open_unix

__all__ = ["Asker", "Control", "ReloadOutcome", "ask_for_reload"]

RELOAD = b"reload\n"

MODE = 0o600

MAX_ASKERS = 8
"""Who asks beyond that takes the place of who has waited for longest."""

MAX_ANSWER_BYTES = 1048576


@frozen
class ReloadOutcome:
    """What came of a reload: the generation that serves now, and one line for each problem."""

    is_done: bool
    generation: int
    problems: tuple[str, ...] = ()


class Asker:
    """One who asks, and waits for the answer."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.settimeout(0.0)

    def answer(self, outcome: ReloadOutcome) -> None:
        """Answer and hang up. Who has left misses nothing."""
        with contextlib.suppress(OSError):
            self.socket.send(json.dumps(asdict(outcome)).encode() + b"\n")
        self.socket.close()


class Control:
    """The parent's end."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, reload: Callable[[Asker], None]) -> None:
        """Listen.

        Raises:
            OSError: the socket can't be had.
        """
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._socket = open_unix(path, MODE)
        self._file = UnixFile(path)
        self._selector = selector
        self._reload = reload
        self._askers: list[Asker] = []
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    @property
    def is_reachable(self) -> bool:
        """Whether the socket's file is still there."""
        return self._file.is_there

    def close(self) -> None:
        """Listen no longer. Those whose question was heard are still answered."""
        for asker in self._askers:
            self._selector.unregister(asker.socket)
            asker.socket.close()
        self._askers.clear()
        self._selector.unregister(self._socket)
        self._socket.close()
        self._file.remove()

    def detach(self) -> None:
        """Close our descriptors in a process that was forked."""
        for asker in self._askers:
            asker.socket.close()
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            asker = Asker(self._socket.accept()[0])
            self._askers.append(asker)
            self._selector.register(asker.socket, selectors.EVENT_READ, lambda: self._listen_to(asker))
        if len(self._askers) > MAX_ASKERS:
            self._forget(self._askers[0]).socket.close()

    def _listen_to(self, asker: Asker) -> None:
        try:
            question = asker.socket.recv(len(RELOAD))
        except OSError:
            question = b""
        self._forget(asker)
        if question == RELOAD:
            self._reload(asker)
        else:
            asker.socket.close()

    def _forget(self, asker: Asker) -> Asker:
        self._askers.remove(asker)
        self._selector.unregister(asker.socket)
        return asker


def ask_for_reload(path: Path, *, timeout: float) -> ReloadOutcome:
    """Ask the kkdcpd that listens there for a reload, and wait for its end.

    Raises:
        OSError: nobody is there, or nobody answers.
    """
    answer = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        sock.connect(str(path))
        sock.sendall(RELOAD)
        while not answer.endswith(b"\n") and len(answer) < MAX_ANSWER_BYTES:
            data = sock.recv(65536)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "it hung up")
            answer += data
    fields = json.loads(answer)
    return ReloadOutcome(**fields | {"problems": tuple(fields["problems"])})
