"""Watches TLS files for changes, which start a new generation, and certificates for their dates.

The parent checks the files every second, because programs renew them in different ways: they overwrite a
file, rename another file to it, or change a symbolic link.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

from kkdcpd.config import AdditionalCertificate, DatedItem, TlsConfig
from kkdcpd.log.events import EventLogger

__all__ = ["DateWatch", "FileWatch", "log_changes", "tls_files"]

logger = EventLogger(__name__)

_Stamp = tuple[int, int, int] | None


class FileWatch:
    """Finds files that have changed and then stayed the same, so that no file is read half written."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(dict.fromkeys(paths))
        self._known = self._seen = self._stamps()

    def changed(self) -> tuple[Path, ...]:
        """Return each changed file once, as soon as two checks in a row find all files the same."""
        before, self._seen = self._seen, self._stamps()
        if self._seen != before:
            return ()
        changed = tuple(path for path in self._paths if self._seen[path] != self._known[path])
        self._known = self._seen
        return changed

    def _stamps(self) -> dict[Path, _Stamp]:
        return {path: _stamp(path) for path in self._paths}


class DateWatch:
    """Logs once when an item in use is outside its dates, and once when it is within its dates again."""

    def __init__(self) -> None:
        self._outside: frozenset[DatedItem] = frozenset()

    def check(self, items: Sequence[DatedItem], now: datetime) -> None:
        """Compare the items with the last check. Items that are no longer in use are forgotten."""
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


def log_changes(changed: Iterable[Path], items: Sequence[DatedItem]) -> None:
    """Log each changed file with the certificates or revocation lists that it now contains."""
    for path in changed:
        found = [item for item in items if item.path == path]
        for item in found:
            logger.info(
                "certificate_changed",
                file=str(path),
                subject=item.subject,
                names=",".join(item.names),
                expires=f"{item.end:%Y-%m-%dT%H:%M:%SZ}" if item.end else "unknown",
            )
        if not found:
            logger.info("certificate_changed", file=str(path))


def tls_files(tls: TlsConfig | None) -> list[Path]:
    """Return the certificates, keys and lists that TLS uses."""
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
    # The ctime also changes with the owner and the mode: a file may have become readable.
    return status.st_ino, status.st_size, status.st_ctime_ns
