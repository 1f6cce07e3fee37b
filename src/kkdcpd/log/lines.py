"""Renders log records as text or JSON: always one line, even if a client chose the values.

Only the traceback of a bug takes more lines, and only as text. No record takes more bytes than a pipe takes
at once: lines of several processes never mix (pipe(7), PIPE_BUF).
"""

import json
import logging
import os
import re
import select
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Protocol

__all__ = ["JsonLines", "Lines", "Plain", "TextLines", "cut"]

MAX_LINE_BYTES = select.PIPE_BUF - 1
"""One byte is left for the end of a line that was written in part."""

VALUE_LIMITS = (256, 64, 8)
"""The limits for the characters of a value. Names of principals and realms are much shorter, but a client can
send names as long as a message. The shorter limits are for lines that would still be too long."""

TRACEBACK_FACTOR = 12
"""The limit for a traceback, as a multiple of the limit for a value. The end of the traceback is kept."""

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""The priorities of syslog(3), which begin a line as sd-daemon(3) describes."""

_PLAIN = re.compile(r"[\w./@:$*+,\-\[\]\\]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NUMBERS = (int, float)
_CACHED_VALUES = 2048

MAX_CHAINED = 4
"""The most exceptions that are shown of a chain of causes."""

_TRACEBACK_HEAD = "Traceback (most recent call last):\n"
_BECAUSE = "\n\nThis led to another exception:\n\n"


class Plain(str):
    """A value of our own that needs no escapes, and differs in each line, so that no cache should hold it."""

    __slots__ = ()


_VERBATIM = (*_NUMBERS, Plain)


class Lines(Protocol):
    """A format for log records."""

    def render(self, record: logging.LogRecord, fields: Mapping[str, object]) -> bytes:
        """Return the line of the record, with its newline."""
        ...


class _Clock:
    """Formats times as in RFC 3339. The text up to the second is kept for one second."""

    def __init__(self) -> None:
        self._second = -1
        self._written = ""

    def write(self, moment: float) -> str:
        second = int(moment)
        if second != self._second:
            self._second = second
            self._written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._written}.{int((moment - second) * 1000):03d}Z"


class TextLines:
    """`time level event key=value ...`, for people and for grep. The journal has its own time."""

    def __init__(self, *, for_journal: bool = False) -> None:
        self._clock = None if for_journal else _Clock()

    def render(self, record: logging.LogRecord, fields: Mapping[str, object]) -> bytes:
        """Return the line of the record, with its newline."""
        head = f"{record.levelname.lower()} {record.msg}"
        if self._clock:
            head = f"{self._clock.write(record.created)} {head}"
            prefix = ""
        else:
            prefix = _prefix(record)
        for shown in _TEXTS:
            text = f"{prefix}{head}"
            for key, value in fields.items():
                if type(value) is str:
                    text += f" {key}={shown[value]}"
                else:
                    text += f" {key}={value if type(value) in _VERBATIM else shown[str(value)]}"
            text += "\n"
            if record.exc_info:
                text += _text_traceback(record, prefix, shown.limit)
            line = text.encode("ascii", "backslashreplace")
            if len(line) <= MAX_LINE_BYTES:
                break
        return line


class JsonLines:
    """One JSON object for each line, in ASCII."""

    def __init__(self, *, for_journal: bool = False) -> None:
        self._for_journal = for_journal
        self._clock = _Clock()

    def render(self, record: logging.LogRecord, fields: Mapping[str, object]) -> bytes:
        """Return the line of the record, with its newline."""
        prefix = _prefix(record) if self._for_journal else ""
        moment = self._clock.write(record.created)
        head = f'{prefix}{{"time": "{moment}", "level": "{record.levelname.lower()}", "event": "{record.msg}"'
        for quoted in _QUOTED:
            line = head
            for key, value in fields.items():
                line += f', "{key}": {_in_json(value, quoted)}'
            if record.exc_info:
                line += f', "traceback": {json.dumps(_traceback(record, quoted.limit))}'
            line += "}\n"
            if len(line) <= MAX_LINE_BYTES:
                break
        return line.encode("ascii")


def _in_json(value: object, quoted: Mapping[str, str]) -> object:
    if type(value) in _NUMBERS:
        return value
    return f'"{value}"' if type(value) is Plain else quoted[str(value)]


def _prefix(record: logging.LogRecord) -> str:
    return f"<{_PRIORITIES.get(record.levelno, 6)}>"


def cut(value: str, limit: int = VALUE_LIMITS[0]) -> str:
    """Return the value as a line shows it. Do not keep the full value: a client can make it long."""
    return value if len(value) <= limit else f"{value[:limit]}...({len(value)} characters)"


class _Written(dict[str, str]):
    """A cache of values as lines show them. Most values repeat: addresses, realms, words of kkdcpd.

    The cache keeps no value that is longer than its limit, because a client can make values long.
    """

    def __init__(self, limit: int, write: Callable[[str], str]) -> None:
        super().__init__()
        self.limit = limit
        self._write = write

    def __missing__(self, value: str) -> str:
        if len(value) > self.limit:
            return json.dumps(cut(value, self.limit))
        if len(self) >= _CACHED_VALUES:
            self.clear()
        written = self[value] = self._write(value)
        return written


def _text(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


_TEXTS = [_Written(limit, _text) for limit in VALUE_LIMITS]
_QUOTED = [_Written(limit, json.dumps) for limit in VALUE_LIMITS]


def _traceback(record: logging.LogRecord, limit: int) -> str:
    """Return the source lines and types of the exceptions. Omit their texts, which may quote a client."""
    assert record.exc_info
    error = record.exc_info[1]
    parts: list[str] = []
    while error and len(parts) < MAX_CHAINED:
        parts.append("".join((_TRACEBACK_HEAD, *traceback.format_tb(error.__traceback__), _kind(error))))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return _BECAUSE.join(reversed(parts))[-limit * TRACEBACK_FACTOR :]


def _kind(error: BaseException) -> str:
    name = type(error).__qualname__
    if not isinstance(error, OSError) or not error.errno:
        return name
    # The text of the system for an errno quotes no client. The texts of libraries may.
    sentence = f": {error.strerror}" if error.strerror == os.strerror(error.errno) else ""
    return f"{name} (errno {error.errno}{sentence})"


def _text_traceback(record: logging.LogRecord, prefix: str, limit: int) -> str:
    """Indent each line, so that no text of a traceback looks like a line of the log."""
    lines = _traceback(record, limit).splitlines()
    return "".join(f"{prefix}    {_CONTROL.sub('?', line)}\n" for line in lines)
