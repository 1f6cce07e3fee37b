"""Counts the open connections, or the requests in flight, of each client network over all processes.

Each process has a row of counters and writes to no other row. The count is the sum over the rows of living
processes. So the count is exact, and no process waits for another. When a process ends, the parent process
clears its row.

The digest of a network selects its counter. Two networks may share a counter, and then their counts add up.
With 65536 counters and some thousand networks at a time, that adds a few connections where the limits are
hundreds.
"""

from kkdcpd.shared_memory.areas import Area

__all__ = ["NetworkCounts", "clear_row", "counts_bytes"]

COUNTERS = 65536
"""Counters of networks in a row, of 4 bytes each. Pages that no process writes to take no memory."""

ROW_BYTES = 4 * (1 + COUNTERS)
"""The first counter is the total."""

HEADER_BYTES = 256
"""One byte for each row: 1 while its process lives."""

MOST_KNOWN = 1024
"""Counters that a process remembers: a network that sends often needs no digest each time."""


def counts_bytes(rows: int) -> int:
    """Return the size of an area for as many processes.

    Raises:
        ValueError: the header has no room for them.
    """
    if rows > HEADER_BYTES:
        raise ValueError(f"{rows} rows are more than {HEADER_BYTES}")
    return HEADER_BYTES + rows * ROW_BYTES


def clear_row(area: Area, row: int) -> None:
    """Forget the counts of a process that has ended."""
    area.memory[row] = 0


class _Counters(dict[str, int]):
    """The counters of the networks that this process counted last."""

    def __init__(self, area: Area) -> None:
        super().__init__()
        self._area = area

    def __missing__(self, network: str) -> int:
        if len(self) >= MOST_KNOWN:
            self.clear()
        counter = self[network] = 1 + self._area.digest(network) % COUNTERS
        return counter


class NetworkCounts:
    """One process's view of the counts. Only this process adds to its `row`."""

    __slots__ = ("_counters", "_header", "_live", "_live_rows", "_own", "_words")

    def __init__(self, area: Area, row: int) -> None:
        self._words = area.memory.cast("I")
        self._own = _first(row)
        self._counters = _Counters(area)
        self._header = area.memory[:HEADER_BYTES]
        self._live = b""
        self._live_rows: tuple[int, ...] = ()
        mine = area.memory[HEADER_BYTES + row * ROW_BYTES :][:ROW_BYTES]
        # A killed process leaves its counts. Writing to a row of zeros would only take memory.
        if self._words[self._own] or any(mine):
            mine[:] = bytes(ROW_BYTES)
        self._header[row] = 1

    def add(self, network: str, *wider: str) -> tuple[int, int]:
        """Add one to the count of a client network, and to the counts of wider networks that it is in.

        Return the count of the network and the total.
        """
        words, own = self._words, self._own
        for each in wider:
            words[own + self._counters[each]] += 1
        counter = self._counters[network]
        words[own + counter] += 1
        words[own] += 1
        return self._sums(counter)

    def remove(self, network: str, *wider: str) -> None:
        """Undo one `add` of the same networks.

        Raises:
            ValueError: the network's counter is at zero.
        """
        words, own = self._words, self._own
        words[own + self._counters[network]] -= 1
        for each in wider:
            words[own + self._counters[each]] -= 1
        words[own] -= 1

    def count(self, network: str) -> int:
        """Return the network's count over all processes."""
        return self._sums(self._counters[network])[0]

    @property
    def total(self) -> int:
        """The count of all networks over all processes."""
        return self._sums(0)[1]

    def _sums(self, counter: int) -> tuple[int, int]:
        """Return the sum of one counter over the rows of living processes, and the sum of their totals."""
        live = self._header.tobytes()
        if live != self._live:  # processes come and go rarely
            self._live = live
            self._live_rows = tuple(_first(row) for row, is_live in enumerate(live) if is_live)
        words = self._words
        of_network = of_all = 0
        for first in self._live_rows:
            of_network += words[first + counter]
            of_all += words[first]
        return of_network, of_all


def _first(row: int) -> int:
    return HEADER_BYTES // 4 + row * (1 + COUNTERS)
