"""Defines the store of the guard's counts and blocks: operations on keys.

The rules use only these operations. So the store may be a table in this host's memory (shared_table) or one
that several hosts share: arguments and results are plain values; every operation adds to the state, so that
the operations of several hosts may come in any order; results are durations and not times, because the clocks
of hosts differ.

The operations are plain functions, not coroutines. A log-on must not wait for a store on the network, nor
fail when that store fails. Hosts that share their state each decide by their own table. They send the
operations (name and arguments) in batches to the other hosts, which apply them to their tables.
"""

from collections.abc import Sequence
from typing import Protocol

from kkdcpd.frozen import frozen

__all__ = ["COLUMNS", "Block", "Growth", "Key", "Limit", "Shortage", "Store", "Tally"]

Key = tuple[str, ...]
"""The first part is the kind of the key. Keys of a kind are used with one operation and have the same number
of parts. Only the last part may have a NUL.
"""

COLUMNS = 3
"""The counts in a tally, and the buckets of a key."""


@frozen
class Limit:
    """A token bucket: it holds `burst` tokens, and gets back `rate` tokens in a second.

    A key has `COLUMNS` buckets. One key for all buckets of a client costs less than a key for each.
    """

    rate: float
    burst: int
    column: int = 0


@frozen
class Shortage:
    """The bucket at `index` was empty; it has a token again in `wait` seconds."""

    index: int
    wait: float


@frozen
class Tally:
    """The counts of the window, and whether the member counted for the first time."""

    counts: tuple[int, int, int]
    is_new: bool


@frozen
class Growth:
    """The length of blocks: `first` seconds, then twice the last block, at most `longest`.

    Each `forgiven_after` seconds since the end of the last block take back one doubling.
    """

    first: float
    longest: float
    forgiven_after: float


@frozen
class Block:
    """A block that lasts for another `seconds`, with the `reason` that it was made with."""

    reason: int
    seconds: float


class Store(Protocol):
    """The operations. `now` is the reading of a monotonic clock that all processes of the host share."""

    def take(self, buckets: Sequence[tuple[Key, Limit]], now: float) -> Shortage | None:
        """Take a token from each bucket, or from none if one of them is empty."""
        ...

    def tally(self, key: Key, column: int, member: str | None, *, window: float, now: float) -> Tally:
        """Count the member in a column of the key's tally, but only once in a window; None counts always.

        The window begins with the first count. All columns begin again together, `window` seconds later.
        """
        ...

    def has_blocks(self, now: float) -> bool:
        """Whether any key may be blocked. Most of the time none is, and then no key needs to be looked up."""
        ...

    def blocked(self, key: Key, now: float) -> Block | None:
        """Return the block that is on the key."""
        ...

    def block(self, key: Key, reason: int, growth: Growth, now: float) -> float:
        """Block the key and return for how many seconds: none if it was blocked already.

        So requests that were in flight when a block began do not prolong it. `reason` is from 0 to 255.
        """
        ...
