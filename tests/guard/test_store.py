"""Test of the store's interface: it fits a store that several hosts share."""

from collections.abc import Callable, Sequence

from kkdcpd.config import RatesConfig
from kkdcpd.guard.limits import RequestRates
from kkdcpd.guard.store import Block, Growth, Key, Limit, Shortage, Store, Tally
from kkdcpd.values import Rule
from tests.support.shared import own_table

GROWTH = Growth(first=60.0, longest=3600.0, forgiven_after=600.0)


class SharedByHosts:
    """A store that records its operations for other hosts."""

    def __init__(self) -> None:
        self.outbox: list[Callable[[Store, float], object]] = []
        self._own = own_table(1024)

    def take(self, buckets: Sequence[tuple[Key, Limit]], now: float) -> Shortage | None:
        shortage = self._own.take(buckets, now)
        if shortage is None:
            self.outbox.append(lambda other, now: other.take(buckets, now))
        return shortage

    def tally(self, key: Key, column: int, member: str | None, *, window: float, now: float) -> Tally:
        self.outbox.append(lambda other, now: other.tally(key, column, member, window=window, now=now))
        return self._own.tally(key, column, member, window=window, now=now)

    def has_blocks(self, now: float) -> bool:
        return self._own.has_blocks(now)

    def blocked(self, key: Key, now: float) -> Block | None:
        return self._own.blocked(key, now)

    def block(self, key: Key, reason: int, growth: Growth, now: float) -> float:
        self.outbox.append(lambda other, now: other.block(key, reason, growth, now))
        return self._own.block(key, reason, growth, now)

    def receive(self, other: "SharedByHosts", now: float) -> None:
        for operation in other.outbox:
            operation(self._own, now)
        other.outbox.clear()


def test_hosts_can_share_their_state_by_passing_on_operations_between_clocks_of_their_own() -> None:
    here: Store = (first := SharedByHosts())
    there: Store = (second := SharedByHosts())
    rules = [RequestRates(RatesConfig(client_burst=4), store) for store in (here, there)]
    for _ in range(4):
        assert rules[0].check_client("192.0.2.1", now=1000.0) is None
    here.tally(("logins", "192.0.2.1"), 0, "alice", window=600.0, now=1000.0)
    here.block(("blocked", "192.0.2.1"), 7, GROWTH, 1000.0)
    second.receive(first, 77.0)
    refusal = rules[1].check_client("192.0.2.1", now=77.0)
    assert refusal is not None
    assert refusal.rule is Rule.CLIENT_RATE
    assert not there.tally(("logins", "192.0.2.1"), 0, "alice", window=600.0, now=77.0).is_new
    assert there.has_blocks(77.0)
    assert there.blocked(("blocked", "192.0.2.1"), 77.0) == Block(reason=7, seconds=60.0)
