"""Where it is counted: memory that the processes of this host share. No locks, no clock.

It is made before the workers are forked and has one size for ever. Each worker has a row of words of 8 octets
to itself and is the only one that writes to it, so that nothing is lost and nobody waits; a kill -9 costs the
count that was under way. Who reads adds the rows up. A row outlives its worker, and the next one goes on
adding: counters never go back, whoever dies or is replaced. What tells of the present is set to zero between
the two.

A row is the words of `columns.FIXED`, then three tables of slots: for realms, for KDCs of realms that have a
name in the configuration, and for KDCs that were found under wildcards. Their names are not
known beforehand, and change with configuration and DNS: each gets a slot of the row when it first counts
there, and keeps it. Once all slots are taken, what is new counts as "other", in the first one. Memory that
was never counted in has no pages.
"""

import mmap
from collections.abc import Iterator

from kkdcpd.frozen import frozen
from kkdcpd.metrics.columns import FIXED, FIXED_WORDS, KDC_WORDS, REQUEST_WORDS

__all__ = ["Metrics", "Row", "Slots", "make_metrics"]

ROWS = 64
"""Workers at a time, those that drain after a reload included."""

REALM_SLOTS = 1024
KDC_SLOTS = 1024
BRANCH_KDC_SLOTS = 256
"""With these, a row has 1.4 MiB of addresses. Endpoints that were found under wildcards have slots of their
own: the owners of the domains there decide how many there are."""

_MAX_REALM_OCTETS = 264  # 255 by `config.texts`, with the `*.` of a wildcard
_MAX_KDC_OCTETS = 320  # a host name of 253 octets, an address, port and transport

OTHER = "other"

RELOADS_OK, RELOADS_FAILED, WORKER_DEATHS, _SERVICE_WORDS = range(4)
"""The parent's own words, before the rows; then there is one for each row that was ever used."""

_PAGE_WORDS = mmap.PAGESIZE // 8

KDC_STATE_WORD = 2


@frozen
class _Shape:
    """A table: at which word of the row it begins, how many slots it has, and of what size."""

    first: int
    slots: int
    name_words: int
    value_words: int

    @property
    def slot_words(self) -> int:
        return 1 + self.name_words + self.value_words

    @property
    def end(self) -> int:
        return self.first + self.slots * self.slot_words


class Slots:
    """A table of slots in a row. In a slot: 1 + the name's length, the name, the values."""

    def __init__(self, words: memoryview, row: int, shape: _Shape) -> None:
        self._words = words
        self._octets = words.cast("B")
        self._shape = shape
        self._first = row + shape.first
        self._places: dict[str, int] = {}
        self._free = 1
        for name, place in self:
            self._places[name] = place
            self._free += 1

    def place(self, name: str) -> int:
        """Return the index of the name's first value: of "other"'s if it has no slot and can't get one."""
        return self._places.get(name) or self._claim(name)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """Go through all names but "other", with the index of their first value."""
        shape = self._shape
        for number in range(1, shape.slots):
            at = self._first + number * shape.slot_words
            length = self._words[at] - 1
            if length < 0:
                return
            start = (at + 1) * 8
            name = bytes(self._octets[start : start + length]).decode(errors="replace")
            yield name, at + 1 + shape.name_words

    @property
    def other(self) -> int:
        """The index of the first value of what has no slot."""
        return self._first + 1 + self._shape.name_words

    @property
    def is_full(self) -> bool:
        """Whether no new name can get a slot."""
        return self._free >= self._shape.slots

    def _claim(self, name: str) -> int:
        shape = self._shape
        octets = name.encode(errors="replace")  # to count may not fail
        if self.is_full or len(octets) > shape.name_words * 8:
            return self.other
        at = self._first + self._free * shape.slot_words
        start = (at + 1) * 8
        self._octets[start : start + len(octets)] = octets
        # The length last: until then the slot is nobody's.
        self._words[at] = 1 + len(octets)
        self._free += 1
        self._places[name] = at + 1 + shape.name_words
        return self._places[name]


class Row:
    """One worker's words. `first` is the index of the first of `columns.FIXED`."""

    def __init__(self, words: memoryview, first: int, realms: Slots, kdcs: Slots, branch_kdcs: Slots) -> None:
        self.words = words
        self.first = first
        self.realms = realms
        self.kdcs = kdcs
        self.branch_kdcs = branch_kdcs

    def clear_gauges(self) -> None:
        """Set to zero what tells of a worker that is no more."""
        for family, at in FIXED.items():
            if family.kind == "gauge":
                self.words[self.first + at] = 0
        for kdcs in (self.kdcs, self.branch_kdcs):
            for place in (kdcs.other, *(place for _, place in kdcs)):
                self.words[place + KDC_STATE_WORD] = 0


class Metrics:
    """The memory. Who is forked after it was made has it too."""

    def __init__(self, memory: mmap.mmap, rows: int, shapes: tuple[_Shape, _Shape, _Shape]) -> None:
        self.rows = rows
        self.words = memoryview(memory).cast("Q")
        self._shapes = shapes
        self._first = _whole_pages(_SERVICE_WORDS + rows)
        self._row_words = _whole_pages(shapes[-1].end)

    def row(self, number: int) -> Row:
        """Look at a row. Who will write must not do so before the last writer has ended."""
        first = self._first + number * self._row_words
        return Row(self.words, first, *(Slots(self.words, first, shape) for shape in self._shapes))

    def used_rows(self) -> list[Row]:
        """Look at every row that was ever used. Others have no pages, and reading would give them some."""
        return [self.row(number) for number in range(self.rows) if self.words[_SERVICE_WORDS + number]]

    def take_row(self, number: int) -> Row:
        """Return the row to who counts in it from now on: nobody else may."""
        self.words[_SERVICE_WORDS + number] = 1
        self.clear_gauges(number)
        return self.row(number)

    def clear_gauges(self, number: int) -> None:
        """Forget what a row tells of the present: its worker has ended, however it did."""
        if self.words[_SERVICE_WORDS + number]:
            self.row(number).clear_gauges()

    def add(self, word: int) -> None:
        """Add one to a word of the parent's."""
        self.words[word] += 1


def make_metrics(
    *,
    rows: int = ROWS,
    realm_slots: int = REALM_SLOTS,
    kdc_slots: int = KDC_SLOTS,
    branch_kdc_slots: int = BRANCH_KDC_SLOTS,
) -> Metrics:
    """Make the memory, with all counters at zero."""
    realms = _Shape(
        first=FIXED_WORDS, slots=realm_slots, name_words=_MAX_REALM_OCTETS // 8, value_words=REQUEST_WORDS
    )
    kdcs = _kdc_shape(realms.end, kdc_slots)
    branch_kdcs = _kdc_shape(kdcs.end, branch_kdc_slots)
    size = _whole_pages(_SERVICE_WORDS + rows) + rows * _whole_pages(branch_kdcs.end)
    return Metrics(mmap.mmap(-1, size * 8), rows, (realms, kdcs, branch_kdcs))


def _kdc_shape(first: int, slots: int) -> _Shape:
    return _Shape(first=first, slots=slots, name_words=_MAX_KDC_OCTETS // 8, value_words=KDC_WORDS)


def _whole_pages(words: int) -> int:
    return -(-words // _PAGE_WORDS) * _PAGE_WORDS
