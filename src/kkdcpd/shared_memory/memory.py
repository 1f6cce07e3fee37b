"""Makes all of the memory that the processes of one service share."""

from kkdcpd.frozen import frozen
from kkdcpd.shared_memory.areas import Area, make_areas
from kkdcpd.shared_memory.entries import entries_bytes
from kkdcpd.shared_memory.network_counts import clear_row, counts_bytes
from kkdcpd.shared_memory.notes import notes_bytes
from kkdcpd.shared_memory.rows import MAX_ROWS

__all__ = ["SharedMemory"]


@frozen
class SharedMemory:
    """The areas. The parent process makes them before it forks, and they last as long as the service.

    `guard` holds the guard's table of entries, `password_changes` the notes about password changes.
    `connections` and `requests` count what is open or in flight for each client network. `metrics` holds the
    rows of counters.
    """

    guard: Area
    password_changes: Area
    connections: Area
    requests: Area
    metrics: Area

    @classmethod
    def make(cls, *, guard_entries: int, metrics_bytes: int, rows: int = MAX_ROWS) -> "SharedMemory":
        """Make the areas for at most `rows` processes at a time. No reload changes their sizes."""
        guard, password_changes, connections, requests, metrics = make_areas(
            entries_bytes(guard_entries), notes_bytes(), counts_bytes(rows), counts_bytes(rows), metrics_bytes
        )
        return cls(
            guard=guard,
            password_changes=password_changes,
            connections=connections,
            requests=requests,
            metrics=metrics,
        )

    def clear_counts(self, row: int) -> None:
        """Forget the connections and requests of a process that has ended."""
        clear_row(self.connections, row)
        clear_row(self.requests, row)
