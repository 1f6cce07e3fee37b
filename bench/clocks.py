"""Reads CPU time, memory and descriptors of a server: a process and its descendants."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["cpu_seconds", "descriptors", "processes_of", "resident_bytes"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def processes_of(pid: int) -> list[int]:
    """Return the process and all its descendants."""
    return [pid, *(each for child in _children(pid) for each in processes_of(child))]


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the server, with its ended processes."""
    return sum(_clock(each) + _ended(each) for each in processes_of(pid))


def _clock(pid: int) -> float:
    """Read the process's CPU clock, which counts nanoseconds; /proc counts ticks of 10 ms."""
    # The clock id of clock_getcpuclockid(3): user and system time of all threads, with ended ones.
    return time.clock_gettime(~pid << 3 | 2)


def _ended(pid: int) -> float:
    """Return the CPU time of ended children: cutime and cstime of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Return the server's own memory. Each shared page counts once (Pss)."""
    return _sum_of_all(pid, _pss)


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def descriptors(pid: int) -> int:
    """Return the number of open file descriptors of the server."""
    return _sum_of_all(pid, lambda each: len(list(Path(f"/proc/{each}/fd").iterdir())))


def _sum_of_all(pid: int, read: Callable[[int], int]) -> int:
    """Sum a value of all processes, without processes that end during the reading."""
    total = 0
    for each in processes_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += read(each)
    return total
