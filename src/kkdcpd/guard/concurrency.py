"""How many requests are served at a time: for each client, and in all. Plain code."""

from kkdcpd.config import RatesConfig
from kkdcpd.guard.occupancy import Occupancy
from kkdcpd.values import Outcome, Refusal, Rule

__all__ = ["Slots"]

RETRY_AFTER = 1.0
"""Seconds. KDCs answer in milliseconds, so that slots are free again soon unless the KDCs are in trouble."""


class Slots:
    """The rules CLIENT_CONCURRENCY and TOTAL_CONCURRENCY.

    Every request enters, over the limit or not, and leaves when it ends: so it is the same whether a refusal
    is carried out.
    """

    def __init__(self, config: RatesConfig, requests: Occupancy) -> None:
        self._client_limit = config.client_concurrency
        self._total_limit = config.total_concurrency
        self._requests = requests
        self.leave = requests.leave
        """End a request that entered."""

    def enter(self, client: str) -> Refusal | None:
        """Count a request of a client's network. `leave` has to be called for it in any case."""
        of_client, of_all = self._requests.enter(client)
        if of_client > self._client_limit:
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
