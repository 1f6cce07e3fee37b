"""Runs `bench.kdc` beside what is measured."""

import os
import sys
from contextlib import ExitStack

from lab.program import Program

__all__ = ["start_kdc"]


def start_kdc(stack: ExitStack, *, seconds: float = 0.0) -> int:
    """Start a KDC that answers after so many seconds; return its port."""
    command = (sys.executable, "-m", "bench.kdc", str(seconds))
    program = stack.enter_context(Program("kdc", *command, environment=os.environ))
    return int(program.wait_for_line(lambda line: line.startswith("kdc at port")).split()[-1])
