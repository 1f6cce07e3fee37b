"""Hands out rows of the shared memory. Each process has one row, and only this process writes to it."""

import heapq
from collections.abc import Callable, Sequence

__all__ = ["MAX_ROWS", "Rows"]

MAX_ROWS = 128
"""Processes that may live at a time: several generations of workers, of which all but one are ending."""


class Rows:
    """The free rows. The callbacks `clear` get the number of each row that is given back."""

    def __init__(self, clear: Sequence[Callable[[int], None]] = (), count: int = MAX_ROWS) -> None:
        self._clear = clear
        self._free = list(range(count))

    @property
    def free(self) -> int:
        """The number of free rows."""
        return len(self._free)

    def take(self) -> int:
        """Take the lowest free row.

        Raises:
            OSError: no row is free.
        """
        if not self._free:
            raise OSError("too many processes still finish their requests")
        return heapq.heappop(self._free)

    def give_back(self, row: int) -> None:
        """Clear the row of a process that has ended, and make it free."""
        for clear in self._clear:
            clear(row)
        heapq.heappush(self._free, row)
