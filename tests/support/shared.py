"""Makes shared memory for tests with one process."""

from dataclasses import replace

from kkdcpd.guard.shared_table import SharedTable
from kkdcpd.metrics.memory import Metrics, metrics_bytes
from kkdcpd.shared_memory.areas import make_area
from kkdcpd.shared_memory.entries import entries_bytes
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.shared_memory.network_counts import NetworkCounts, counts_bytes
from kkdcpd.shared_memory.notes import Notes, notes_bytes

__all__ = ["own_counts", "own_notes", "own_table", "shared_memory"]


def own_counts() -> NetworkCounts:
    """Make counts that no other process adds to.

    With a known secret, it is known which networks share a counter: none of the tests' networks do.
    """
    area = make_area(counts_bytes(1))
    return NetworkCounts(replace(area, secret=bytes(len(area.secret))), 0)


def own_table(entries: int = 65536) -> SharedTable:
    """Make a table that no other process uses."""
    return SharedTable(make_area(entries_bytes(entries)))


def own_notes() -> Notes:
    """Make notes that no other process uses."""
    return Notes(make_area(notes_bytes()))


def shared_memory(table_entries: int = 65536, metrics: Metrics | None = None) -> SharedMemory:
    """Make all shared memory, with rows for the processes of any test. `metrics` replaces its own metrics."""
    memory = SharedMemory.make(guard_entries=table_entries, metrics_bytes=metrics_bytes(8), rows=8)
    if metrics is None:
        return memory
    return replace(memory, metrics=metrics.area)
