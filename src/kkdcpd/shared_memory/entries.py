"""Keeps entries under keys, in a table of fixed size for all processes.

Processes read and write aligned words of 8 bytes, which no other process sees half written. A race between
two processes costs a count:

- Two processes that add to one value at the same moment may add only one. So they read as late as they can.
- A process that sleeps between reading and writing writes an outdated value. Values never get smaller, so
  each process remembers the values that it saw under the keys that it knows, and the greater value holds.
- Two processes may claim two entries for one key. Each looks for the other's entry then, and both keep the
  first of the two.
- Two processes may claim one entry for different keys at the same moment. Each value holds some bits of its
  key's digest, so that the process that lost the entry finds no value of the other key in it.
- A process that is killed between two writes leaves an entry that has lost its values.

The digest of a key selects a bucket of 8 entries, and the entry may be any of the 8. When all are taken, an
expired entry goes first, then the entry that was unused for longest. A guarded entry goes only when all 8 are
guarded.

A bucket has 64 words: 8 of each kind, in this order, so that all words of one kind are read at once.

    tag         the key's digest; 0 in a free entry
    used        when the entry was used last, in seconds
    expires     when the entry expires
    guarded     until when the entry is guarded
    4 values    10 bits of the digest, then 54 bits that begin with a time

The word behind all buckets is the time until which any entry is guarded. Two processes that write it at the
same moment may leave the earlier time. The other process writes its own again when it next reads the word.
"""

import struct

from kkdcpd.shared_memory.areas import Area

__all__ = ["ENTRY_BYTES", "NO_ENTRY", "EntryTable", "Name", "entries_bytes"]

ENTRY_BYTES = 64
"""65536 entries are 4 MiB."""

WAYS = 8
"""Entries in a bucket. With 8, nearly the whole table gets used. The tags of a bucket are one cache line."""

WORD_BYTES = 8
BUCKET_BYTES = WAYS * ENTRY_BYTES
BUCKET_WORDS = BUCKET_BYTES // WORD_BYTES

USED, EXPIRES, GUARDED, VALUES = 8, 16, 24, 32
"""Distances in words from the tag. The further values follow the first, 8 words apart."""

GUARDED_UNTIL = -1
"""The position of the last word."""

VALUE_END = 1 << 54
"""Values are less. A word that is not, once its key's bits are taken off, holds another key's value."""

CHECK = 0x3FF << 54
"""The bits of the digest in a value."""

MOST_KNOWN = 1024
LONGEST_KNOWN = 64
"""The most keys in the cache of a process, and the longest last part of a cached key: some hundred KiB."""

NO_ENTRY = -1

# Native sizes and byte order: so each word is read at once, and not byte by byte.
_eight_tags = struct.Struct("8Q").unpack_from
_eight_times = struct.Struct("8d").unpack_from
_four_values = struct.Struct("Q56xQ56xQ56xQ").unpack_from


def entries_bytes(entries: int) -> int:
    """Return the size of an area for as many entries.

    Raises:
        ValueError: it is no multiple of 8.
    """
    if entries < WAYS or entries % WAYS:
        raise ValueError(f"{entries} is no multiple of {WAYS}")
    return entries * ENTRY_BYTES + WORD_BYTES


