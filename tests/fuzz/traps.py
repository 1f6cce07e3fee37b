"""Targets with a bug, to show that the search finds bugs. Only a test searches them."""

from collections.abc import Mapping

from tests.fuzz.targets import Target

__all__ = ["TRAPS"]

_HOARD: list[bytes] = []


def _escape(data: bytes) -> None:
    if data[:1] == b"a":
        raise ValueError("escaped")


def _hang(data: bytes) -> None:
    while data[:1] == b"a":
        pass


def _hoard(data: bytes) -> None:
    _HOARD.append(data[:1] + b"x" * 65536)


TRAPS: Mapping[str, Target] = {
    "escape": Target(run=_escape, seeds=(b"b",)),
    "hang": Target(run=_hang, seeds=(b"b",)),
    "hoard": Target(run=_hoard, seeds=(b"b",)),
}
