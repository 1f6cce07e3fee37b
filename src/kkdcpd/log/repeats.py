"""Sums repeated events: the first is written at once, later ones as one line in ten seconds with a count."""

import asyncio
import copy
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

__all__ = ["RepeatSummer"]

SUM_SECONDS = 10.0
"""Shortest interval between two lines with the same key."""

MAX_KEYS = 256
"""Keys may contain a client's address. Events with further keys in the interval are summed by event alone."""


@dataclass(slots=True)
class _Sum:
    """The events since the last line with this key."""

    ends: float
    count: int = 0
    last: logging.LogRecord | None = None


class RepeatSummer:
    """Holds back repeated events, and passes their sums to `write`."""

    def __init__(self, write: Callable[[logging.LogRecord], None], *, seconds: float = SUM_SECONDS) -> None:
        self._write = write
        self._seconds = seconds
        self._sums: dict[Hashable, _Sum] = {}

    def is_held_back(self, record: logging.LogRecord, key: Hashable) -> bool:
        """Whether the record was added to a sum. Without an event loop, no timer can write sums."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if key not in self._sums and len(self._sums) >= MAX_KEYS:
            key = record.msg
        entry = self._sums.get(key)
        if entry is not None and entry.ends <= time.monotonic():
            self._end(loop, key)
            entry = self._sums.get(key)
        if entry is None:
            self._begin(loop, key)
            return False
        entry.count += 1
        entry.last = record
        return True

    def flush(self) -> None:
        """Write all sums now."""
        sums, self._sums = self._sums, {}
        for entry in sums.values():
            self._write_sum(entry)

    def _begin(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        entry = self._sums[key] = _Sum(ends=time.monotonic() + self._seconds)
        loop.call_later(self._seconds, self._end_in_time, loop, key, entry)

    def _end_in_time(self, loop: asyncio.AbstractEventLoop, key: Hashable, entry: _Sum) -> None:
        if self._sums.get(key) is entry:
            self._end(loop, key)

    def _end(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        entry = self._sums.pop(key)
        if entry.last:
            self._write_sum(entry)
            self._begin(loop, key)

    def _write_sum(self, entry: _Sum) -> None:
        if entry.last is None:
            return
        record = copy.copy(entry.last)
        record.created = time.time()
        record.fields = {**getattr(record, "fields", {}), "count": entry.count}
        self._write(record)
