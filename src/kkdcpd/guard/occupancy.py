"""Counts the connections, or requests, of each network at this moment, in all processes of this host.

Each process has a row of counters in shared memory and writes in no other; the sum over the rows of living
processes is the count. So it is exact, no process waits for another, and the counts of a killed process go
with its row, which the parent clears.

A network's counter is found by a digest with a secret key. Two networks may have the same one, and then count
together: among 65536, with some thousand networks at a time, that is some connections too many where the
limits are hundreds.
"""

import hashlib
import mmap
from collections.abc import Callable
from functools import lru_cache

__all__ = ["SECRET_BYTES", "Occupancy", "clear_row", "make_memory"]

COUNTERS = 65536
"""Counters in a row, each of 4 octets. Pages that nobody writes to take no memory."""

ROW_BYTES = 4 * (1 + COUNTERS)
"""The first counter is of all clients together."""

HEADER_BYTES = 256
"""A secret, then one octet for each row: whether its process lives."""

SECRET_BYTES = 32
MAX_ROWS = HEADER_BYTES - SECRET_BYTES

MOST_KNOWN = 1024
"""Clients whose counters a process remembers: that of one who asks often needs no digest each time."""


def make_memory(rows: int, secret: bytes) -> mmap.mmap:
    """Make the memory for so many processes that are forked afterwards; `secret` is 32 random octets."""
    if rows > MAX_ROWS or len(secret) != SECRET_BYTES:
        raise ValueError(f"{rows} rows are more than {MAX_ROWS}, or the secret hasn't {SECRET_BYTES} octets")
    memory = mmap.mmap(-1, HEADER_BYTES + rows * ROW_BYTES)
    memory[:SECRET_BYTES] = secret
    return memory


def clear_row(memory: mmap.mmap, row: int) -> None:
    """Forget a process that has ended."""
    memory[SECRET_BYTES + row] = 0


class Occupancy:
    """Who is here: a process's view on such a memory, through its own `row`."""

    __slots__ = ("_counter", "_header", "_live", "_memory", "_mine", "_own", "_words")

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        self._memory = memory
        self._counter = _counters(memory[:SECRET_BYTES])
        self._words = memoryview(memory).cast("I")
        self._own = _first(row)
        self._mine: dict[str, tuple[int, int]] = {}  # of each client: its counter, and how many are ours
        self._header = b""
        self._live: tuple[int, ...] = ()
        start = HEADER_BYTES + row * ROW_BYTES
        # What a killed process left, unless nobody was here: writing to all pages would take them.
        if self._words[self._own] or any(memory[start : start + ROW_BYTES]):
            memory[start : start + ROW_BYTES] = bytes(ROW_BYTES)
        memory[SECRET_BYTES + row] = 1

    def enter(self, client: str, *wider: str) -> tuple[int, int]:
        """Count one more of a client, and of the wider networks that it is in.

        Return how many there are of the client and of all, as `count` and `total` do.
        """
        for network in wider:
            self._add(network)
        counter = self._add(client)
        self._words[self._own] += 1
        return self._sums(counter)

    def leave(self, client: str, *wider: str) -> None:
        """Count one less, with the same networks; each that entered leaves once."""
        self._remove(client)
        for network in wider:
            self._remove(network)
        self._words[self._own] -= 1

    def count(self, client: str) -> int:
        """Return how many of the client there are, in all processes."""
        return self._sums(self._counter(client))[0]

    @property
    def total(self) -> int:
        """How many there are of all clients, in all processes."""
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

    def _sums(self, counter: int) -> tuple[int, int]:
        """Return the sums over the rows of those that live: of one counter, and of the first."""
        header = self._memory[SECRET_BYTES:HEADER_BYTES]
        if header != self._header:  # processes come and go rarely
            self._header = header
            self._live = tuple(_first(row) for row, is_live in enumerate(header) if is_live)
        words = self._words
        of_one = of_all = 0
        for first in self._live:
            of_one += words[first + counter]
            of_all += words[first]
        return of_one, of_all


def _counters(secret: bytes) -> Callable[[str], int]:
    """Return what tells a client's counter."""

    @lru_cache(MOST_KNOWN)
    def counter(client: str) -> int:
        digest = hashlib.blake2b(client.encode(), digest_size=2, key=secret).digest()
        return 1 + int.from_bytes(digest, "big")

    return counter


def _first(row: int) -> int:
    return HEADER_BYTES // 4 + row * (1 + COUNTERS)
