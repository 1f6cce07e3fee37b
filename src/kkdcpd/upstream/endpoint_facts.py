"""Remembers facts about endpoints that do not depend on their health. Plain code with a clock."""

import math

from kkdcpd.endpoints import KdcEndpoint

__all__ = ["EndpointFacts"]

MAX_ENDPOINTS = 1024
"""The most endpoints for which one fact is remembered. Facts are kept until the process ends."""

MAX_PROBED = 1024
"""The most endpoints whose last answered probe is remembered. Beyond that, answers older than
`PROBE_SECONDS` are forgotten."""

PROBE_SECONDS = 1.0

NEVER = (-math.inf, -math.inf)


class EndpointFacts:
    """Facts that requests and probes show."""

    def __init__(self) -> None:
        self._overflowed: set[KdcEndpoint] = set()
        self._reachable: set[KdcEndpoint] = set()
        # When the last answered probe was sent, and when its answer came.
        self._probes: dict[KdcEndpoint, tuple[float, float]] = {}

    def note_overflow(self, endpoint: KdcEndpoint) -> None:
        """Remember that the endpoint had a reply that was too big for a datagram."""
        if len(self._overflowed) < MAX_ENDPOINTS:
            self._overflowed.add(endpoint)

    def has_overflowed(self, endpoint: KdcEndpoint) -> bool:
        """Whether the endpoint had a reply that was too big for a datagram."""
        return endpoint in self._overflowed

    def note_reachable(self, endpoint: KdcEndpoint) -> bool:
        """Remember that UDP reaches the endpoint; return whether that is new."""
        if endpoint in self._reachable or len(self._reachable) >= MAX_ENDPOINTS:
            return False
        self._reachable.add(endpoint)
        return True

    def is_reachable(self, endpoint: KdcEndpoint) -> bool:
        """Whether UDP is known to reach the endpoint."""
        return endpoint in self._reachable

    def note_answered_probe(self, endpoint: KdcEndpoint, now: float, *, sent_at: float = -math.inf) -> None:
        """Remember an answered probe. A probe of another process has no `sent_at`."""
        if len(self._probes) >= MAX_PROBED:
            self._probes = {
                other: times for other, times in self._probes.items() if now < times[1] + PROBE_SECONDS
            }
        self._probes[endpoint] = max(sent_at, self.answered_probe_sent_at(endpoint)), now

    def answered_probe_sent_at(self, endpoint: KdcEndpoint) -> float:
        """Return when the newest answered probe of the endpoint was sent; minus infinity if there is none."""
        return self._probes.get(endpoint, NEVER)[0]

    def probe_answered_at(self, endpoint: KdcEndpoint) -> float:
        """Return when the endpoint last answered a probe; minus infinity if it has not."""
        return self._probes.get(endpoint, NEVER)[1]
