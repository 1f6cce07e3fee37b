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

# What their buckets are called in the store.
_CLIENT, _REALM, _TOTAL = Rule.CLIENT_RATE.value, Rule.REALM_RATE.value, Rule.TOTAL_RATE.value


class Rates:
    """The rules CLIENT_RATE, REALM_RATE and TOTAL_RATE, in one step."""

    def __init__(self, config: RatesConfig, store: Store) -> None:
        self._store = store
        self._client = Limit(rate=config.client_rate, burst=config.client_burst)
        self._realm = Limit(rate=config.realm_rate, burst=config.realm_burst)
        self._total = ((_TOTAL,), Limit(rate=config.total_rate, burst=config.total_burst))

    def check_client(self, client: str, *, now: float) -> Refusal | None:
        """Count a request of a client's network, whatever it asks for."""
        shortage = self._store.take((((_CLIENT, client), self._client), self._total), now)
        return _refusal(shortage, (Rule.CLIENT_RATE, Rule.TOTAL_RATE)) if shortage else None

    def check_realm(self, realm: str, *, now: float) -> Refusal | None:
        """Count a request for a realm as it is configured, once it is known to be one."""
        shortage = self._store.take((((_REALM, realm), self._realm),), now)
        return _refusal(shortage, (Rule.REALM_RATE,)) if shortage else None


def _refusal(shortage: Shortage, rules: Sequence[Rule]) -> Refusal:
    rule = rules[shortage.index]
    return Refusal(
        rule=rule,
        outcome=_OUTCOMES[rule],
        text=f"{_TEXTS[rule]}; try again in {math.ceil(shortage.wait)} s",
        retry_after=shortage.wait,
    )
