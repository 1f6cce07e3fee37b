"""The system's own files that say where hosts are: read before there is an event loop, as that blocks."""

from pathlib import Path
from typing import Self

from kkdcpd.frozen import frozen

__all__ = ["SystemFiles"]


@frozen
class SystemFiles:
    """The texts of hosts(5) and resolv.conf(5). A file that isn't there says nothing."""

    hosts: str = ""
    resolv_conf: str = ""

    @classmethod
    def read(cls, directory: Path = Path("/etc")) -> Self:
        """Read both, as they are now."""
        return cls(hosts=_text(directory / "hosts"), resolv_conf=_text(directory / "resolv.conf"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
