"""What the guard remembers, as its rules see it: four operations on names.

Rules use nothing else, so that the state may be a table in this host's memory (shared_table) or one that many
hosts share. What makes both possible: names and numbers go in and plain values come out; every operation adds
to what is there, so that those of many hosts may come in any order; and what is told are durations, never
times, since clocks differ between hosts.

The operations are plain functions, not coroutines. A login must not wait for a store on the network, nor fail
because that store does: where hosts share their state, each decides by its own table and passes on what it
did, in batches (an operation is its name and its arguments), for the others to do to theirs.
"""

from collections.abc import Sequence
from typing import Protocol

from kkdcpd.frozen import frozen

__all__ = ["COLUMNS", "Block", "Growth", "Key", "Limit", "Shortage", "Store", "Tally"]

Key = tuple[str, ...]
"""What is remembered, first of which kind: a kind is for one operation, and has a fixed number of parts.

None but the last part has a NUL.
"""

COLUMNS = 3
"""Counts that a tally has."""


@frozen
class Limit:
    """A token bucket: it holds `burst` tokens, and `rate` of them come back in a second."""

    rate: float
    burst: int


@frozen
class Shortage:
    """The bucket at `index` was empty; it has a token again in `wait` seconds."""

    index: int
    wait: float


@frozen
class Tally:
    """The counts of the window, and whether the one that was told is among them for the first time."""

    counts: tuple[int, int, int]
    is_new: bool


@frozen
class Growth:
    """How long a block lasts: `first` seconds, then twice the last one, at most `longest`.

    For each `forgiven_after` seconds that passed since the last one ended, one doubling is taken back.
    """

    first: float
    longest: float
    forgiven_after: float


@frozen
class Block:
    """A block that lasts for another `seconds`; `reason` is what it was made with."""

    reason: int
    seconds: float


class Store(Protocol):
    """What is remembered. `now` is the reading of a monotonic clock that all processes of the host share."""

    def take(self, buckets: Sequence[tuple[Key, Limit]], now: float) -> Shortage | None:
        """Take a token from each bucket, or from none if one of them is empty."""
        ...

    def tally(self, key: Key, column: int, member: str | None, *, window: float, now: float) -> Tally:
        """Count the member in a column of the key's tally, but only once in a window; None counts always.

        The window begins with what is counted first. All columns begin anew together, `window` seconds later.
        """
        ...

    def blocked(self, key: Key, now: float) -> Block | None:
        """Return the block that is on the key."""
        ...

    def block(self, key: Key, reason: int, growth: Growth, now: float) -> float:
        """Block the key and return for how many seconds: none if it was blocked already.

        So a block grows by what comes after it, not by what was under way when it fell. `reason` is from 0
        to 255.
        """
        ...
