"""Tells what came of `serve` and `reload`: plain text, or JSON lines where the configuration has the log so.

Results go to standard output, problems to standard error. Where the format can't be read, it is plain text.
"""

import os
import sys
from pathlib import Path
from typing import Any, Protocol

from kkdcpd.config import LogConfig, read_log_format
from kkdcpd.errors import ConfigProblem, ListenError, StartError
from kkdcpd.log import configure_logging
from kkdcpd.log.events import EventLogger

__all__ = ["Notices", "notices_for"]

logger = EventLogger(__name__)

STANDARD_OUTPUT, STANDARD_ERROR = 1, 2


class Notices(Protocol):
    """A way to tell results and problems."""

    def start_failed(self, problem: object) -> None:
        """Tell one reason for which `serve` ends at once."""
        ...

    def reload_failed(self, problem: object) -> None:
        """Tell one reason for which a reload changed nothing."""
        ...

    def nothing_changed(self, generation: int) -> None:
        """Tell which generation serves on, after the problems."""
        ...

    def reloaded(self, generation: int) -> None:
        """Tell which generation serves."""
        ...


def notices_for(path: Path) -> Notices:
    """Return the notices that the configuration at the path asks for."""
    return _JsonNotices() if read_log_format(path) == "json" else _PlainNotices()


class _PlainNotices:
    """Sentences for a terminal."""

    def start_failed(self, problem: object) -> None:
        sys.stderr.write(f"error: {problem}\n")

    reload_failed = start_failed

    def nothing_changed(self, generation: int) -> None:
        sys.stderr.write(f"nothing has changed: generation {generation} serves on\n")

    def reloaded(self, generation: int) -> None:
        sys.stdout.write(f"reloaded: generation {generation} serves\n")


class _JsonNotices:
    """Lines of the log, with the priority that the journal expects before them if it reads them."""

    def start_failed(self, problem: object) -> None:
        _log_to(STANDARD_ERROR)
        # Each field is short enough for a line to hold it whole.
        logger.error("start_failed", **_fields(problem))

    def reload_failed(self, problem: object) -> None:
        _log_to(STANDARD_ERROR)
        logger.error("reload_failed", **_fields(problem))

    def nothing_changed(self, generation: int) -> None:
        """Leave it out: the event says so."""

    def reloaded(self, generation: int) -> None:
        _log_to(STANDARD_OUTPUT)
        logger.info("reloaded", generation=generation)


def _fields(problem: object) -> dict[str, Any]:
    if isinstance(problem, ConfigProblem):
        return {"key": problem.key or None, "problem": problem.problem, "remedy": problem.remedy or None}
    if isinstance(problem, ListenError | StartError):
        return {"problem": problem.problem, "remedy": problem.remedy}
    return {"problem": problem}


def _log_to(descriptor: int) -> None:
    journal_stream = os.environ.get("JOURNAL_STREAM")
    configure_logging(LogConfig(format="json"), descriptor, journal_stream=journal_stream)
