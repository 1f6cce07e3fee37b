"""Logs events. An event is a word with fields, which are keyword arguments."""

import logging
import sys
from collections.abc import Hashable, Mapping

__all__ = ["EventLogger"]


class EventLogger:
    """Logs the events of one module. `name` is the module's `__name__`: it decides the area of the log.

    A field whose value is None is left out. The handler writes the first event with a given `sum_by` at once.
    Later events are summed: it writes the last event of each ten seconds, with the `count` of events.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, /, *, sum_by: Hashable = None, **fields: object) -> None:
        """Log something that only helps to find a fault."""
        self._log(logging.DEBUG, event, sum_by, fields)

    def info(self, event: str, /, *, sum_by: Hashable = None, **fields: object) -> None:
        """Log something that happens as it should."""
        self._log(logging.INFO, event, sum_by, fields)

    def warning(self, event: str, /, *, sum_by: Hashable = None, **fields: object) -> None:
        """Log something that the administrator should look at."""
        self._log(logging.WARNING, event, sum_by, fields)

    def error(
        self,
        event: str,
        /,
        *,
        sum_by: Hashable = None,
        exc_info: BaseException | None = None,
        **fields: object,
    ) -> None:
        """Log something that keeps kkdcpd from its work. With `exc_info`, its traceback follows."""
        self._log(logging.ERROR, event, sum_by, fields, exc_info)

    def exception(self, event: str, /, *, sum_by: Hashable = None, **fields: object) -> None:
        """Log the exception that is being handled, with its traceback."""
        self._log(logging.ERROR, event, sum_by, fields, sys.exception())

    def _log(
        self,
        level: int,
        event: str,
        sum_by: Hashable,
        fields: Mapping[str, object],
        error: BaseException | None = None,
    ) -> None:
        if self._logger.isEnabledFor(level):
            present = {name: value for name, value in fields.items() if value is not None}
            self._logger.log(level, event, exc_info=error, extra={"fields": present, "sum_by": sum_by})
