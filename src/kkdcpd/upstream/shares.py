"""Fair shares of what is scarce, by client network. Plain code.

Both kinds let one network use what no other wants, and keep it from taking what others need.
"""

from typing import Generic, TypeVar

__all__ = ["Places", "Slots"]

Item = TypeVar("Item")


class Slots(Generic[Item]):
    """Requests in flight at one endpoint. When all slots are taken, the network with most of them yields.

    Where the networks are many and have equally few, a request yields that the endpoint has passed over: it
    has answered a later one. An endpoint that is only slow answers in turn, and then none yields.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._networks: dict[Item, str] = {}  # by item, the oldest first
        self._counts: dict[str, int] = {}
        self._numbers: dict[Item, int] = {}
        self._last_number = 0
        self._last_answered = 0

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return len(self._networks)

    @property
    def is_full(self) -> bool:
        """Whether there is no free slot."""
        return len(self._networks) >= self._limit

    def add(self, network: str, item: Item) -> None:
        """Take a slot."""
        self._networks[item] = network
        self._counts[network] = self._counts.get(network, 0) + 1
        self._last_number += 1
        self._numbers[item] = self._last_number

    def note_answer(self, item: Item) -> None:
        """Note that the endpoint has answered an item that has its slot still."""
        self._last_answered = max(self._last_answered, self._numbers[item])

    def remove(self, item: Item) -> None:
        """Give the slot back."""
        network = self._networks.pop(item)
        del self._numbers[item]
        left = self._counts.pop(network) - 1
        if left:
            self._counts[network] = left

    def yields_to(self, network: str) -> Item | None:
        """Return the item that makes room for one of this network: the oldest of the largest networks.

        None does if these would not be larger even then, unless the item has been passed over.
        """
        most, own = max(self._counts.values()), self._counts.get(network, 0)
        oldest = next(item for item, owner in self._networks.items() if self._counts[owner] == most)
        is_passed_over = self._numbers[oldest] < self._last_answered
        return oldest if most > own + 1 or (most > own and is_passed_over) else None


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
        left = self._taken.pop(network) - 1
        if left:
            self._taken[network] = left
        self._free += 1
