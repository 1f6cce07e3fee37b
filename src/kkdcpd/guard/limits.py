"""Limits the rates of requests and of TLS handshakes, and the requests in flight.

The limits hold for a client's network, and at a multiple for the wider networks that it is in: a client with
many networks cannot use up the limit of all clients. By the mode of these settings, the guard decides whether
a request is refused.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

from kkdcpd.config import ConnectionsConfig, RatesConfig
from kkdcpd.guard.store import Key, Limit, Shortage, Store
from kkdcpd.protocol.ip_addresses import limited_networks
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.values import Outcome, Refusal, Rule

__all__ = ["ConcurrencyLimit", "HandshakeRate", "RequestRates"]

_OUTCOMES = {
    Rule.CLIENT_RATE: Outcome.RATE_LIMITED,
    Rule.TOTAL_RATE: Outcome.OVERLOADED,
    Rule.REALM_RATE: Outcome.OVERLOADED,
}
_TEXTS = {
    Rule.CLIENT_RATE: "your network sends too many requests",
    Rule.TOTAL_RATE: "the proxy is overloaded",
    Rule.REALM_RATE: "the proxy receives too many requests for this realm",
}

# The first parts of keys in the store.
_CLIENT, _REALM, _TOTAL = Rule.CLIENT_RATE.value, Rule.REALM_RATE.value, Rule.TOTAL_RATE.value

# The buckets of a client's key, beside the bucket of requests.
_HANDSHAKES, _WIDER_HANDSHAKES = 1, 2

WIDER_RATES = (4, 8)
"""The rates of a /56 and of a /48, as multiples of one client's. A mobile carrier's /48 has thousands of
clients, so the multiples are high. By default they leave more than half of `total_rate` to other networks."""

WIDER_CONCURRENCY = (2, 4)
"""The limits of requests in flight of a /56 and of a /48, as multiples of one client's. By default a /48
leaves half of `total_concurrency` to other networks."""

WIDER_HANDSHAKES = 4
"""The handshakes of an IPv4 /24 or IPv6 /48, as a multiple of one client's."""

RETRY_AFTER = 1.0
"""Seconds. KDCs answer in milliseconds, so that slots are free again soon unless the KDCs fail."""

MOST_KNOWN = 1024
"""Clients with cached buckets."""


class RequestRates:
    """The rules CLIENT_RATE, REALM_RATE and TOTAL_RATE.

    A request takes a token from the buckets of its networks and of all clients, or no token if one bucket is
    empty: a refused request takes nothing from other clients. When the realm is known, the request takes a
    token of the realm.
    """

    def __init__(self, config: RatesConfig, store: Store) -> None:
        self._store = store
        self._client = Limit(rate=config.client_rate, burst=config.client_burst)
        self._wider = tuple(
            Limit(rate=config.client_rate * multiple, burst=config.client_burst * multiple)
            for multiple in WIDER_RATES
        )
        self._realm = Limit(rate=config.realm_rate, burst=config.realm_burst)
        self._total = ((_TOTAL,), Limit(rate=config.total_rate, burst=config.total_burst))
        self._buckets = lru_cache(MOST_KNOWN)(self._make_buckets)

    def check_client(self, client: str, *, now: float) -> Refusal | None:
        """Count a request of a client's network."""
        buckets = self._buckets(client)
        shortage = self._store.take(buckets, now)
        if shortage is None:
            return None
        is_total = shortage.index == len(buckets) - 1
        return _refusal(shortage, Rule.TOTAL_RATE if is_total else Rule.CLIENT_RATE)

    def _make_buckets(self, client: str) -> Sequence[tuple[Key, Limit]]:
        limits = zip(limited_networks(client), (self._client, *self._wider), strict=False)
        return *(((_CLIENT, network), limit) for network, limit in limits), self._total

    def check_realm(self, realm: str, *, now: float) -> Refusal | None:
        """Count a request for a configured realm. All realms below a wildcard count as the wildcard."""
        shortage = self._store.take((((_REALM, realm), self._realm),), now)
        return _refusal(shortage, Rule.REALM_RATE) if shortage else None


def _refusal(shortage: Shortage, rule: Rule) -> Refusal:
    return Refusal(
        rule=rule,
        outcome=_OUTCOMES[rule],
        text=f"{_TEXTS[rule]}; try again in {math.ceil(shortage.wait)} s",
        retry_after=shortage.wait,
    )


class ConcurrencyLimit:
    """The rules CLIENT_CONCURRENCY and TOTAL_CONCURRENCY.

    A request over the limit counts too, so that the counts do not depend on the rules' mode.
    """

    def __init__(self, config: RatesConfig, requests: NetworkCounts) -> None:
        self._client_limit = config.client_concurrency
        self._wider_limits = tuple(multiple * config.client_concurrency for multiple in WIDER_CONCURRENCY)
        self._total_limit = config.total_concurrency
        self._requests = requests

    def enter(self, networks: Sequence[str]) -> Refusal | None:
        """Count a request of these networks, the narrowest first. Each call needs a later call of `leave`."""
        of_client, of_all = self._requests.add(*networks)
        if of_client > self._client_limit or (len(networks) > 1 and self._is_wider_full(networks)):
            return Refusal(
                rule=Rule.CLIENT_CONCURRENCY,
                outcome=Outcome.RATE_LIMITED,
                text="your network has too many requests in flight",
                retry_after=RETRY_AFTER,
            )
        if of_all > self._total_limit:
            return Refusal(
                rule=Rule.TOTAL_CONCURRENCY,
                outcome=Outcome.OVERLOADED,
                text="the proxy has too many requests in flight",
                retry_after=RETRY_AFTER,
            )
        return None

    def leave(self, networks: Sequence[str]) -> None:
        """End the count of a request that entered."""
        self._requests.remove(*networks)

    def _is_wider_full(self, networks: Sequence[str]) -> bool:
        wider = zip(networks[1:], self._wider_limits, strict=False)
        return any(self._requests.count(network) > limit for network, limit in wider)


class HandshakeRate:
    """The rate of TLS handshakes.

    A handshake costs an operation of the private key, and so about a hundred times what its refusal costs. It
    takes a token of the client's network, and one of the widest network that the client is in.
    """

    def __init__(self, config: ConnectionsConfig, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        rate, burst = config.handshake_rate, config.handshake_burst
        self._client = Limit(rate=rate, burst=burst, column=_HANDSHAKES)
        self._network = Limit(
            rate=WIDER_HANDSHAKES * rate, burst=WIDER_HANDSHAKES * burst, column=_WIDER_HANDSHAKES
        )

    def admits(self, networks: tuple[str, ...]) -> bool:
        """Count a handshake of these networks, the narrowest first, and return whether it may begin."""
        buckets = (
            ((_CLIENT, networks[0]), self._client),
            ((_CLIENT, networks[-1]), self._network),
        )
        return self._store.take(buckets, self._clock()) is None