class Name:
    """A key's digest, the first word of its bucket, and the values that this process saw under the key.

    `at` is the position at which the last search found the entry.
    """

    __slots__ = ("at", "check", "digest", "first", "seen")

    def __init__(self, area: Area, key: tuple[str, ...]) -> None:
        digest = area.digest(*key)
        self.digest = digest or 1
        self.check = digest & CHECK
        self.first = self.at = digest % (len(area.memory) // BUCKET_BYTES) * BUCKET_WORDS
        self.seen = [0, 0, 0, 0]


class _Names(dict[tuple[str, ...], Name]):
    """The names of the keys that this process used last."""

    def __init__(self, area: Area) -> None:
        super().__init__()
        self._area = area

    def __missing__(self, key: tuple[str, ...]) -> Name:
        if len(self) >= MOST_KNOWN:
            self.clear()
        name = Name(self._area, key)
        if len(key[-1]) <= LONGEST_KNOWN:
            self[key] = name
        return name


class EntryTable:
    """One process's view of the entries in an area.

    `names` has the name of each key. It remembers the keys that are used often.
    """

    __slots__ = ("_area", "_guarded_until", "_memory", "_times", "names", "words")

    def __init__(self, area: Area) -> None:
        self._area = area
        self._memory = area.memory
        self._times = area.memory.cast("d")
        self.words = area.memory.cast("Q")
        self.names = _Names(area)
        self._guarded_until = 0.0  # by this process

    def passing_name(self, key: tuple[str, ...]) -> Name:
        """Return the name of a key that is used only once or twice, and do not remember it."""
        return Name(self._area, key)

    def find(self, name: Name, number: int = 0) -> tuple[int, int]:
        """Return the position of the name's entry and a value: the greater of the stored and the seen value.

        Without an entry the position is `NO_ENTRY`. Without a value the value is 0.
        """
        seen = name.seen[number]
        words = self.words
        at = name.at
        if words[at] != name.digest:
            tags = _eight_tags(self._memory, name.first * WORD_BYTES)
            if name.digest not in tags:
                return NO_ENTRY, seen
            at = name.at = name.first + tags.index(name.digest)
        value = words[at + VALUES + WAYS * number] ^ name.check
        return at, value if seen < value < VALUE_END else seen

    def claim(self, name: Name, now: float) -> int:
        """Give the name an entry of its bucket, and return its position."""
        first = name.first
        expires = _eight_times(self._memory, (first + EXPIRES) * 8)
        soonest = min(expires)
        at = first + (expires.index(soonest) if soonest <= now else self._least(first, now))
        # The tag comes last: until then, the other words belong to no key.
        for word in range(at + EXPIRES, at + BUCKET_WORDS, WAYS):
            self.words[word] = 0
        self.words[at] = name.digest
        tags = _eight_tags(self._memory, first * WORD_BYTES)
        return self._keep_first(name, tags) if tags.count(name.digest) > 1 else at

    def _keep_first(self, name: Name, tags: tuple[int, ...]) -> int:
        """Free all entries of the name but the first, whose position is returned.

        Another process that has found one of the others in an earlier search has to search again.
        """
        first, *others = (name.first + way for way, tag in enumerate(tags) if tag == name.digest)
        for at in others:
            self.words[at] = self.words[at + EXPIRES] = 0
        return first

    def _least(self, first: int, now: float) -> int:
        """Return which of the 8 entries has to go when none has expired."""
        used = _eight_times(self._memory, (first + USED) * 8)
        guarded = _eight_times(self._memory, (first + GUARDED) * 8)
        if max(guarded) <= now:
            return used.index(min(used))
        soonest = min(guarded)
        if soonest > now:
            return guarded.index(soonest)
        return min((way for way in range(WAYS) if guarded[way] <= now), key=used.__getitem__)

    def values(self, name: Name, at: int) -> list[int]:
        """Return the four values of an entry, each the greater of the stored and the seen value."""
        check = name.check
        values = name.seen.copy()
        for number, word in enumerate(_four_values(self._memory, (at + VALUES) * 8)):
            value = word ^ check
            if values[number] < value < VALUE_END:
                values[number] = value
        return values

    def add(self, name: Name, at: int, number: int, least: int, step: int) -> int:
        """Raise a value to `least`, add `step`, and return the sum. Nothing comes between read and write."""
        word = at + VALUES + WAYS * number
        value = self.words[word] ^ name.check
        seen = name.seen[number]
        if not seen < value < VALUE_END:
            value = seen
        value = (max(least, value)) + step
        self.words[word] = name.check | value
        name.seen[number] = value
        return value

    def write(self, name: Name, at: int, number: int, value: int) -> None:
        """Replace a value."""
        self.words[at + VALUES + WAYS * number] = name.check | value
        name.seen[number] = value

    def keep(self, at: int, now: float, expires: float) -> None:
        """Note that the entry is used now, and when it expires."""
        times = self._times
        times[at + USED] = now
        times[at + EXPIRES] = expires

    def keep_longer(self, at: int, now: float, expires: float) -> None:
        """Note that the entry is used now, and that it expires no sooner than at this time."""
        times = self._times
        times[at + USED] = now
        times[at + EXPIRES] = max(times[at + EXPIRES], expires)

    def guard(self, at: int, until: float) -> None:
        """Let the entry go only for another guarded entry, until this time."""
        self._times[at + GUARDED] = until
        self._guarded_until = max(self._guarded_until, until)
        self._times[GUARDED_UNTIL] = max(self._times[GUARDED_UNTIL], until)

    def has_guarded(self, now: float) -> bool:
        """Whether any entry is guarded. While there is none, no search for one is needed."""
        until = self._times[GUARDED_UNTIL]
        if until < self._guarded_until:  # another process has overwritten it at the same moment
            until = self._times[GUARDED_UNTIL] = self._guarded_until
        return until > now
