"""How log records look and where they go; the only module that configures logging.

A record is an event and its fields: `logger.info("exchange", extra={"fields": {...}})`. As text that is
`time level event key=value ...`, as JSON one object a line. Either is one line whatever a stranger put into
a value; only the traceback of a bug takes more, and only as text.
"""

import datetime
import json
import logging
import re
import sys
from typing import TextIO

from kkdcpd.config import LogConfig

__all__ = ["configure_logging"]

logger = logging.getLogger(__name__)

MAX_VALUE_CHARACTERS = 256
"""Principal and realm names are shorter by far; a stranger can make them as long as a message."""

_PLAIN = re.compile(r"[\w./@:$*+,\-\[\]\\]+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def configure_logging(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send everything at or above the level to `stream`, standard output unless given."""
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    # Python's own way to tell what no caller can be told, such as a server name in TLS that isn't ASCII, is
    # lines of text on standard error, with a stranger's octets in them.
    sys.unraisablehook = _log_unraisable
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    fields = {"error": unraisable.exc_type.__name__, "detail": str(unraisable.exc_value)}
    logger.debug("unraisable_error", extra={"fields": fields})


def _bounded(value: object) -> object:
    if isinstance(value, str) and len(value) > MAX_VALUE_CHARACTERS:
        return f"{value[:MAX_VALUE_CHARACTERS]}...({len(value)} characters)"
    return value


def _time(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields


class TextFormatter(logging.Formatter):
    """`time level event key=value ...`, for people and for grep."""

    def format(self, record: logging.LogRecord) -> str:
        event = _CONTROL.sub("?", record.getMessage())
        words = [_time(record), record.levelname.lower(), event]
        words += [f"{key}={_quote(_bounded(value))}" for key, value in _fields(record).items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quote(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {"time": _time(record), "level": record.levelname.lower()}
        entry["event"] = record.getMessage()
        entry |= {key: _bounded(value) for key, value in _fields(record).items()}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)
