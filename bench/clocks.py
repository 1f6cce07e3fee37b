"""What a server costs, as Linux tells: CPU time, memory, descriptors. It is a process and all below it."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["cpu_seconds", "descriptors", "processes_of", "resident_bytes"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def processes_of(pid: int) -> list[int]:
    """Return the process and all that descend from it."""
    return [pid, *(each for child in _children(pid) for each in processes_of(child))]


def _children(pid: int) -> Iterator[int]:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            yield from map(int, (task / "children").read_text().split())


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that the server has taken so far, of processes that have ended as well."""
    return sum(_clock(each) + _ended(each) for each in processes_of(pid))


def _clock(pid: int) -> float:
    """Read the process's CPU clock, which counts nanoseconds where /proc counts ticks of 10 ms."""
    # As clock_getcpuclockid(3) makes it; user and system, all threads, those that have ended too.
    return time.clock_gettime(~pid << 3 | 2)


def _ended(pid: int) -> float:
    """Return what children took that have ended: cutime and cstime of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / _TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Return the memory of the server that is its own: pages that processes share count once (Pss)."""
    return _sum_of_all(pid, _pss)


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def descriptors(pid: int) -> int:
    """Return how many file descriptors the server has open."""
    return _sum_of_all(pid, lambda each: len(list(Path(f"/proc/{each}/fd").iterdir())))


def _sum_of_all(pid: int, read: Callable[[int], int]) -> int:
    """Sum what is read of each process, but of those that end meanwhile, as old workers do."""
    total = 0
    for each in processes_of(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += read(each)
    return total
