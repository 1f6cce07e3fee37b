"""Tests of the limits on rates of requests and handshakes, and on requests in flight."""

import pytest

from kkdcpd.config import ConnectionsConfig, RatesConfig
from kkdcpd.guard.limits import WIDER_HANDSHAKES, ConcurrencyLimit, HandshakeRate, RequestRates
from kkdcpd.guard.shared_table import SharedTable
from kkdcpd.guard.store import Store
from kkdcpd.protocol.ip_addresses import limited_networks, networks_of
from kkdcpd.shared_memory.areas import make_area
from kkdcpd.shared_memory.entries import entries_bytes
from kkdcpd.values import Outcome, Refusal, Rule
from tests.support.shared import own_counts, own_table

NOW = 5000.0
REALM = "EXAMPLE.COM"
BURST = 5

# Rates of requests


@pytest.fixture
def store() -> Store:
    return own_table(65536)


def check(rates: RequestRates, *, client: str, realm: str | None, now: float) -> Refusal | None:
    """Check as the guard does: the realm only if the client's rate allows the request."""
    refusal = rates.check_client(client, now=now)
    return refusal or (rates.check_realm(realm, now=now) if realm else None)


def refused(
    rates: RequestRates, count: int, *, client: str = "192.0.2.1", realm: str | None = REALM
) -> list[Refusal]:
    answers = [check(rates, client=client, realm=realm, now=NOW) for _ in range(count)]
    return [answer for answer in answers if answer]


def test_refusal_by_rate_says_when_to_try_again(store: Store) -> None:
    refusals = refused(RequestRates(RatesConfig(client_rate=0.5, client_burst=3), store), 4)
    assert refusals == [
        Refusal(
            rule=Rule.CLIENT_RATE,
            outcome=Outcome.RATE_LIMITED,
            text="your network sends too many requests; try again in 2 s",
            retry_after=2.0,
        )
    ]


def test_rates_of_realm_and_total_mean_overload_and_not_a_fault_of_the_client(store: Store) -> None:
    rates = RequestRates(RatesConfig(realm_burst=3, total_burst=6), store)
    (realm,) = refused(rates, 4)
    assert (realm.rule, realm.outcome) == (Rule.REALM_RATE, Outcome.OVERLOADED)
    (total,) = refused(rates, 3, realm="OTHER.EXAMPLE")
    assert (total.rule, total.outcome) == (Rule.TOTAL_RATE, Outcome.OVERLOADED)


def test_refused_client_takes_no_token_of_other_clients(store: Store) -> None:
    rates = RequestRates(RatesConfig(client_burst=10, realm_burst=20, total_burst=20), store)
    assert len(refused(rates, 1000)) == 990
    assert len(refused(rates, 10, client="192.0.2.2")) == 0


def ipv6(number: int, site: int = 1) -> str:
    return f"2001:db8:{site:x}:{number:x}::/64"


@pytest.mark.parametrize(("spacing", "allowed"), [(1, 40), (256, 80)], ids=["/56", "/48"])
def test_networks_of_one_site_share_a_multiple_of_the_limit(store: Store, spacing: int, allowed: int) -> None:
    rates = RequestRates(RatesConfig(client_burst=10), store)
    networks = [ipv6(number * spacing) for number in range(100)]
    refusals = [refusal for network in networks for refusal in refused(rates, 10, client=network)]
    assert 1000 - len(refusals) == allowed
    assert {refusal.rule for refusal in refusals} == {Rule.CLIENT_RATE}
    assert refused(rates, 10, client=ipv6(0, site=2)) == []


def test_networks_of_one_site_leave_the_total_to_others(store: Store) -> None:
    rates = RequestRates(RatesConfig(), store)
    for number in range(100):
        refused(rates, 1000, client=ipv6(number << 8), realm=None)
    assert refused(rates, 1000, client="192.0.2.1", realm=None) == []


def test_total_is_named_when_networks_of_many_sites_use_it_up(store: Store) -> None:
    rates = RequestRates(RatesConfig(total_burst=5), store)
    refusals = [refused(rates, 1, client=ipv6(0, site=number)) for number in range(6)]
    assert refusals[:5] == [[]] * 5
    assert refusals[5][0].rule is Rule.TOTAL_RATE


def test_each_realm_has_a_limit_of_its_own(store: Store) -> None:
    rates = RequestRates(RatesConfig(realm_burst=10), store)
    assert len(refused(rates, 20)) == 10
    assert len(refused(rates, 10, realm="OTHER.EXAMPLE")) == 0


def test_requests_for_an_unknown_realm_count_for_their_client(store: Store) -> None:
    rates = RequestRates(RatesConfig(client_burst=10), store)
    assert len(refused(rates, 20, realm=None)) == 10
    assert len(refused(rates, 10)) == 10


def test_office_of_2000_behind_one_address_logs_on_within_10_minutes(store: Store) -> None:
    rates = RequestRates(RatesConfig(), store)
    requests = 2000 * 10
    times = [NOW + 600.0 * number / requests for number in range(requests)]
    assert all(check(rates, client="192.0.2.1", realm=REALM, now=now) is None for now in times)


def test_hundred_users_log_on_at_the_same_moment(store: Store) -> None:
    assert refused(RequestRates(RatesConfig(), store), 100 * 10) == []


