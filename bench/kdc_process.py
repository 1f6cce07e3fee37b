"""Runs `bench.kdc` beside what is measured."""

import os
import sys
from contextlib import ExitStack

from lab.program import Program

__all__ = ["start_kdc", "start_kdcs"]


def start_kdc(stack: ExitStack, *, seconds: float = 0.0) -> int:
    """Start a KDC that answers after so many seconds; return its port."""
    return start_kdcs(stack, count=1, seconds=seconds)[0]


def start_kdcs(stack: ExitStack, *, count: int, seconds: float = 0.0) -> list[int]:
    """Start so many, and return their ports."""
    command = (sys.executable, "-m", "bench.kdc", str(seconds), str(count))
    program = stack.enter_context(Program("kdc", *command, environment=os.environ))
    line = program.wait_for_line(lambda line: line.startswith("kdcs at ports"))
    return [int(word) for word in line.split()[3:]]
