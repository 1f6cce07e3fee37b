"""The files whose change starts a new generation by itself: certificates and what belongs to them.

They are looked at now and then, as what renews them may do it in any way: write over them, rename others to
them, or turn a symbolic link.
"""

from collections.abc import Iterable
from pathlib import Path

from kkdcpd.config import AdditionalCertificate, TlsConfig

__all__ = ["FileWatch", "tls_files"]

_Stamp = tuple[int, int, int] | None


class FileWatch:
    """Tells when files have changed and then stayed as they are, so that none is half written."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._known = self._seen = self._stamps()

    def has_changed(self) -> bool:
        """Look; say whether there is a change that was there at the last look already. Each is told once."""
        before, self._seen = self._seen, self._stamps()
        if self._seen == self._known or self._seen != before:
            return False
        self._known = self._seen
        return True

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(map(_stamp, self._paths))


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