def test_limit_holds_for_all_workers_together() -> None:
    area = make_area(entries_bytes(1024))
    workers = [RequestRates(RatesConfig(client_burst=10), SharedTable(area)) for _ in range(4)]
    assert sum(len(refused(worker, 10)) for worker in workers) == 30


# Requests in flight


def test_client_has_its_slots_and_gets_them_back() -> None:
    limit = ConcurrencyLimit(RatesConfig(client_concurrency=2), own_counts())
    assert [limit.enter(("192.0.2.1",)) for _ in range(2)] == [None, None]
    refusal = limit.enter(("192.0.2.1",))
    assert refusal is not None
    assert (refusal.rule, refusal.outcome) == (Rule.CLIENT_CONCURRENCY, Outcome.RATE_LIMITED)
    assert refusal.retry_after == 1.0
    assert limit.enter(("192.0.2.2",)) is None
    limit.leave(("192.0.2.1",))
    limit.leave(("192.0.2.1",))
    assert limit.enter(("192.0.2.1",)) is None


@pytest.mark.parametrize(("spacing", "most"), [(1, 4), (0x100, 8)])
def test_networks_of_one_home_or_site_share_a_multiple_of_the_limit(spacing: int, most: int) -> None:
    limit = ConcurrencyLimit(RatesConfig(client_concurrency=2), own_counts())
    clients = [f"2001:db8:1:{spacing * number:x}::/64" for number in range(2 * most)]
    refusals = [limit.enter(limited_networks(client)) for client in clients]
    assert refusals[:most] == [None] * most
    assert {refusal.rule for refusal in refusals[most:] if refusal} == {Rule.CLIENT_CONCURRENCY}
    assert all(refusals[most:])
    assert limit.enter(limited_networks("2001:db8:2::/64")) is None
    for client in clients:
        limit.leave(limited_networks(client))
    assert limit.enter(limited_networks(clients[0])) is None


def test_neighbours_of_an_ipv4_address_have_slots_of_their_own() -> None:
    limit = ConcurrencyLimit(RatesConfig(client_concurrency=1), own_counts())
    assert [limit.enter((f"192.0.2.{number}",)) for number in range(100)] == [None] * 100


def test_all_clients_together_have_a_limit() -> None:
    limit = ConcurrencyLimit(RatesConfig(total_concurrency=2), own_counts())
    assert [limit.enter((f"192.0.2.{number}",)) for number in range(2)] == [None, None]
    refusal = limit.enter(("192.0.2.9",))
    assert refusal is not None
    assert (refusal.rule, refusal.outcome) == (Rule.TOTAL_CONCURRENCY, Outcome.OVERLOADED)


def test_request_over_the_limit_leaves_like_any_other() -> None:
    limit = ConcurrencyLimit(RatesConfig(client_concurrency=1), own_counts())
    limit.enter(("192.0.2.1",))
    assert limit.enter(("192.0.2.1",)) is not None
    limit.leave(("192.0.2.1",))
    assert limit.enter(("192.0.2.1",)) is not None
    limit.leave(("192.0.2.1",))
    limit.leave(("192.0.2.1",))
    assert limit.enter(("192.0.2.1",)) is None


# Handshakes


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rate(clock: Clock) -> HandshakeRate:
    config = ConnectionsConfig(handshake_rate=2, handshake_burst=BURST)
    return HandshakeRate(config, own_table(1024), clock)


def admitted(rate: HandshakeRate, *addresses: str) -> int:
    """Count the handshakes of these clients that may begin."""
    return sum(rate.admits(networks_of(address)) for address in addresses)


@pytest.mark.parametrize("addresses", [["192.0.2.1"], ["2001:db8::1", "2001:db8::2"]])
def test_client_has_a_burst_of_handshakes_and_then_its_rate(
    rate: HandshakeRate, clock: Clock, addresses: list[str]
) -> None:
    assert admitted(rate, *addresses * 3 * BURST) == BURST
    clock.now += 1
    assert admitted(rate, *addresses * BURST) == 2
    assert admitted(rate, "198.51.100.1") == 1


@pytest.mark.parametrize(
    ("inside", "outside"), [("192.0.2.{}", "192.0.3.1"), ("2001:db8:0:{}::1", "2001:db8:1::1")]
)
def test_clients_of_one_network_share_a_multiple_of_the_burst(
    rate: HandshakeRate, inside: str, outside: str
) -> None:
    addresses = [inside.format(number) for number in range(1, 100)]
    assert admitted(rate, *addresses) == WIDER_HANDSHAKES * BURST
    assert admitted(rate, outside) == 1


def test_refused_handshake_takes_no_token_of_its_network(rate: HandshakeRate) -> None:
    admitted(rate, *["192.0.2.1"] * 100)
    assert admitted(rate, *["192.0.2.2"] * BURST) == BURST


def test_default_handshake_rate_lets_an_office_log_on() -> None:
    """A hundred users in the same second, with ten requests for each log-on and a connection for each."""
    config = ConnectionsConfig()
    rate = HandshakeRate(config, own_table(1024), lambda: 1000.0)
    assert admitted(rate, *["192.0.2.1"] * 1000) == 1000
