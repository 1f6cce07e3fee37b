"""Limits how often a client may begin a TLS handshake. Plain code.

A handshake costs an operation of the private key, and so some hundred times what its refusal costs. It takes
a token of the client, and one of the widest network that the client is in, which has several clients' tokens.
"""

from collections.abc import Callable

from kkdcpd.config import ConnectionsConfig
from kkdcpd.guard.store import Limit, Store

__all__ = ["HandshakeRate"]

_CLIENT, _NETWORK = "handshakes", "network_handshakes"

NETWORK_FACTOR = 4
"""How many clients' tokens an IPv4 /24 or IPv6 /48 has."""


class HandshakeRate:
    """The buckets of every client, in all processes."""

    def __init__(self, config: ConnectionsConfig, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        rate, burst = config.handshake_rate, config.handshake_burst
        self._client = Limit(rate=rate, burst=burst)
        self._network = Limit(rate=NETWORK_FACTOR * rate, burst=NETWORK_FACTOR * burst)

    def admits(self, networks: tuple[str, ...]) -> bool:
        """Count a handshake that a client of these networks, the narrowest first, wants to begin."""
        buckets = ((_CLIENT, networks[0]), self._client), ((_NETWORK, networks[-1]), self._network)
        return self._store.take(buckets, self._clock()) is None
