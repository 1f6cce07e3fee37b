"""Limits the load on KDCs: slots for requests in flight, and a budget for hedges. Plain code."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Generic, Protocol, TypeVar

__all__ = ["HedgeTokens", "InFlight", "Slots"]

FEW = 8
"""Passed-over requests yield to a network with fewer requests in flight than this, even to the largest.

An office behind one address has several requests in flight, beside many networks with one request each.
"""

MAX_TOKENS = 10.0
"""The hedges that quiet times can save up, for the moment in which a KDC fails under load."""


class InFlight(Protocol):
    """A request in flight."""

    @property
    def networks(self) -> Sequence[str]:
        """The client's networks, as `limited_networks` returns them."""

    @property
    def started_at(self) -> float:
        """When the attempt started."""


Item = TypeVar("Item", bound=InFlight)


class Slots(Generic[Item]):
    """The requests in flight at one endpoint, the oldest first.

    When all slots are taken, a request yields that the endpoint has passed over: the endpoint has answered a
    later request, or probes show it (`EndpointFacts.passed_over_before`). It yields to a network with few
    requests, of which fewer have been passed over. An endpoint that is only slow answers in turn.

    If there is no such request, the largest network yields its oldest request to a smaller network. Networks
    of all widths are compared, the widest first: many small networks of one site count as the site.

    Networks are counted only when all slots are taken.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: dict[Item, None] = {}
        self._newest_answered = -math.inf

    @property
    def taken(self) -> int:
        """The number of taken slots."""
        return len(self._items)

    @property
    def is_full(self) -> bool:
        """Whether no slot is free."""
        return len(self._items) >= self._limit

    def add(self, item: Item) -> None:
        """Take a slot."""
        self._items[item] = None

    def remove(self, item: Item) -> None:
        """Give the slot back."""
        del self._items[item]

    def remove_answered(self, item: Item) -> None:
        """Give the slot back after an answer, which shows that the endpoint skipped older requests."""
        del self._items[item]
        self._newest_answered = max(self._newest_answered, item.started_at)

    def yields_to(self, networks: Sequence[str], *, passed_over_before: float) -> Item | None:
        """Return the item that makes room for a request of these networks, if there is one.

        Probes show that the endpoint has passed over the items that started before `passed_over_before`.
        """
        passed_over_before = max(self._newest_answered, passed_over_before)
        return self._passed_over(_network(networks, 0), passed_over_before) or self._of_largest(
            networks, passed_over_before
        )

    def _passed_over(self, network: str, before: float) -> Item | None:
        """Return the oldest passed-over item, unless the network has many items, or as many passed over."""
        late = [item for item in self._items if item.started_at < before]
        counts = _count(late, 0)
        if counts[network] >= max(counts.values(), default=0) or _count(self._items, 0)[network] >= FEW:
            return None
        return _oldest_of_largest(late, 0)

    def _of_largest(self, networks: Sequence[str], passed_over_before: float) -> Item | None:
        """Return the oldest item of the largest network, if it is larger than the networks of the request."""
        items: Collection[Item] = self._items
        for width in range(len(networks)):
            counts = _count(items, width)
            own, most = counts[_network(networks, width)], max(counts.values())
            if own < most:
                oldest = _oldest_of_largest(items, width)
                return oldest if own + 1 < most or oldest.started_at < passed_over_before else None
            # The request belongs to a largest network itself. Narrower networks within this one decide.
            items = [item for item in items if _network(item.networks, width) == _network(networks, width)]
        return None


WIDTHS = 3
"""IPv6 networks have three widths (`limited_networks`); an IPv4 address counts as all three."""


def _network(networks: Sequence[str], width: int) -> str:
    """Return the network of one width; 0 is the widest."""
    return networks[max(len(networks) - 1 - width, 0)]


def _count(items: Collection[InFlight], width: int) -> Counter[str]:
    return Counter([_network(item.networks, width) for item in items])


def _oldest_of_largest(items: Collection[Item], width: int) -> Item:
    """Return the oldest item of the largest narrow network within the largest wide network."""
    for narrower in range(width, WIDTHS):
        counts = _count(items, narrower)
        most = max(counts.values())
        items = [item for item in items if counts[_network(item.networks, narrower)] == most]
    return next(iter(items))


class HedgeTokens:
    """A budget to which every request adds its share. A hedge takes one token, and `notify` is called."""

    def __init__(self, ratio: float, notify: Callable[[], None]) -> None:
        self._ratio = ratio
        self._notify = notify
        self._tokens = MAX_TOKENS if ratio else 0.0

    def request_begins(self) -> None:
        """Add a request's share."""
        self._tokens = min(self._tokens + self._ratio, MAX_TOKENS)

    def take(self) -> bool:
        """Take one token, if there is one."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        self._notify()
        return True
