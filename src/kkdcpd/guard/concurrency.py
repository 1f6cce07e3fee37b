"""Limits the requests in flight of each client, of its wider IPv6 networks, and in all. Plain code."""

from kkdcpd.config import RatesConfig
from kkdcpd.protocol.ip_addresses import limited_networks
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.values import Outcome, Refusal, Rule

__all__ = ["Slots"]

RETRY_AFTER = 1.0
"""Seconds. KDCs answer in milliseconds, so that slots are free again soon unless the KDCs are in trouble."""

WIDER_MULTIPLES = (2, 4)
"""The limits of a /56 and of a /48, as multiples of one client's. By default a /48 leaves half of
`total_concurrency` to others."""


class Slots:
    """The rules CLIENT_CONCURRENCY and TOTAL_CONCURRENCY.

    Every request enters, over the limit or not, and leaves when it ends: so it is the same whether a refusal
    is carried out.
    """

    def __init__(self, config: RatesConfig, requests: NetworkCounts) -> None:
        self._client_limit = config.client_concurrency
        self._wider_limits = tuple(multiple * config.client_concurrency for multiple in WIDER_MULTIPLES)
        self._total_limit = config.total_concurrency
        self._requests = requests

    def enter(self, client: str) -> Refusal | None:
        """Count a request of a client's network. `leave` has to be called for it in any case."""
        networks = limited_networks(client)
        of_client, of_all = self._requests.add(*networks)
        if of_client > self._client_limit or self._is_wider_full(networks):
            return Refusal(
                rule=Rule.CLIENT_CONCURRENCY,
                outcome=Outcome.RATE_LIMITED,
                text="too many requests from your network are being served at this moment",
                retry_after=RETRY_AFTER,
            )
        if of_all > self._total_limit:
            return Refusal(
                rule=Rule.TOTAL_CONCURRENCY,
                outcome=Outcome.OVERLOADED,
                text="too many requests are being served at this moment",
                retry_after=RETRY_AFTER,
            )
        return None

    def leave(self, client: str) -> None:
        """End a request that entered."""
        self._requests.remove(*limited_networks(client))

    def _is_wider_full(self, networks: tuple[str, ...]) -> bool:
        wider = zip(networks[1:], self._wider_limits, strict=False)
        return any(self._requests.count(network) > limit for network, limit in wider)
