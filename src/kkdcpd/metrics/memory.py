"""Lays out the counters of the metrics in shared memory. It uses no locks and reads no clock.

Each worker process has a row of words of 8 bytes and is the only one that writes to it. So no count is lost
and no process waits; a kill -9 costs the count that was under way. A reader adds up the rows. A row outlives
its worker process, and the next process of the row goes on adding: counters never go back. Gauges are set to
zero between the two.

A row has the words of `columns.FIXED`, then three tables of names: realms, KDCs of realms that have a name in
the configuration, and KDCs that were found under wildcards. Pages that no process counts in take no memory.
"""

import mmap

from kkdcpd.frozen import frozen
from kkdcpd.metrics.columns import FIXED, FIXED_WORDS, KDC_WORDS, REQUEST_WORDS
from kkdcpd.shared_memory.areas import Area, make_area, whole_pages
from kkdcpd.shared_memory.name_table import NameTable, TableShape

__all__ = ["Metrics", "Row", "RowLayout", "make_metrics", "metrics_bytes"]

_MAX_REALM_BYTES = 264  # 255 by `config.texts`, with the `*.` of a wildcard
_MAX_KDC_BYTES = 320  # a host name of 253 bytes, an address, port and transport

OTHER = "other"

RELOADS_OK, RELOADS_FAILED, WORKER_DEATHS, _SERVICE_WORDS = range(4)
"""The parent process's own words, in a page before the rows. After them, one word says for each row whether
it was ever used."""

_PAGE_WORDS = mmap.PAGESIZE // 8

KDC_STATE_WORD = 2


@frozen
class RowLayout:
    """The number of entries in the tables of a row. By default a row has 1.4 MiB of addresses.

    The owners of domains under a wildcard decide how many endpoints these domains have. So these endpoints
    have a table of their own.
    """

    realm_entries: int = 1024
    kdc_entries: int = 1024
    branch_kdc_entries: int = 256

    def tables(self) -> tuple[TableShape, TableShape, TableShape]:
        """Return the tables for realms, KDCs, and KDCs under wildcards."""
        realms = TableShape(
            first=FIXED_WORDS,
            entries=self.realm_entries,
            name_words=_MAX_REALM_BYTES // 8,
            value_words=REQUEST_WORDS,
        )
        kdcs = _kdc_table(realms.end, self.kdc_entries)
        return realms, kdcs, _kdc_table(kdcs.end, self.branch_kdc_entries)

    @property
    def bytes(self) -> int:
        """The size of a row."""
        return whole_pages(self.tables()[-1].end * 8)


def _kdc_table(first: int, entries: int) -> TableShape:
    return TableShape(first=first, entries=entries, name_words=_MAX_KDC_BYTES // 8, value_words=KDC_WORDS)


_LAYOUT = RowLayout()


def metrics_bytes(rows: int, layout: RowLayout = _LAYOUT) -> int:
    """Return the size of an area with this number of rows."""
    return mmap.PAGESIZE + rows * layout.bytes


class Row:
    """One worker process's words. `first` is the index of the first word of `columns.FIXED`."""

    def __init__(
        self, words: memoryview, first: int, realms: NameTable, kdcs: NameTable, branch_kdcs: NameTable
    ) -> None:
        self.words = words
        self.first = first
        self.realms = realms
        self.kdcs = kdcs
        self.branch_kdcs = branch_kdcs

    def clear_gauges(self) -> None:
        """Set the gauges of a process that has ended to zero."""
        for family, at in FIXED.items():
            if family.kind == "gauge":
                self.words[self.first + at] = 0
        for kdcs in (self.kdcs, self.branch_kdcs):
            for index in (kdcs.other, *(index for _, index in kdcs)):
                self.words[index + KDC_STATE_WORD] = 0


class Metrics:
    """A process's view of the counters."""

    def __init__(self, area: Area, layout: RowLayout = _LAYOUT) -> None:
        self.area = area
        self.words = area.memory.cast("Q")
        self._tables = layout.tables()
        self._row_words = layout.bytes // 8
        self._rows = (len(self.words) - _PAGE_WORDS) // self._row_words

    def row(self, number: int) -> Row:
        """Return a view of a row. Only the process that has taken the row may write to it."""
        first = _PAGE_WORDS + number * self._row_words
        return Row(self.words, first, *(NameTable(self.words, first, table) for table in self._tables))

    def used_rows(self) -> list[Row]:
        """Return all rows that were ever used. Reading another row would give it pages."""
        return [self.row(number) for number in range(self._rows) if self.words[_SERVICE_WORDS + number]]

    def take_row(self, number: int) -> Row:
        """Return the row to the process that counts in it from now on."""
        self.words[_SERVICE_WORDS + number] = 1
        self.clear_gauges(number)
        return self.row(number)

    def clear_gauges(self, number: int) -> None:
        """Set the gauges of a row to zero: its worker process has ended."""
        if self.words[_SERVICE_WORDS + number]:
            self.row(number).clear_gauges()

    def add(self, word: int) -> None:
        """Add one to a word of the parent process."""
        self.words[word] += 1


def make_metrics(rows: int, layout: RowLayout = _LAYOUT) -> Metrics:
    """Make counters that no other process shares, for tests and for a process that counts for itself."""
    return Metrics(make_area(metrics_bytes(rows, layout)), layout)
