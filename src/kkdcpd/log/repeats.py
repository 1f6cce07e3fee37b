"""Lines that strangers or trouble can repeat as often as they like: the first is told at once, then sums."""

import asyncio
import copy
import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

__all__ = ["Repeats"]

SUM_SECONDS = 10.0
"""How often at most lines with one key are told."""

MAX_KEYS = 256
"""Keys may hold a client's address: what comes from more of them in that time is summed by event alone."""


@dataclass(slots=True)
class _Sum:
    """What was held back since the last line."""

    ends: float
    count: int = 0
    last: logging.LogRecord | None = None


class Repeats:
    """Holds lines back, and hands them to `write` as sums."""

    def __init__(self, write: Callable[[logging.LogRecord], None], *, seconds: float = SUM_SECONDS) -> None:
        self._write = write
        self._seconds = seconds
        self._sums: dict[Hashable, _Sum] = {}

    def is_held_back(self, record: logging.LogRecord, key: Hashable) -> bool:
        """Whether the line is summed; where no event loop runs none is, as nobody could tell it later."""
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
        """Tell every sum now."""
        sums, self._sums = self._sums, {}
        for entry in sums.values():
            self._tell(entry)

    def _begin(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        entry = self._sums[key] = _Sum(ends=time.monotonic() + self._seconds)
        loop.call_later(self._seconds, self._end_in_time, loop, key, entry)

    def _end_in_time(self, loop: asyncio.AbstractEventLoop, key: Hashable, entry: _Sum) -> None:
        if self._sums.get(key) is entry:
            self._end(loop, key)

    def _end(self, loop: asyncio.AbstractEventLoop, key: Hashable) -> None:
        entry = self._sums.pop(key)
        if entry.last:
            self._tell(entry)
            self._begin(loop, key)

    def _tell(self, entry: _Sum) -> None:
        if entry.last is None:
            return
        record = copy.copy(entry.last)
        record.created = time.time()
        record.fields = {**getattr(record, "fields", {}), "count": entry.count}
        self._write(record)
