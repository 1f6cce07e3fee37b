"""The guard's state in memory that the processes of this host share. Plain code with a clock.

The memory is made before the workers are forked and has one size for ever. It holds no lock, so that no
kill -9 can leave it locked: all that processes do to it is to read and write aligned words of 8 octets, which
no other process sees half done. What they can do to each other, by order of time alone, costs a count:

- Two that add to one value at the same moment may add only one: reads come as late as they can.
- One that is put to sleep between reading and writing writes what is out of date by then. Values never get
  smaller, so each process remembers what it saw of the names that it knows, and the greater value holds.
- Two may claim one entry for different names at the same moment. Each value has some bits of its owner's
  digest with it, so that who lost the entry finds nothing in it rather than somebody else's counts.
- One that is killed between two writes leaves an entry that has lost its counts.

A name has its place by a digest with a secret key, so that strangers can't aim at a place that they want to
have forgotten. It may be in one of 8 entries (a bucket). When all are taken, the first to go is what means
nothing any more (a full bucket of tokens, a window that is over), then what was unused for longest; what is
blocked goes only when all 8 are.

A bucket has 64 words: 8 of each kind, in this order, so that those of one kind are read at once.

    tag         the name's digest; 0 is nobody's
    used        when it was used last, in seconds
    expires     when it means nothing any more
    guarded     until when it is blocked
    4 values    10 bits of the digest, 54 bits that say something and begin with a time
"""

import hashlib
import mmap
import struct
from collections.abc import Sequence

from kkdcpd.guard.store import COLUMNS, Block, Growth, Key, Limit, Shortage, Tally

__all__ = ["ENTRY_SIZE", "SECRET_SIZE", "SharedTable", "make_memory"]

ENTRY_SIZE = 64
"""Octets per entry. 65536 entries are 4 MiB."""

SECRET_SIZE = 16

WAYS = 8
"""Entries in which a name may be: with 8, nearly all of a table is of use; their tags are one cache line."""

HEADER_SIZE = 64
"""The secret and the number of entries; what comes after is aligned to cache lines."""

FIRST = HEADER_SIZE // 8
BUCKET_WORDS = WAYS * ENTRY_SIZE // 8

USED, EXPIRES, GUARDED, VALUES = 8, 16, 24, 32
"""How many words they are after the tag; the other values follow the first, 8 words apart."""

VALUE_END = 1 << 54
"""What says something is less; what isn't, once the owner's bits are taken off, is somebody else's."""

CHECK = 0x3FF << 54
"""The bits that are the owner's digest's."""

INSTANTS = 1 << 22
"""Instants in a second, of which a bucket's value is one: 54 bits of them are 136 years."""

TICKS = 4
"""Ticks in a second, in which windows and blocks begin and end: 34 bits of them are 136 years."""

COUNT_BITS = 20
"""What is left beside a tick: a count of up to a million, or a block's level and reason."""

MOST_COUNTED = (1 << COUNT_BITS) - 1
REASON_BITS = 8

MOST_KNOWN = 1024
LONGEST_KNOWN = 64
"""A process remembers so many names, and none that is longer: some hundred KiB."""

# Native sizes and no byte order: so each word is read at once, not by its octets.
_eight_tags = struct.Struct("8Q").unpack_from
_eight_times = struct.Struct("8d").unpack_from


def make_memory(entries: int, secret: bytes) -> mmap.mmap:
    """Make the memory of a table, which processes that are forked afterwards share.

    `entries` is a multiple of 8, `secret` random octets.
    """
    if entries < WAYS or entries % WAYS or len(secret) != SECRET_SIZE:
        raise ValueError(f"{entries} is no multiple of {WAYS}, or the secret hasn't {SECRET_SIZE} octets")
    memory = mmap.mmap(-1, HEADER_SIZE + entries * ENTRY_SIZE)
    memory[:SECRET_SIZE] = secret
    memory[SECRET_SIZE : SECRET_SIZE + 8] = entries.to_bytes(8, "little")
    return memory


