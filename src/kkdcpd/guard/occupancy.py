"""How many of a client's connections, or requests, there are at this moment, in all processes of this host.

Each process has a row of counters in shared memory and writes in no other; the sum over the rows of those
that live is the count. So it is exact, nobody waits for anybody, and what a killed process had open goes with
its row, which the parent clears.

A client's counter is found by a digest with a secret key. Two clients may have the same one, and then count
together: among 65536, with some thousand clients there at a time, that is some connections too many where the
limits are hundreds.
"""

import hashlib
import mmap

__all__ = ["SECRET_BYTES", "Occupancy", "clear_row", "make_memory"]

COUNTERS = 65536
"""Counters in a row, each of 4 octets. Pages that nobody writes to take no memory."""

ROW_BYTES = 4 * (1 + COUNTERS)
"""The first counter is of all clients together."""

HEADER_BYTES = 256
"""A secret, then one octet for each row: whether its process lives."""

SECRET_BYTES = 32
MAX_ROWS = HEADER_BYTES - SECRET_BYTES


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

    __slots__ = ("_header", "_live", "_memory", "_mine", "_own", "_secret", "_words")

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        self._memory = memory
        self._secret = memory[:SECRET_BYTES]
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

    def enter(self, client: str) -> None:
        """Count one more of a client."""
        counter, count = self._mine.get(client) or (self._counter(client), 0)
        self._mine[client] = counter, count + 1
        self._words[self._own + counter] += 1
        self._words[self._own] += 1

    def leave(self, client: str) -> None:
        """Count one less; each that entered leaves once."""
        counter, count = self._mine[client]
        if count > 1:
            self._mine[client] = counter, count - 1
        else:
            del self._mine[client]
        self._words[self._own + counter] -= 1
        self._words[self._own] -= 1

    def count(self, client: str) -> int:
        """Return how many of the client there are, in all processes."""
        mine = self._mine.get(client)
        counter = mine[0] if mine else self._counter(client)
        words = self._words
        return sum([words[first + counter] for first in self._rows()])

    @property
    def total(self) -> int:
        """How many there are of all clients, in all processes."""
        words = self._words
        return sum([words[first] for first in self._rows()])

    @property
    def own_total(self) -> int:
        """How many this process has."""
        return self._words[self._own]

    @property
    def own_clients(self) -> int:
        """How many clients those of this process are of."""
        return len(self._mine)

    def _rows(self) -> tuple[int, ...]:
        """Return where the rows of those that live begin; processes come and go rarely."""
        header = self._memory[SECRET_BYTES:HEADER_BYTES]
        if header != self._header:
            self._header = header
            self._live = tuple(_first(row) for row, is_live in enumerate(header) if is_live)
        return self._live

    def _counter(self, client: str) -> int:
        digest = hashlib.blake2b(client.encode(), digest_size=2, key=self._secret).digest()
        return 1 + int.from_bytes(digest, "big")


def _first(row: int) -> int:
    return HEADER_BYTES // 4 + row * (1 + COUNTERS)
