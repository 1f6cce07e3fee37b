"""Slots at an endpoint, shared fairly between networks, and the budget of hedges."""

from collections.abc import Sequence
from dataclasses import dataclass

from kkdcpd.protocol.ip_addresses import limited_networks
from kkdcpd.upstream.load import FEW, HedgeTokens, Slots

NEVER = float("-inf")


@dataclass(eq=False)
class Request:
    """A request in flight, of a client at this address."""

    client: str
    started_at: float

    @property
    def networks(self) -> Sequence[str]:
        return limited_networks(self.client)


class Full:
    """Slots that requests have taken, one after the other."""

    def __init__(self, *clients: str) -> None:
        self.slots: Slots[Request] = Slots(len(clients))
        self.requests: list[Request] = []
        for client in clients:
            self.add(client)

    def add(self, client: str) -> None:
        request = Request(client, float(len(self.requests)))
        self.requests.append(request)
        self.slots.add(request)

    def yielding(self, client: str, passed_over_before: float = NEVER) -> int | None:
        """The number of the request that yields to one of this client."""
        found = self.slots.yields_to(limited_networks(client), passed_over_before=passed_over_before)
        return None if found is None else self.requests.index(found)


def test_one_network_may_take_all_slots_while_no_other_needs_one() -> None:
    full = Full("a", "a", "a")
    assert full.slots.is_full
    assert full.yielding("a") is None


def test_oldest_request_of_the_largest_network_yields() -> None:
    full = Full("b", "a", "a", "a")
    assert full.yielding("c") == 1
    assert full.yielding("b") == 1
    full.slots.remove(full.requests[1])
    assert not full.slots.is_full
    full.add("c")
    # If a request of one network yielded now, the other network would be the largest.
    assert full.yielding("b") is None
    assert full.yielding("d") == 2


def test_among_networks_with_one_request_each_the_oldest_that_was_passed_over_yields() -> None:
    full = Full("a", "b", "c", "d")
    assert full.yielding("e") is None
    full.slots.remove_answered(full.requests[2])
    full.add("f")
    for passed_over in (0, 1):
        assert full.yielding("e") == passed_over
        full.slots.remove(full.requests[passed_over])
        full.add(full.requests[passed_over].client)
    assert full.yielding("e") is None


def test_passed_over_request_yields_to_a_network_with_few_requests() -> None:
    """An office behind one address has several requests in flight, and the KDC answers them."""
    full = Full(*(f"attacker {number}" for number in range(2 * FEW)))
    for number in range(FEW):
        assert full.yielding("office", passed_over_before=FEW) == number
        full.slots.remove(full.requests[number])
        full.add("office")
    assert full.yielding("office", passed_over_before=2 * FEW) is None


def test_passed_over_request_yields_before_a_fresh_request_of_the_largest_network() -> None:
    full = Full("first", "office", "office", "office", "second")
    assert full.yielding("third", passed_over_before=0.5) == 0
    assert full.yielding("third") == 1


def test_passed_over_request_does_not_yield_to_a_network_with_as_many() -> None:
    full = Full("otp user", "attacker", "attacker", "other")
    assert full.yielding("attacker", passed_over_before=1.5) is None
    # One request has been passed over, and it belongs to a small network.
    assert full.yielding("other", passed_over_before=0.5) == 0
    assert full.yielding("otp user", passed_over_before=0.5) is None


def test_answered_probe_shows_that_older_requests_were_passed_over() -> None:
    """The probe is the only evidence while no request has been answered."""
    full = Full("a", "b", "c")
    assert full.yielding("d", passed_over_before=0.0) is None
    assert full.yielding("d", passed_over_before=0.5) == 0
    full.slots.remove(full.requests[0])
    full.add("d")
    assert full.yielding("e", passed_over_before=0.5) is None


def test_requests_that_are_answered_in_turn_do_not_yield() -> None:
    full = Full("a", "b", "c")
    full.slots.remove_answered(full.requests[0])
    full.add("d")
    assert full.yielding("e") is None


def test_many_narrow_networks_of_one_site_count_as_the_site() -> None:
    """A site has a /48, and may send each request from another /56 or another /64."""
    for site in (
        [f"2001:db8:1:{number:x}00::1" for number in range(8)],
        [f"2001:db8:1:{number:x}::1" for number in range(8)],
    ):
        full = Full("2001:db8:2::1", *site)
        assert full.yielding("192.0.2.1") == 1
        assert full.yielding("2001:db8:2::1") == 1
        assert full.yielding("2001:db8:1:ff::1") is None


def test_within_the_largest_site_the_largest_of_its_networks_yields() -> None:
    full = Full("2001:db8:1:1::1", "2001:db8:1:200::1", "2001:db8:1:201::1", "2001:db8:1:201::2")
    assert full.yielding("192.0.2.1") == 2
    # Another network of the same site is compared with its neighbours.
    assert full.yielding("2001:db8:1:300::1") == 2


def test_neighbours_of_an_ipv4_address_are_other_clients() -> None:
    assert Full("192.0.2.1", "192.0.2.2", "192.0.2.3").yielding("198.51.100.1") is None


def test_slots_remember_no_network_without_a_request() -> None:
    full = Full("a")
    full.slots.remove(full.requests[0])
    assert (full.slots.taken, full.slots.is_full) == (0, False)
    full.add("b")
    assert full.yielding("a") is None


def ignore() -> None:
    """Take no notice of a hedge."""


def test_hedges_are_at_most_a_tenth_of_all_requests_beyond_the_saved_tokens() -> None:
    tokens = HedgeTokens(0.1, ignore)
    hedges = 0
    for _ in range(1000):
        tokens.request_begins()
        hedges += tokens.take()
    assert 100 <= hedges <= 110


def test_first_request_may_be_hedged() -> None:
    tokens = HedgeTokens(0.1, ignore)
    tokens.request_begins()
    assert tokens.take()


def test_ratio_of_zero_means_no_hedges() -> None:
    tokens = HedgeTokens(0.0, ignore)
    tokens.request_begins()
    assert not tokens.take()


def test_quiet_times_save_up_no_more_than_ten_tokens() -> None:
    notified: list[str] = []
    tokens = HedgeTokens(1.0, lambda: notified.append("hedge"))
    for _ in range(1000):
        tokens.request_begins()
    assert [tokens.take() for _ in range(11)] == [True] * 10 + [False]
    assert notified == ["hedge"] * 10
