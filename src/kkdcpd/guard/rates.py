"""Limits how often clients may ask, by a bucket of tokens for each client, each realm and all together.

A client is counted with its wider IPv6 networks too, at a multiple of its limit, so that a client with many
networks can't use up the limit of all. A request takes a token of its networks and of all, or none if one is
empty: a refused request costs others nothing. A token of its realm is taken when the realm is known. By the
mode of these settings the guard decides whether a refusal is carried out.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

from kkdcpd.config import RatesConfig
from kkdcpd.guard.store import Key, Limit, Shortage, Store
from kkdcpd.protocol.ip_addresses import limited_networks
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


WIDER_MULTIPLES = (4, 8)
"""The limits of a /56 and of a /48, as multiples of one client's. A mobile carrier's /48 holds thousands of
strangers, so they are high; by default they still leave more than half of `total_rate` to others."""


MOST_KNOWN = 1024
"""Clients whose buckets are cached."""


class Rates:
    """The rules CLIENT_RATE, REALM_RATE and TOTAL_RATE, in one step."""

    def __init__(self, config: RatesConfig, store: Store) -> None:
        self._store = store
        self._client = Limit(rate=config.client_rate, burst=config.client_burst)
        self._wider = tuple(
            Limit(rate=config.client_rate * multiple, burst=config.client_burst * multiple)
            for multiple in WIDER_MULTIPLES
        )
        self._realm = Limit(rate=config.realm_rate, burst=config.realm_burst)
        self._total = ((_TOTAL,), Limit(rate=config.total_rate, burst=config.total_burst))
        self._buckets = lru_cache(MOST_KNOWN)(self._make_buckets)

    def check_client(self, client: str, *, now: float) -> Refusal | None:
        """Count a request of a client's network, whatever it asks for."""
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
        """Count a request for a realm as it is configured, once it is known to be one."""
        shortage = self._store.take((((_REALM, realm), self._realm),), now)
        return _refusal(shortage, Rule.REALM_RATE) if shortage else None


def _refusal(shortage: Shortage, rule: Rule) -> Refusal:
    return Refusal(
        rule=rule,
        outcome=_OUTCOMES[rule],
        text=f"{_TEXTS[rule]}; try again in {math.ceil(shortage.wait)} s",
        retry_after=shortage.wait,
    )
