import copy
from dataclasses import replace

import pytest

from kkdcpd.frozen import Word, frozen


@frozen
class Place:
    host: str
    port: int = 88


@frozen
class Step:
    number: int
    note: str = ""

    def __hash__(self) -> int:
        return self.number


class Colour(Word):
    RED = "red"
    BLUE = "blue"


def test_words_are_enums() -> None:
    assert [colour.value for colour in Colour] == ["red", "blue"]
    assert Colour("red") is Colour.RED
    assert {Colour.RED: 1, Colour.BLUE: 2}[copy.deepcopy(Colour.BLUE)] == 2
    assert repr(Colour.RED) == "<Colour.RED: 'red'>"


def test_values_are_compared_and_can_be_keys() -> None:
    assert Place(host="a") == Place(host="a", port=88)
    assert Place(host="a") != Place(host="b")
    assert len({Place(host="a"), Place(host="a"), Place(host="b")}) == 2


def test_fields_are_given_by_keyword_and_there_are_no_others() -> None:
    with pytest.raises(TypeError):
        Place("a")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Place(host="a").name = "b"  # type: ignore[attr-defined]


def test_another_value_is_made_instead_of_changing_one() -> None:
    place = Place(host="a")
    assert replace(place, port=464) == Place(host="a", port=464)
    # mypy, which `make test` runs with warn_unused_ignores, is what holds this against us.
    place.port = 464  # type: ignore[misc]


def test_hash_of_its_own_is_kept() -> None:
    assert hash(Step(number=7, note="x")) == 7
