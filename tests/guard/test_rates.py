"""How often clients may ask, with the defaults where they are what is shown."""

import pytest

from kkdcpd.config import RatesConfig
from kkdcpd.guard.rates import Rates
from kkdcpd.guard.shared_table import SharedTable
from kkdcpd.guard.store import Store
from kkdcpd.shared_memory.areas import make_area
from kkdcpd.shared_memory.entries import entries_bytes
from kkdcpd.values import Outcome, Refusal, Rule
from tests.support.shared import own_table

NOW = 5000.0
REALM = "EXAMPLE.COM"


@pytest.fixture
def store() -> Store:
    return own_table(65536)


def check(rates: Rates, *, client: str, realm: str | None, now: float) -> Refusal | None:
    """Ask as the guard does: of the realm only if the client may."""
    refusal = rates.check_client(client, now=now)
    return refusal or (rates.check_realm(realm, now=now) if realm else None)


def refused(
    rates: Rates, count: int, *, client: str = "192.0.2.1", realm: str | None = REALM
) -> list[Refusal]:
    answers = [check(rates, client=client, realm=realm, now=NOW) for _ in range(count)]
    return [answer for answer in answers if answer]


def test_client_that_asks_too_often_is_told_when_to_come_again(store: Store) -> None:
    refusals = refused(Rates(RatesConfig(client_rate=0.5, client_burst=3), store), 4)
    assert refusals == [
        Refusal(
            rule=Rule.CLIENT_RATE,
            outcome=Outcome.RATE_LIMITED,
            text="too many requests came from your network; try again in 2 s",
            retry_after=2.0,
        )
    ]


def test_realm_and_total_are_nobodys_fault(store: Store) -> None:
    rates = Rates(RatesConfig(realm_burst=3, total_burst=6), store)
    (realm,) = refused(rates, 4)
    assert (realm.rule, realm.outcome) == (Rule.REALM_RATE, Outcome.OVERLOADED)
    (total,) = refused(rates, 3, realm="OTHER.EXAMPLE")
    assert (total.rule, total.outcome) == (Rule.TOTAL_RATE, Outcome.OVERLOADED)


def test_client_that_is_refused_takes_nothing_from_the_others(store: Store) -> None:
    rates = Rates(RatesConfig(client_burst=10, realm_burst=20, total_burst=20), store)
    assert len(refused(rates, 1000)) == 990
    assert len(refused(rates, 10, client="192.0.2.2")) == 0


def ipv6(number: int, site: int = 1) -> str:
    return f"2001:db8:{site:x}:{number:x}::/64"


@pytest.mark.parametrize(("spacing", "allowed"), [(1, 40), (256, 80)], ids=["/56", "/48"])
def test_networks_of_one_site_share_a_multiple_of_the_limit(store: Store, spacing: int, allowed: int) -> None:
    rates = Rates(RatesConfig(client_burst=10), store)
    networks = [ipv6(number * spacing) for number in range(100)]
    refusals = [refusal for network in networks for refusal in refused(rates, 10, client=network)]
    assert 1000 - len(refusals) == allowed
    assert {refusal.rule for refusal in refusals} == {Rule.CLIENT_RATE}
    assert refused(rates, 10, client=ipv6(0, site=2)) == []


def test_networks_of_one_site_leave_the_total_to_others(store: Store) -> None:
    rates = Rates(RatesConfig(), store)
    for number in range(100):
        refused(rates, 1000, client=ipv6(number << 8), realm=None)
    assert refused(rates, 1000, client="192.0.2.1", realm=None) == []


def test_total_is_named_when_networks_of_many_sites_use_it_up(store: Store) -> None:
    rates = Rates(RatesConfig(total_burst=5), store)
    refusals = [refused(rates, 1, client=ipv6(0, site=number)) for number in range(6)]
    assert refusals[:5] == [[]] * 5
    assert refusals[5][0].rule is Rule.TOTAL_RATE


def test_realms_are_limited_each_by_itself(store: Store) -> None:
    rates = Rates(RatesConfig(realm_burst=10), store)
    assert len(refused(rates, 20)) == 10
    assert len(refused(rates, 10, realm="OTHER.EXAMPLE")) == 0


def test_requests_for_no_realm_count_for_their_client(store: Store) -> None:
    rates = Rates(RatesConfig(client_burst=10), store)
    assert len(refused(rates, 20, realm=None)) == 10
    assert len(refused(rates, 10)) == 10


def test_office_of_2000_behind_one_address_logs_in_within_10_minutes(store: Store) -> None:
    rates = Rates(RatesConfig(), store)
    requests = 2000 * 10
    times = [NOW + 600.0 * number / requests for number in range(requests)]
    assert all(check(rates, client="192.0.2.1", realm=REALM, now=now) is None for now in times)


def test_hundred_people_log_in_at_the_same_moment(store: Store) -> None:
    assert refused(Rates(RatesConfig(), store), 100 * 10) == []


def test_limit_holds_for_all_workers_together() -> None:
    memory = make_area(entries_bytes(1024))
    workers = [Rates(RatesConfig(client_burst=10), SharedTable(memory)) for _ in range(4)]
    assert sum(len(refused(worker, 10)) for worker in workers) == 30
