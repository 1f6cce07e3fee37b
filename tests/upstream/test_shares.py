"""Fair shares between networks."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.upstream.shares import Places, Slots


def full_slots(*networks: str) -> Slots[str]:
    """Slots that are all taken, by items that are named after their networks and numbered."""
    slots: Slots[str] = Slots(len(networks))
    for number, network in enumerate(networks):
        slots.add(network, f"{network}{number}")
    return slots


def test_one_network_may_take_all_slots_while_no_other_wants_any() -> None:
    assert full_slots("a", "a", "a").is_full
    assert full_slots("a", "a", "a").yields_to("a") is None


def test_oldest_request_of_the_largest_network_yields() -> None:
    slots = full_slots("b", "a", "a", "a")
    assert slots.yields_to("c") == "a1"
    assert slots.yields_to("b") == "a1"
    slots.remove("a1")
    assert not slots.is_full
    slots.add("c", "c4")
    # Were one of them to yield now, the other network would be the largest.
    assert slots.yields_to("b") is None
    assert slots.yields_to("d") == "a2"


def test_among_networks_with_one_request_each_the_oldest_that_was_passed_over_yields() -> None:
    slots = full_slots("a", "b", "c", "d")
    assert slots.yields_to("e") is None
    slots.note_answer("c2")
    slots.remove("c2")
    slots.add("f", "f4")
    for passed_over in ("a0", "b1"):
        # A network that would only change places with another has no right to its own second slot.
        assert slots.yields_to("f") is None
        assert slots.yields_to("e") == passed_over
        slots.remove(passed_over)
        slots.add(passed_over, passed_over)
    assert slots.yields_to("e") is None


def test_requests_that_are_answered_in_turn_do_not_yield() -> None:
    slots = full_slots("a", "b", "c")
    slots.note_answer("a0")
    slots.remove("a0")
    slots.add("d", "d3")
    assert slots.yields_to("e") is None


def test_slots_remember_no_network_without_a_request() -> None:
    slots = full_slots("a")
    slots.remove("a0")
    assert (slots.taken, slots.is_full) == (0, False)
    slots.add("b", "b0")
    assert slots.yields_to("a") is None


def test_one_network_gets_half_of_the_places_and_a_newcomer_finds_one() -> None:
    places = Places(100)
    assert sum(places.take("a") for _ in range(200)) == 50
    for network in "bcdefgh":
        assert places.take(network)


def test_places_are_empty_once_all_are_given_back() -> None:
    places = Places(10)
    places.take("a")
    places.take("b")
    assert not places.is_empty
    places.give_back("a")
    places.give_back("b")
    assert places.is_empty


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=200))
def test_places_are_never_more_than_there_are(steps: list[tuple[str, bool]]) -> None:
    places, taken = Places(20), Counter[str]()
    for network, wants in steps:
        if wants:
            free = 20 - taken.total()
            had_place = places.take(network)
            assert had_place is (taken[network] < free)
            taken[network] += had_place
        elif taken[network]:
            places.give_back(network)
            taken[network] -= 1
    assert taken.total() <= 20
