"""Shared memory as a process has it that has no others beside it."""

import mmap

from kkdcpd.guard import occupancy, shared_table
from kkdcpd.guard.occupancy import Occupancy
from kkdcpd.metrics.memory import Metrics, make_metrics
from kkdcpd.upstream import shared_notes
from kkdcpd.worker import SharedMemory

__all__ = ["alone", "shared_memory"]


def alone() -> Occupancy:
    """A count that nobody else adds to."""
    return Occupancy(_counters(1), 0)


def shared_memory(table_entries: int = 65536, metrics: Metrics | None = None) -> SharedMemory:
    """All that processes share, for as many as a test may have."""
    return SharedMemory(
        guard=shared_table.make_memory(table_entries, bytes(shared_table.SECRET_SIZE)),
        password_changes=shared_notes.make_memory(bytes(shared_notes.SECRET_BYTES)),
        connections=_counters(8),
        requests=_counters(8),
        metrics=metrics or make_metrics(rows=8),
    )


def _counters(rows: int) -> mmap.mmap:
    return occupancy.make_memory(rows, bytes(occupancy.SECRET_BYTES))
