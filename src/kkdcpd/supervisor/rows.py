"""Rows of the shared memories: each process has one, in which nobody else writes."""

import heapq
from collections.abc import Callable, Sequence

__all__ = ["MAX_ROWS", "Rows"]

MAX_ROWS = 128
"""So many processes may live at a time: some generations of workers, of which all but one finish."""


class Rows:
    """Which rows are free. `clear` are told of each row that is taken, and when it is given back."""

    def __init__(self, clear: Sequence[Callable[[int], None]] = (), count: int = MAX_ROWS) -> None:
        self._clear = clear
        self._free = list(range(count))

    @property
    def free(self) -> int:
        """How many are free."""
        return len(self._free)

    def take(self) -> int:
        """Take the lowest free row.

        Raises:
            OSError: none is free.
        """
        if not self._free:
            raise OSError("too many processes still finish what they have begun")
        return heapq.heappop(self._free)

    def give_back(self, row: int) -> None:
        """Let another process have the row of one that has ended."""
        for clear in self._clear:
            clear(row)
        heapq.heappush(self._free, row)
