"""The captured requests in vectors/: see the README there."""

from pathlib import Path

__all__ = ["CAPTURED", "captured"]

CAPTURED = ("asreq1", "asreq2", "tgsreq", "kpasswdreq")

_FOLDER = Path(__file__).parent / "vectors"


def captured(name: str) -> bytes:
    """The KDC-PROXY-MESSAGE of this name."""
    return (_FOLDER / f"{name}.der").read_bytes()
