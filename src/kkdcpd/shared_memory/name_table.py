"""Keeps the words of each name in a process's row. Names are not known beforehand.

A table has a fixed number of entries. A name gets an entry when the process first needs its words, and keeps
this entry for ever, so that the next process of the row goes on with the same words. When all entries are
taken, further names share the first entry, "other".
"""

from collections.abc import Iterator

from kkdcpd.frozen import frozen

__all__ = ["NameTable", "TableShape"]


@frozen
class TableShape:
    """The first word of a table in its row, the number of its entries, and the words in an entry."""

    first: int
    entries: int
    name_words: int
    value_words: int

    @property
    def entry_words(self) -> int:
        """The words of an entry: 1 + the length of its name in bytes, the name, the values."""
        return 1 + self.name_words + self.value_words

    @property
    def end(self) -> int:
        """The first word after the table."""
        return self.first + self.entries * self.entry_words


class NameTable:
    """A table in the row that begins at the word `row`. Only the row's process may add names."""

    def __init__(self, words: memoryview, row: int, shape: TableShape) -> None:
        self._words = words
        self._bytes = words.cast("B")
        self._shape = shape
        self._first = row + shape.first
        self._known = dict(self)
        self._free = 1 + len(self._known)

    def index(self, name: str) -> int:
        """Return the index of the name's first value: the index of "other" if there is no free entry."""
        return self._known.get(name) or self._add(name)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Yield all names but "other", each with the index of its first value."""
        shape = self._shape
        for number in range(1, shape.entries):
            at = self._first + number * shape.entry_words
            length = self._words[at] - 1
            if length < 0:
                return
            start = (at + 1) * 8
            name = bytes(self._bytes[start : start + length]).decode(errors="replace")
            yield name, at + 1 + shape.name_words

    @property
    def other(self) -> int:
        """The index of the first value of the names without an entry."""
        return self._first + 1 + self._shape.name_words

    @property
    def is_full(self) -> bool:
        """Whether no new name can get an entry."""
        return self._free >= self._shape.entries

    def _add(self, name: str) -> int:
        shape = self._shape
        encoded = name.encode(errors="replace")  # counting must not fail
        if self.is_full or len(encoded) > shape.name_words * 8:
            return self.other
        at = self._first + self._free * shape.entry_words
        start = (at + 1) * 8
        self._bytes[start : start + len(encoded)] = encoded
        # The length comes last: a process that is killed before this leaves a free entry.
        self._words[at] = 1 + len(encoded)
        self._free += 1
        self._known[name] = at + 1 + shape.name_words
        return self._known[name]
