"""Runs `bench.kdc` in another process."""

import os
import signal
import sys
from contextlib import ExitStack

from lab.program import Program

__all__ = ["Kdc", "start_kdcs"]


def start_kdcs(stack: ExitStack, *, count: int = 1, seconds: float = 0.0) -> list[int]:
    """Start a number of KDCs with a delay, and return their ports."""
    return _ports(stack.enter_context(_program(seconds, count)))


def _program(seconds: float, count: int, port: int = 0) -> Program:
    command = (sys.executable, "-m", "bench.kdc", str(seconds), str(count), str(port))
    return Program("kdc", *command, environment=os.environ)


def _ports(program: Program) -> list[int]:
    line = program.wait_for_line(lambda line: line.startswith("kdcs at ports"))
    return [int(word) for word in line.split()[3:]]


class Kdc:
    """A KDC that can end, hang, and recover on the same port."""

    def __init__(self, stack: ExitStack) -> None:
        self._program = _program(0.0, 1)
        stack.callback(self.die)
        self.port = _ports(self._program)[0]

    def die(self) -> None:
        """End the KDC: its port refuses."""
        self._program.send_signal(signal.SIGCONT)
        self._program.stop()

    def revive(self) -> None:
        """Start the KDC again."""
        self._program = _program(0.0, 1, self.port)
        _ports(self._program)

    def hang(self) -> None:
        """Stop the KDC: the kernel accepts connections, but no reply comes."""
        self._program.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Continue the KDC, which first answers the waiting requests."""
        self._program.send_signal(signal.SIGCONT)
