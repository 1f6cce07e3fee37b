"""Orders the candidates of a route. Plain code.

Healthy endpoints come first. Then the order is by priority (RFC 2782), then by weight. The weights decide by
rendezvous hashing, not by chance for each request: requests of one user, or with one ticket, reach the same
KDC as long as it is healthy. Several rounds of preauthentication may depend on this, and so does a replay
cache.

A fallback is the UDP of a host that was named without a transport. It comes last, because a datagram that
proves a password is lost for good where a firewall drops it. A fallback that has answered precedes endpoints
that are known to be down.

A request may prefer one host. Its endpoints then precede others of the same health, at any priority.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import groupby
from zlib import crc32

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.upstream.health import HealthTable
from kkdcpd.values import Candidate, KdcState, Route

__all__ = ["Choice", "host_mark"]

BUCKETS = 256
"""The number of parts into which affinities are divided. Each part has one order, which is computed once."""

MAX_ROUTES = 1024
"""The most routes whose orders are kept. Beyond that all orders are forgotten. Each realm in use has two."""

_LOW_BITS = (1 << 32) - 1

LEAST_WEIGHT = 0.01
"""The weight that stands for zero: "a very small chance" (RFC 2782)."""


class Choice:
    """Orders a route's candidates. An order is kept until the route or an endpoint's health changes."""

    def __init__(self, health: HealthTable) -> None:
        self._health = health
        self._version = health.version
        # The route is kept beside its orders: its id is unique only as long as the route exists.
        self._orders: dict[int, tuple[Route, dict[int, tuple[Candidate, ...]]]] = {}

    def order(self, route: Route, affinity: int, host: int | None = None) -> Sequence[Candidate]:
        """Return the route's candidates, best first; the same for the same affinity.

        `host` is the mark of the host to prefer.
        """
        candidates = self._kept_order(route, affinity)
        return candidates if host is None else self._with_host_first(candidates, host)

    def _kept_order(self, route: Route, affinity: int) -> Sequence[Candidate]:
        if self._version != self._health.version:
            self._version = self._health.version
            self._orders.clear()
        bucket = affinity % BUCKETS
        try:
            return self._orders[id(route)][1][bucket]
        except KeyError:
            return self._compute_order(route, bucket)

    def _with_host_first(self, candidates: Sequence[Candidate], host: int) -> Sequence[Candidate]:
        return sorted(
            candidates,
            key=lambda candidate: (self._health_rank(candidate), _host_rank(candidate.endpoint, host)),
        )

    def _compute_order(self, route: Route, bucket: int) -> Sequence[Candidate]:
        if len(self._orders) >= MAX_ROUTES:
            self._orders.clear()
        _, orders = self._orders.setdefault(id(route), (route, {}))
        orders[bucket] = tuple(self._ordered(route.candidates, bucket))
        return orders[bucket]

    def _ordered(self, candidates: Sequence[Candidate], bucket: int) -> list[Candidate]:
        ranked = sorted(candidates, key=self._rank)
        return [
            candidate
            for _, group in groupby(ranked, key=self._rank)
            for candidate in sorted(group, key=lambda candidate: _distance(candidate, bucket))
        ]

    def _rank(self, candidate: Candidate) -> tuple[bool, bool, bool, int]:
        return *self._health_rank(candidate), candidate.priority

    def _health_rank(self, candidate: Candidate) -> tuple[bool, bool, bool]:
        state = self._health.state(candidate.endpoint)
        is_down = state is KdcState.DOWN
        if candidate.is_fallback and not self._health.facts.is_reachable(candidate.endpoint):
            is_down = True
        return is_down, candidate.is_fallback, state is not KdcState.HEALTHY


def host_mark(endpoint: KdcEndpoint) -> int:
    """Return 64 bits of the endpoint's address and name, which mark its host at any port and transport."""
    name = endpoint.name.lower().rstrip(".")
    return crc32(endpoint.address.encode()) << 32 | crc32(name.encode())


def _host_rank(endpoint: KdcEndpoint, host: int) -> int:
    """Return 0 for an endpoint at the host's address, 1 for one of its name, 2 for any other."""
    differing = host_mark(endpoint) ^ host
    if not differing >> 32:
        return 0
    return 1 if not differing & _LOW_BITS else 2


def _distance(candidate: Candidate, bucket: int) -> float:
    """Weighted rendezvous hashing: each candidate is nearest for its share of the weights."""
    return -math.log(_pseudo_random(candidate.endpoint, bucket)) / max(candidate.weight, LEAST_WEIGHT)


def _pseudo_random(endpoint: KdcEndpoint, bucket: int) -> float:
    """Return a number in (0, 1) that is the same in every process and on every host."""
    text = f"{bucket} {endpoint.address} {endpoint.port}"
    digest = hashlib.blake2b(text.encode(), digest_size=7).digest()
    return (int.from_bytes(digest, "big") + 1) / (2**56 + 1)
