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

FRESH_SECONDS = 2.0
"""How long an answered probe shows that the endpoint is fast: the time of two probes while requests wait."""

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

    def passed_over_before(self, endpoint: KdcEndpoint, now: float, usual_seconds: float) -> float:
        """Return the time before which a request must have started to be passed over.

        An endpoint has passed over the requests that are older than a probe that it has answered. An endpoint
        that has just answered a probe within the usual time has passed over all requests that wait longer. A
        flood can fill all slots between two probes.
        """
        sent_at, answered_at = self._probes.get(endpoint, NEVER)
        is_fast = answered_at < sent_at + usual_seconds and now < answered_at + FRESH_SECONDS
        return max(sent_at, now - usual_seconds) if is_fast else sent_at

    def probe_answered_at(self, endpoint: KdcEndpoint) -> float:
        """Return when the endpoint last answered a probe; minus infinity if it has not."""
        return self._probes.get(endpoint, NEVER)[1]
