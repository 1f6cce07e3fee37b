"""How many messages may be hedged: so few that a slow day doesn't double the KDCs' load. Plain code."""

from collections.abc import Callable

__all__ = ["HedgeTokens"]

MOST_TOKENS = 10.0
"""What quiet times can save up, for the moment in which a KDC dies under load."""


class HedgeTokens:
    """A budget to which every request adds its share and every hedge takes one; `tell` hears of it."""

    def __init__(self, ratio: float, tell: Callable[[], None]) -> None:
        self._ratio = ratio
        self._tell = tell
        self._tokens = MOST_TOKENS if ratio else 0.0

    def request_begins(self) -> None:
        """Add a request's share."""
        self._tokens = min(self._tokens + self._ratio, MOST_TOKENS)

    def take(self) -> bool:
        """Take one hedge, if there is one."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self._tell()
        return True
