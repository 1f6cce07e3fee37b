"""How many requests are served at a time."""

from kkdcpd.config import RatesConfig
from kkdcpd.guard.concurrency import Slots
from kkdcpd.values import Outcome, Rule
from tests.support.shared import alone


def test_client_has_so_many_slots_and_gets_them_back() -> None:
    slots = Slots(RatesConfig(client_concurrency=2), alone())
    assert [slots.enter("192.0.2.1") for _ in range(2)] == [None, None]
    refusal = slots.enter("192.0.2.1")
    assert refusal is not None
    assert (refusal.rule, refusal.outcome) == (Rule.CLIENT_CONCURRENCY, Outcome.RATE_LIMITED)
    assert refusal.retry_after == 1.0
    assert slots.enter("192.0.2.2") is None
    slots.leave("192.0.2.1")
    slots.leave("192.0.2.1")
    assert slots.enter("192.0.2.1") is None


def test_all_together_have_so_many_slots() -> None:
    slots = Slots(RatesConfig(total_concurrency=2), alone())
    assert [slots.enter(f"192.0.2.{number}") for number in range(2)] == [None, None]
    refusal = slots.enter("192.0.2.9")
    assert refusal is not None
    assert (refusal.rule, refusal.outcome) == (Rule.TOTAL_CONCURRENCY, Outcome.OVERLOADED)


def test_request_over_the_limit_leaves_as_any_other() -> None:
    slots = Slots(RatesConfig(client_concurrency=1), alone())
    slots.enter("192.0.2.1")
    assert slots.enter("192.0.2.1") is not None
    slots.leave("192.0.2.1")
    assert slots.enter("192.0.2.1") is not None
    slots.leave("192.0.2.1")
    slots.leave("192.0.2.1")
    assert slots.enter("192.0.2.1") is None


def test_only_who_has_requests_in_flight_is_remembered() -> None:
    here = alone()
    slots = Slots(RatesConfig(), here)
    for number in range(100):
        slots.enter(str(number))
    assert (here.total, len(here._mine)) == (100, 100)
    for number in range(100):
        slots.leave(str(number))
    assert (here.total, len(here._mine)) == (0, 0)
