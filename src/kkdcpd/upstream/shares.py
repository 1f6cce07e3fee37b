"""Fair shares of what is scarce, by client network. Plain code.

Both kinds let one network use what no other wants, and keep it from taking what others need.
"""

from typing import Generic, TypeVar

__all__ = ["Places", "Slots"]

Item = TypeVar("Item")


class Slots(Generic[Item]):
    """Requests in flight at one endpoint. When all slots are taken, the network with most of them yields."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: dict[str, dict[Item, None]] = {}
        self.taken = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no free slot."""
        return self.taken >= self._limit

    def add(self, network: str, item: Item) -> None:
        """Take a slot."""
        self._items.setdefault(network, {})[item] = None
        self.taken += 1

    def remove(self, network: str, item: Item) -> None:
        """Give the slot back."""
        items = self._items[network]
        del items[item]
        if not items:
            del self._items[network]
        self.taken -= 1

    def yields_to(self, network: str) -> Item | None:
        """Return the item that makes room for one of this network: the oldest of the largest network.

        None does if the largest would not be larger even then.
        """
        largest = max(self._items.values(), key=len)
        own = self._items.get(network, ())
        return next(iter(largest)) if len(largest) > len(own) + 1 else None


class Places:
    """Places that can't be taken back. A network may have as many as it leaves free for all others together.

    So it gets half of them if no other network wants any, and a newcomer always finds a place.
    """

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._taken: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no place is taken."""
        return not self._taken

    def take(self, network: str) -> bool:
        """Take a place, unless the network has its share; say whether it did."""
        taken = self._taken.get(network, 0)
        if taken >= self._free:
            return False
        self._taken[network] = taken + 1
        self._free -= 1
        return True

    def give_back(self, network: str) -> None:
        """Give a place back."""
        taken = self._taken.pop(network) - 1
        if taken:
            self._taken[network] = taken
        self._free += 1
