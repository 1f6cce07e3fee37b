"""Prints the results of `serve` and `reload` in the format of the log: plain text or JSON lines.

Results go to standard output, problems to standard error. If the configuration cannot be read, the format is
plain text.
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
    """A format for results and problems."""

    def start_failed(self, problem: object) -> None:
        """Print a problem that ends `serve` at once."""
        ...

    def reload_failed(self, problem: object) -> None:
        """Print a problem that made a reload fail."""
        ...

    def nothing_changed(self, generation: int) -> None:
        """Print, after the problems, the generation that still serves."""
        ...

    def reloaded(self, generation: int) -> None:
        """Print the generation that serves now."""
        ...


def notices_for(path: Path) -> Notices:
    """Return the format that the configuration at the path selects."""
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
    """Lines of the log. If the journal reads them, each begins with its priority."""

    def start_failed(self, problem: object) -> None:
        _log_to(STANDARD_ERROR)
        logger.error("start_failed", **_fields(problem))

    def reload_failed(self, problem: object) -> None:
        _log_to(STANDARD_ERROR)
        logger.error("reload_failed", **_fields(problem))

    def nothing_changed(self, generation: int) -> None:
        """Print nothing: the event `reload_failed` already means this."""

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
