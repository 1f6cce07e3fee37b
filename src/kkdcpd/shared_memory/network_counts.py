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
"""Networks with their counters that a process remembers, beside the networks that it counts at present."""


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


class NetworkCounts:
    """One process's view of the counts. Only this process adds to its `row`."""

    __slots__ = ("_area", "_header", "_known", "_live", "_mine", "_own", "_words")

    def __init__(self, area: Area, row: int) -> None:
        self._area = area
        self._words = area.memory.cast("I")
        self._own = _first(row)
        self._mine: dict[str, tuple[int, int]] = {}  # of each network: its counter, and the count of this row
        self._known: dict[str, int] = {}
        self._header = b""
        self._live: tuple[int, ...] = ()
        mine = area.memory[HEADER_BYTES + row * ROW_BYTES :][:ROW_BYTES]
        # A killed process leaves its counts. Writing to a row of zeros would only take memory.
        if self._words[self._own] or any(mine):
            mine[:] = bytes(ROW_BYTES)
        area.memory[row] = 1

    def add(self, network: str, *wider: str) -> tuple[int, int]:
        """Add one to the count of a client network, and to the counts of wider networks that it is in.

        Return the count of the network and the total.
        """
        for each in wider:
            self._add(each)
        counter = self._add(network)
        self._words[self._own] += 1
        return self._sums(counter)

    def remove(self, network: str, *wider: str) -> None:
        """Undo one `add` of the same networks."""
        self._remove(network)
        for each in wider:
            self._remove(each)
        self._words[self._own] -= 1

    def count(self, network: str) -> int:
        """Return the network's count over all processes."""
        return self._sums(self._counter(network))[0]

    @property
    def total(self) -> int:
        """The count of all networks over all processes."""
        return self._sums(0)[1]

    def _add(self, network: str) -> int:
        counter, count = self._mine.get(network) or (self._counter(network), 0)
        self._mine[network] = counter, count + 1
        self._words[self._own + counter] += 1
        return counter

    def _remove(self, network: str) -> None:
        counter, count = self._mine[network]
        if count > 1:
            self._mine[network] = counter, count - 1
        else:
            del self._mine[network]
        self._words[self._own + counter] -= 1

    def _counter(self, network: str) -> int:
        counter = self._known.get(network)
        if counter is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            counter = self._known[network] = 1 + self._area.digest(network) % COUNTERS
        return counter

    def _sums(self, counter: int) -> tuple[int, int]:
        """Return the sum of one counter over the rows of living processes, and the sum of their totals."""
        header = self._area.memory[:HEADER_BYTES].tobytes()
        if header != self._header:  # processes come and go rarely
            self._header = header
            self._live = tuple(_first(row) for row, is_live in enumerate(header) if is_live)
        words = self._words
        of_network = of_all = 0
        for first in self._live:
            of_network += words[first + counter]
            of_all += words[first]
        return of_network, of_all


def _first(row: int) -> int:
    return HEADER_BYTES // 4 + row * (1 + COUNTERS)
