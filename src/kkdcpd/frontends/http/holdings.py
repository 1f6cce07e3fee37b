"""Limits the bytes that all connections of a process hold together."""

from typing import Protocol

__all__ = ["FREE_BYTES", "Holder", "Holdings"]

FREE_BYTES = 16384
"""The bytes of a connection that do not count. Most requests and responses are smaller."""

MAX_HELD_BYTES = 134217728
"""The limit for the bytes of all connections together: some 500 of the largest bodies by default."""


class Holder(Protocol):
    """A connection."""

    def cut_off(self, reason: str) -> None:
        """Abort the connection, and drop its bytes."""


class Holdings:
    """Limits the bytes of unfinished bodies and unread responses of all connections together.

    At the limit, the connection that has held bytes for the longest time is aborted. An honest client makes a
    connection hold bytes only while they travel.
    """

    def __init__(self, maximum: int = MAX_HELD_BYTES) -> None:
        self._maximum = maximum
        self._total = 0
        self._held: dict[Holder, int] = {}  # in the order in which they began

    def hold(self, connection: Holder, count: int) -> None:
        """Note the number of bytes that a connection holds now."""
        if count <= FREE_BYTES:
            self.release(connection)
            return
        self._total += count - self._held.get(connection, 0)
        self._held[connection] = count
        while self._total > self._maximum:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.cut_off("too much is held")

    def release(self, connection: Holder) -> None:
        """Forget a connection."""
        self._total -= self._held.pop(connection, 0)
