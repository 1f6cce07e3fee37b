"""Reads the captured requests in vectors/, which the README there describes."""

from pathlib import Path

__all__ = ["CAPTURED", "captured"]

CAPTURED = ("asreq1", "asreq2", "tgsreq", "kpasswdreq")

_FOLDER = Path(__file__).parent / "vectors"


def captured(name: str) -> bytes:
    """Return the KDC-PROXY-MESSAGE of this name."""
    return (_FOLDER / f"{name}.der").read_bytes()
