"""Puts the log together; the only module that configures logging."""

import logging
import sys

from kkdcpd.config import LogConfig
from kkdcpd.log.areas import set_levels
from kkdcpd.log.events import EventLogger
from kkdcpd.log.lines import JsonLines, Lines, TextLines
from kkdcpd.log.output import Output, is_journal
from kkdcpd.log.principals import Fields, Principals
from kkdcpd.log.repeats import Repeats

__all__ = ["configure_logging"]

logger = EventLogger(__name__)


def configure_logging(config: LogConfig, descriptor: int, *, journal_stream: str | None = None) -> None:
    """Send what is told to `descriptor`; `journal_stream` is $JOURNAL_STREAM.

    Call it before any fork: all processes then name principals alike.
    """
    for_journal = is_journal(descriptor, journal_stream)
    lines = (JsonLines if config.format == "json" else TextLines)(for_journal=for_journal)
    _leave_out_what_no_line_has()
    # Python's own way to tell what no caller can be told, such as a server name in TLS that isn't ASCII, is
    # lines of text on standard error, with a stranger's octets in them.
    sys.unraisablehook = _log_unraisable
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], [LineHandler(lines, Principals(config), Output(descriptor))]
    for handler in before:
        if isinstance(handler, LineHandler):
            handler.flush()
            handler.close()
    set_levels(config)


class LineHandler(logging.Handler):
    """Writes records as lines. What can't be written is counted, and told as soon as something can."""

    def __init__(self, lines: Lines, principals: Principals, output: Output) -> None:
        super().__init__()
        self._lines = lines
        self._principals = principals
        self._output = output
        self._repeats = Repeats(self.handle_sum)
        self._lost = 0

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record, which is a line now, or only to be summed. Nobody gives this handler filters."""
        assert self.lock
        with self.lock:
            try:
                if not record.name.startswith("kkdcpd"):
                    record = _translated(record)
                key = getattr(record, "sum_by", None)
                if key is None or not self._repeats.is_held_back(record, key):
                    self.emit(record)
            except Exception:  # noqa: BLE001 - as logging's own handlers do: who logs can't be blamed
                self.handleError(record)
        return True

    def handle_sum(self, record: logging.LogRecord) -> None:
        """Write what `Repeats` held back."""
        assert self.lock
        with self.lock:
            self.emit(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        if self._lost:
            lost, self._lost = self._lost, 0
            logger.warning("lines_lost", count=lost)
            if self._lost:
                # That line was lost as well; this one is in its stead.
                self._lost += lost
                return
        fields: Fields = getattr(record, "fields", {})
        if not self._output.write(self._lines.render(record, self._principals.hide(fields))):
            self._lost += 1

    def flush(self) -> None:
        """Tell the sums that are held back."""
        assert self.lock
        with self.lock:
            self._repeats.flush()

    def close(self) -> None:
        """Let go of the output."""
        super().close()
        self._output.close()


def _translated(record: logging.LogRecord) -> logging.LogRecord:
    """Make of a library's text an event with fields. What follows its first line may quote a client."""
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


def _leave_out_what_no_line_has() -> None:
    """Spare each record the search for its caller, thread and process ("Optimization" in Python's HOWTO)."""
    logging._srcfile = None  # noqa: SLF001 - so it says there
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
