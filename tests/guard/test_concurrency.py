"""Tests of the limits on requests in flight."""

import pytest

from kkdcpd.config import RatesConfig
from kkdcpd.guard.concurrency import Slots
from kkdcpd.values import Outcome, Rule
from tests.support.shared import own_counts


def test_client_has_so_many_slots_and_gets_them_back() -> None:
    slots = Slots(RatesConfig(client_concurrency=2), own_counts())
    assert [slots.enter("192.0.2.1") for _ in range(2)] == [None, None]
    refusal = slots.enter("192.0.2.1")
    assert refusal is not None
    assert (refusal.rule, refusal.outcome) == (Rule.CLIENT_CONCURRENCY, Outcome.RATE_LIMITED)
    assert refusal.retry_after == 1.0
    assert slots.enter("192.0.2.2") is None
    slots.leave("192.0.2.1")
    slots.leave("192.0.2.1")
    assert slots.enter("192.0.2.1") is None


@pytest.mark.parametrize(("spacing", "most"), [(1, 4), (0x100, 8)])
def test_networks_of_one_home_or_site_share_a_multiple_of_the_limit(spacing: int, most: int) -> None:
    slots = Slots(RatesConfig(client_concurrency=2), own_counts())
    clients = [f"2001:db8:1:{spacing * number:x}::/64" for number in range(2 * most)]
    refusals = [slots.enter(client) for client in clients]
    assert refusals[:most] == [None] * most
    assert {refusal.rule for refusal in refusals[most:] if refusal} == {Rule.CLIENT_CONCURRENCY}
    assert all(refusals[most:])
    assert slots.enter("2001:db8:2::/64") is None
    for client in clients:
        slots.leave(client)
    assert slots.enter(clients[0]) is None


def test_neighbours_of_an_ipv4_address_have_slots_of_their_own() -> None:
    slots = Slots(RatesConfig(client_concurrency=1), own_counts())
    assert [slots.enter(f"192.0.2.{number}") for number in range(100)] == [None] * 100


def test_all_together_have_so_many_slots() -> None:
    slots = Slots(RatesConfig(total_concurrency=2), own_counts())
    assert [slots.enter(f"192.0.2.{number}") for number in range(2)] == [None, None]
    refusal = slots.enter("192.0.2.9")
    assert refusal is not None
    assert (refusal.rule, refusal.outcome) == (Rule.TOTAL_CONCURRENCY, Outcome.OVERLOADED)


def test_request_over_the_limit_leaves_as_any_other() -> None:
    slots = Slots(RatesConfig(client_concurrency=1), own_counts())
    slots.enter("192.0.2.1")
    assert slots.enter("192.0.2.1") is not None
    slots.leave("192.0.2.1")
    assert slots.enter("192.0.2.1") is not None
    slots.leave("192.0.2.1")
    slots.leave("192.0.2.1")
    assert slots.enter("192.0.2.1") is None


def test_only_who_has_requests_in_flight_is_remembered() -> None:
    here = own_counts()
    slots = Slots(RatesConfig(), here)
    for number in range(100):
        slots.enter(str(number))
    assert (here.total, len(here._mine)) == (100, 100)
    for number in range(100):
        slots.leave(str(number))
    assert (here.total, len(here._mine)) == (0, 0)
