"""Configures logging. No other module does."""

import logging
import sys

from kkdcpd.config import LogConfig
from kkdcpd.log.areas import set_levels
from kkdcpd.log.events import EventLogger
from kkdcpd.log.lines import JsonLines, Lines, TextLines
from kkdcpd.log.output import Output, is_journal
from kkdcpd.log.principals import Fields, Principals
from kkdcpd.log.repeats import RepeatSummer

__all__ = ["configure_logging"]

logger = EventLogger(__name__)


def configure_logging(config: LogConfig, descriptor: int, *, journal_stream: str | None = None) -> None:
    """Write the log to `descriptor`. `journal_stream` is $JOURNAL_STREAM.

    Call it before any fork, so that all processes use the same pseudonyms of principals.
    """
    for_journal = is_journal(descriptor, journal_stream)
    lines = (JsonLines if config.format == "json" else TextLines)(for_journal=for_journal)
    _skip_unused_record_fields()
    # By default, Python prints an exception without a caller to standard error, with bytes of the client. A
    # TLS server name that is not ASCII causes such an exception.
    sys.unraisablehook = _log_unraisable
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], [LineHandler(lines, Principals(config), Output(descriptor))]
    for handler in before:
        if isinstance(handler, LineHandler):
            handler.flush()
            handler.close()
    set_levels(config)


class LineHandler(logging.Handler):
    """Writes records as lines. It counts lost lines, and logs their number with the next line."""

    def __init__(self, lines: Lines, principals: Principals, output: Output) -> None:
        super().__init__()
        self._lines = lines
        self._principals = principals
        self._output = output
        self._repeats = RepeatSummer(self.handle_sum)
        self._lost = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record, or add it to a sum. This handler has no filters."""
        assert self.lock
        with self.lock:
            try:
                if not record.name.startswith("kkdcpd"):
                    record = _translated(record)
                key = getattr(record, "sum_by", None)
                if key is None or not self._repeats.is_held_back(record, key):
                    self.emit(record)
            except Exception:  # noqa: BLE001 - as the handlers of logging do: the caller is not at fault
                self.handleError(record)
        return True

    def handle_sum(self, record: logging.LogRecord) -> None:
        """Write a sum of repeated events."""
        assert self.lock
        with self.lock:
            self.emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if self._lost:
            lost, self._lost = self._lost, 0
            logger.warning("lines_lost", count=lost)
            if self._lost:
                # That line was lost, too. This record counts as lost in its place.
                self._lost += lost
                return
        fields: Fields = getattr(record, "fields", {})
        if not self._output.write(self._lines.render(record, self._principals.hide(fields))):
            self._lost += 1

    def flush(self) -> None:
        """Write all sums now."""
        assert self.lock
        with self.lock:
            self._repeats.flush()

    def close(self) -> None:
        """Close the output."""
        super().close()
        self._output.close()


def _translated(record: logging.LogRecord) -> logging.LogRecord:
    """Turn a library's message into an event. Keep only the first line: others may quote a client."""
    fields = {"library": record.name, "text": record.getMessage().partition("\n")[0]}
    ours = logging.LogRecord(
        record.name, record.levelno, record.pathname, record.lineno, "library_message", (), record.exc_info
    )
    ours.created = record.created
    ours.fields = fields
    ours.sum_by = record.name, record.msg
    return ours


def _log_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    logger.debug("unraisable_error", error=unraisable.exc_type.__name__)


def _skip_unused_record_fields() -> None:
    """Spare each record the search for its caller, thread and process ("Optimization" in Python's HOWTO)."""
    logging._srcfile = None  # noqa: SLF001 - the HOWTO recommends it
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
