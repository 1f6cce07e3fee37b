"""Watches the files whose change starts a new generation by itself: certificates and what belongs to them.

The parent looks at them every second, as a program that renews them may do it in any way: write over them,
rename others to them, or turn a symbolic link. It also looks whether what is in use is within its dates.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from kkdcpd.config import AdditionalCertificate, DatedItem, TlsConfig
from kkdcpd.log.events import EventLogger

__all__ = ["DateWatch", "FileWatch", "tell_changes", "tls_files"]

logger = EventLogger(__name__)

_Stamp = tuple[int, int, int] | None


class FileWatch:
    """Tells which files have changed and then stayed as they are, so that none is half written."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._known = self._seen = self._stamps()

    def changed(self) -> tuple[Path, ...]:
        """Look; return each change once, as soon as all files are as they were at the last look."""
        before, self._seen = self._seen, self._stamps()
        if self._seen != before:
            return ()
        changed = tuple(path for path in self._paths if self._seen[path] != self._known[path])
        self._known = self._seen
        return changed

    def _stamps(self) -> dict[Path, _Stamp]:
        return {path: _stamp(path) for path in self._paths}


class DateWatch:
    """Logs once when an item in use is outside its dates, and once when it is within them again."""

    def __init__(self) -> None:
        self._outside: frozenset[DatedItem] = frozenset()

    def look(self, items: Sequence[DatedItem], now: datetime) -> None:
        """Compare the items with the last look; those that are not in use any more are forgotten."""
        problems = {item: problem for item in items if (problem := item.problem(now))}
        for item, problem in problems.items():
            if item not in self._outside:
                logger.error(
                    "certificate_outside_dates",
                    key=problem.key,
                    problem=problem.problem,
                    remedy=problem.remedy,
                )
        for item in items:
            if item in self._outside and item not in problems:
                logger.info(
                    "certificate_within_dates", key=item.key, file=str(item.path), subject=item.subject
                )
        self._outside = frozenset(problems)


def tell_changes(changed: Iterable[Path], items: Sequence[DatedItem]) -> None:
    """Log each file that has changed, with the certificates or lists that it holds now."""
    for path in changed:
        held = [item for item in items if item.path == path]
        for item in held:
            logger.info(
                "certificate_changed",
                file=str(path),
                subject=item.subject,
                names=",".join(item.names),
                expires=f"{item.end:%Y-%m-%dT%H:%M:%SZ}" if item.end else "unknown",
            )
        if not held:
            logger.info("certificate_changed", file=str(path))


def tls_files(tls: TlsConfig | None) -> list[Path]:
    """Name the files that TLS is made of."""
    if tls is None:
        return []
    pairs: list[TlsConfig | AdditionalCertificate] = [tls, *tls.additional]
    files = [file for pair in pairs for file in (pair.certificate, pair.key)]
    return files + [file for file in (tls.client_ca, tls.client_crl) if file]


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    # Its last number changes with the owner and the mode too: a file may have become readable.
    return status.st_ino, status.st_size, status.st_ctime_ns
