"""How often clients may ask: a bucket of tokens for each client, for each realm and for all. Plain code.

A client's request takes a token of its own and of all, or none if one is empty: who is refused costs others
nothing. That of its realm is taken when it is known to be for one. Whether a refusal is carried out is for
the guard to say, by the mode of these settings.
"""

import math
from collections.abc import Sequence

from kkdcpd.config import RatesConfig
from kkdcpd.guard.store import Limit, Shortage, Store
from kkdcpd.values import Outcome, Refusal, Rule

__all__ = ["Rates"]

_OUTCOMES = {
    Rule.CLIENT_RATE: Outcome.RATE_LIMITED,
    Rule.TOTAL_RATE: Outcome.OVERLOADED,
    Rule.REALM_RATE: Outcome.OVERLOADED,
}
_TEXTS = {
    Rule.CLIENT_RATE: "too many requests came from your network",
    Rule.TOTAL_RATE: "too many requests come at present",
    Rule.REALM_RATE: "too many requests for this realm come at present",
}


class Rates:
    """The rules CLIENT_RATE, REALM_RATE and TOTAL_RATE, in one step."""

    def __init__(self, config: RatesConfig, store: Store) -> None:
        self._store = store
        self._client = Limit(rate=config.client_rate, burst=config.client_burst)
        self._realm = Limit(rate=config.realm_rate, burst=config.realm_burst)
        self._total = ((Rule.TOTAL_RATE.value,), Limit(rate=config.total_rate, burst=config.total_burst))

    def check_client(self, client: str, *, now: float) -> Refusal | None:
        """Count a request of a client's network, whatever it asks for."""
        buckets = (((Rule.CLIENT_RATE.value, client), self._client), self._total)
        return _refusal(self._store.take(buckets, now), (Rule.CLIENT_RATE, Rule.TOTAL_RATE))

    def check_realm(self, realm: str, *, now: float) -> Refusal | None:
        """Count a request for a realm as it is configured, once it is known to be one."""
        buckets = (((Rule.REALM_RATE.value, realm), self._realm),)
        return _refusal(self._store.take(buckets, now), (Rule.REALM_RATE,))


def _refusal(shortage: Shortage | None, rules: Sequence[Rule]) -> Refusal | None:
    if shortage is None:
        return None
    rule = rules[shortage.index]
    return Refusal(
        rule=rule,
        outcome=_OUTCOMES[rule],
        text=f"{_TEXTS[rule]}; try again in {math.ceil(shortage.wait)} s",
        retry_after=shortage.wait,
    )
