"""Targets with a bug each, to show that the search finds it. They are never searched but by a test."""

from collections.abc import Mapping

from tests.fuzz.targets import Target

__all__ = ["TRAPS"]

_HOARD: list[bytes] = []


def _escape(octets: bytes) -> None:
    if octets[:1] == b"a":
        raise ValueError("escaped")


def _hang(octets: bytes) -> None:
    while octets[:1] == b"a":
        pass


def _hoard(octets: bytes) -> None:
    _HOARD.append(octets[:1] + b"x" * 65536)


TRAPS: Mapping[str, Target] = {
    "escape": Target(run=_escape, seeds=(b"b",)),
    "hang": Target(run=_hang, seeds=(b"b",)),
    "hoard": Target(run=_hoard, seeds=(b"b",)),
}