class _Name:
    """A key's digest, the first word of its bucket, and what this process saw of its values."""

    __slots__ = ("check", "digest", "first", "seen")

    def __init__(self, key: Key, secret: bytes, buckets: int) -> None:
        # The secret before the name is a key for BLAKE2b, and takes half the time of its own (RFC 7693 2.2).
        octets = secret + "\0".join(key).encode("utf-8", "surrogatepass")
        digest = int.from_bytes(hashlib.blake2b(octets, digest_size=8).digest(), "little") or 1
        self.digest = digest
        self.check = digest & CHECK
        self.first = FIRST + digest % buckets * BUCKET_WORDS
        self.seen = [0, 0, 0, 0]


class SharedTable:
    """A Store in such a memory. Every process makes its own over it, and so does every generation."""

    __slots__ = ("_buckets", "_memory", "_names", "_secret", "_times", "_words")

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._secret = memory[:SECRET_SIZE]
        self._buckets = int.from_bytes(memory[SECRET_SIZE : SECRET_SIZE + 8], "little") // WAYS
        self._words = memoryview(memory).cast("Q")
        self._times = memoryview(memory).cast("d")
        self._names: dict[Key, _Name] = {}

    def take(self, buckets: Sequence[tuple[Key, Limit]], now: float) -> Shortage | None:
        """Take a token from each bucket, or from none if one of them is empty.

        By the generic cell rate algorithm: a bucket is the one instant at which it is full again. It is empty
        if that is as far ahead as all of its tokens need.
        """
        instant = int(now * INSTANTS)
        taken: list[tuple[_Name, int, int]] = []
        for key, limit in buckets:
            name = self._names.get(key) or self._name(key)
            place, full_at = self._find(name)
            interval = int(INSTANTS / limit.rate)
            fullest = instant + interval * limit.burst
            excess = full_at + interval - fullest
            if excess > 0:
                if excess > interval and place:
                    # The limit was higher when these were taken: they need not be waited for.
                    self._write(name, place, fullest)
                return Shortage(index=len(taken), wait=min(excess, interval) / INSTANTS)
            taken.append((name, place, interval))
        words, times = self._words, self._times
        for name, place, interval in taken:
            at = place or self._claim(name, now)
            # Another process may have taken one meanwhile: what was found is read again, and written at once.
            value = words[at + VALUES] ^ name.check
            full_at = max(value if value < VALUE_END else 0, name.seen[0], instant) + interval
            words[at + VALUES] = name.check | full_at
            name.seen[0] = full_at
            times[at + USED] = now
            times[at + EXPIRES] = full_at / INSTANTS
        return None

    def tally(self, key: Key, column: int, member: str | None, *, window: float, now: float) -> Tally:
        """Count the member in a column of the key's tally, but only once in a window; None counts always.

        The first value is when the window began, the columns follow; each says to which window it belongs.
        """
        name = self._names.get(key) or self._name(key)
        place, value = self._find(name)
        place = place or self._claim(name, now)
        start = value >> COUNT_BITS
        tick = int(now * TICKS) + 1
        if not start or not 0 <= tick - start < window * TICKS:
            start = tick
            self._write(name, place, start << COUNT_BITS)
        expires = start / TICKS + window
        self._times[place + USED] = now
        self._times[place + EXPIRES] = expires
        is_new = member is None or self._joins((*key, member), column, start, expires, now)
        if is_new:
            self._count(name, place, 1 + column, start)
        counts = self._counts(name, place, start)
        return Tally(counts=(counts[0], counts[1], counts[2]), is_new=is_new)

    def blocked(self, key: Key, now: float) -> Block | None:
        """Return the block that is on the key."""
        name = self._names.get(key) or self._name(key)
        place, value = self._find(name)
        if not place:
            return None
        seconds = (value >> COUNT_BITS) / TICKS - now
        return Block(reason=value & (1 << REASON_BITS) - 1, seconds=seconds) if seconds > 0 else None

    def block(self, key: Key, reason: int, growth: Growth, now: float) -> float:
        """Block the key and return for how many seconds: none if it was blocked already."""
        name = self._names.get(key) or self._name(key)
        place, value = self._find(name)
        place = place or self._claim(name, now)
        quiet = now - (value >> COUNT_BITS) / TICKS
        if quiet < 0:
            return 0.0
        level = _next_level(value, quiet, growth)
        seconds = min(growth.first * (1 << level), growth.longest)
        until = int((now + seconds) * TICKS)  # never longer than is told
        self._write(name, place, until << COUNT_BITS | level << REASON_BITS | reason)
        self._times[place + USED] = now
        self._times[place + EXPIRES] = now + seconds + (level + 1) * growth.forgiven_after
        self._times[place + GUARDED] = now + seconds
        return seconds

    def _name(self, key: Key) -> _Name:
        name = _Name(key, self._secret, self._buckets)
        if len(self._names) >= MOST_KNOWN:
            self._names.clear()
        if len(key[-1]) <= LONGEST_KNOWN:
            self._names[key] = name
        return name

    def _find(self, name: _Name, number: int = 0) -> tuple[int, int]:
        """Return the index of the entry's first word, and a value: as it is there, or as it was seen.

        The index is 0, where the header is, if there is no entry; the value is 0 if it is nowhere.
        """
        digest = name.digest
        seen = name.seen[number]
        tags = _eight_tags(self._memory, name.first * 8)
        if digest not in tags:
            return 0, seen
        place = name.first + tags.index(digest)
        value = self._words[place + VALUES + WAYS * number] ^ name.check
        return place, value if seen < value < VALUE_END else seen

    def _claim(self, name: _Name, now: float) -> int:
        """Take an entry from whom it means least to, and return the index of its first word."""
        first = name.first
        expires = _eight_times(self._memory, (first + EXPIRES) * 8)
        soonest = min(expires)
        place = first + (expires.index(soonest) if soonest <= now else self._least(first, now))
        # The tag last: until then the rest is nobody's.
        for at in range(place + EXPIRES, place + BUCKET_WORDS, WAYS):
            self._words[at] = 0
        self._words[place] = name.digest
        return place

    def _least(self, first: int, now: float) -> int:
        """Return which of the eight is to go when all of them mean something."""
        used = _eight_times(self._memory, (first + USED) * 8)
        guarded = _eight_times(self._memory, (first + GUARDED) * 8)
        if max(guarded) <= now:
            return used.index(min(used))
        soonest = min(guarded)
        if soonest > now:
            return guarded.index(soonest)
        return min((way for way in range(WAYS) if guarded[way] <= now), key=used.__getitem__)

    def _write(self, name: _Name, place: int, value: int, number: int = 0) -> None:
        self._words[place + VALUES + WAYS * number] = name.check | value
        name.seen[number] = value

    def _count(self, name: _Name, place: int, number: int, start: int) -> None:
        """Count one more in a column, with nothing between reading and writing."""
        at = place + VALUES + WAYS * number
        value = self._words[at] ^ name.check
        latest = max(value if value < VALUE_END else 0, name.seen[number], start << COUNT_BITS)
        if latest & MOST_COUNTED < MOST_COUNTED:
            self._words[at] = name.check | latest + 1
            name.seen[number] = latest + 1

    def _counts(self, name: _Name, place: int, start: int) -> list[int]:
        """Return what the columns count since the window began."""
        words, counts = self._words, [0] * COLUMNS
        for column in range(COLUMNS):
            seen = name.seen[1 + column]
            value = words[place + VALUES + WAYS * (1 + column)] ^ name.check
            latest = value if seen < value < VALUE_END else seen
            if latest >> COUNT_BITS >= start:
                counts[column] = latest & MOST_COUNTED
        return counts

    def _joins(self, key: Key, column: int, start: int, expires: float, now: float) -> bool:
        """Note that a member is in a column since the window began; tell whether that is new."""
        # Not to be remembered: there are many of them, and each is told once or twice.
        name = _Name(key, self._secret, self._buckets)
        place, value = self._find(name, column)
        place = place or self._claim(name, now)
        self._times[place + USED] = now
        self._times[place + EXPIRES] = expires
        if value >> COUNT_BITS == start:
            return False
        self._write(name, place, start << COUNT_BITS, column)
        return True


def _next_level(value: int, quiet: float, growth: Growth) -> int:
    """Return how often the next block is doubled, when the last one ended `quiet` seconds ago."""
    if not value:
        return 0
    last = (value & MOST_COUNTED) >> REASON_BITS
    level = max(0, last + 1 - int(quiet / growth.forgiven_after))
    # Levels that wouldn't make it longer would only have to be forgiven again.
    while level and growth.first * (1 << level - 1) >= growth.longest:
        level -= 1
    return level
