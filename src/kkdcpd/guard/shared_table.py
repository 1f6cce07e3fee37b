"""Keeps the guard's counts and blocks in the shared memory: a Store over a table of entries.

The 54 bits of a value are a time and, below it, a number. A token bucket is one value: the instant at which
the bucket is full again. The first three values of a key may be buckets. The first value of a tally is the
start of its window, and the others are its columns: each holds the start of the window that it belongs to,
and a count. A block is one value: its end, its level of growth and its reason.
"""

from collections.abc import Sequence

from kkdcpd.guard.store import Block, Growth, Key, Limit, Shortage, Tally
from kkdcpd.shared_memory.areas import Area
from kkdcpd.shared_memory.entries import NO_ENTRY, EntryTable, Name

__all__ = ["SharedTable"]

INSTANTS = 1 << 22
"""Instants in a second, for token buckets: 54 bits of them are 136 years."""

TICKS = 4
"""Ticks in a second, for windows and blocks: 34 bits of them are 136 years."""

COUNT_BITS = 20
"""The bits below a tick: a count of up to a million, or a block's level and reason."""

MOST_COUNTED = (1 << COUNT_BITS) - 1
REASON_BITS = 8


class SharedTable:
    """The Store. Each process makes its own view, and so does each generation."""

    __slots__ = ("_table",)

    def __init__(self, area: Area) -> None:
        self._table = EntryTable(area)

    def take(self, buckets: Sequence[tuple[Key, Limit]], now: float) -> Shortage | None:
        """Take a token from each bucket, or from none if one of them is empty.

        This is the generic cell rate algorithm. A bucket is empty if the instant at which it is full again is
        as far ahead as all of its tokens need.
        """
        table = self._table
        instant = int(now * INSTANTS)
        taken: list[tuple[Name, int, int, int]] = []
        for key, limit in buckets:
            name = table.names[key]
            at, full_at = table.find(name, limit.column)
            interval = int(INSTANTS / limit.rate)
            fullest = instant + interval * limit.burst
            excess = full_at + interval - fullest
            if excess > 0:
                if excess > interval and at != NO_ENTRY:
                    # The tokens were taken under a higher limit: this limit does not wait for them.
                    table.write(name, at, limit.column, fullest)
                return Shortage(index=len(taken), wait=min(excess, interval) / INSTANTS)
            taken.append((name, at, limit.column, interval))
        for name, found, column, interval in taken:
            at = found if found != NO_ENTRY else table.claim(name, now)
            full_at = table.add(name, at, column, instant, interval)
            table.keep_longer(at, now, full_at / INSTANTS)
        return None

    def tally(self, key: Key, column: int, member: str | None, *, window: float, now: float) -> Tally:
        """Count the member in a column of the key's tally, but only once in a window; None counts always."""
        table = self._table
        name = table.names[key]
        at, value = table.find(name)
        if at == NO_ENTRY:
            at = table.claim(name, now)
        start = value >> COUNT_BITS
        tick = int(now * TICKS) + 1
        if not start or not 0 <= tick - start < window * TICKS:
            start = tick
            table.write(name, at, 0, start << COUNT_BITS)
        expires = start / TICKS + window
        table.keep(at, now, expires)
        is_new = member is None or self._joins((*key, member), column, start, expires, now)
        least = start << COUNT_BITS
        if is_new:
            value = table.add(name, at, 1 + column, least, 1)
            if value & MOST_COUNTED == MOST_COUNTED:
                table.write(name, at, 1 + column, value - 1)  # the next count would change the time
        _, first, second, third = table.values(name, at)
        counts = (
            first & MOST_COUNTED if first >= least else 0,
            second & MOST_COUNTED if second >= least else 0,
            third & MOST_COUNTED if third >= least else 0,
        )
        return Tally(counts=counts, is_new=is_new)

    def has_blocks(self, now: float) -> bool:
        """Whether any key may be blocked."""
        return self._table.has_guarded(now)

    def blocked(self, key: Key, now: float) -> Block | None:
        """Return the block that is on the key."""
        at, value = self._table.find(self._table.names[key])
        if at == NO_ENTRY:
            return None
        seconds = (value >> COUNT_BITS) / TICKS - now
        return Block(reason=value & (1 << REASON_BITS) - 1, seconds=seconds) if seconds > 0 else None

    def block(self, key: Key, reason: int, growth: Growth, now: float) -> float:
        """Block the key and return for how many seconds: none if it was blocked already."""
        table = self._table
        name = table.names[key]
        at, value = table.find(name)
        if at == NO_ENTRY:
            at = table.claim(name, now)
        quiet = now - (value >> COUNT_BITS) / TICKS
        if quiet < 0:
            return 0.0
        level = _next_level(value, quiet, growth)
        seconds = min(growth.first * (1 << level), growth.longest)
        until = int((now + seconds) * TICKS)  # rounded down: no block is longer than its Retry-After
        table.write(name, at, 0, until << COUNT_BITS | level << REASON_BITS | reason)
        table.keep(at, now, now + seconds + (level + 1) * growth.forgiven_after)
        table.guard(at, now + seconds)
        return seconds

    def _joins(self, key: Key, column: int, start: int, expires: float, now: float) -> bool:
        """Note that a member is in a column since the window began, and return whether that is new."""
        table = self._table
        name = table.passing_name(key)
        at, value = table.find(name, column)
        if at == NO_ENTRY:
            at = table.claim(name, now)
        table.keep(at, now, expires)
        if value >> COUNT_BITS == start:
            return False
        table.write(name, at, column, start << COUNT_BITS)
        return True


def _next_level(value: int, quiet: float, growth: Growth) -> int:
    """Return how many times the next block is doubled, when the last block ended `quiet` seconds ago."""
    if not value:
        return 0
    last = (value & MOST_COUNTED) >> REASON_BITS
    level = max(0, last + 1 - int(quiet / growth.forgiven_after))
    # A level that does not make the block longer would only have to be forgiven again.
    while level and growth.first * (1 << level - 1) >= growth.longest:
        level -= 1
    return level
