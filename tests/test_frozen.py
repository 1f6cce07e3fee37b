import copy
from dataclasses import replace

import pytest

from kkdcpd.frozen import Word, frozen


@frozen
class Address:
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


def test_values_compare_by_value_and_are_hashable() -> None:
    assert Address(host="a") == Address(host="a", port=88)
    assert Address(host="a") != Address(host="b")
    assert len({Address(host="a"), Address(host="a"), Address(host="b")}) == 2


def test_fields_are_keyword_arguments_and_no_others_exist() -> None:
    with pytest.raises(TypeError):
        Address("a")  # type: ignore[call-arg]
    with pytest.raises(AttributeError):
        Address(host="a").name = "b"  # type: ignore[attr-defined]


def test_replace_makes_another_value() -> None:
    address = Address(host="a")
    assert replace(address, port=464) == Address(host="a", port=464)
    # `make test` runs mypy with warn_unused_ignores, so a missing error of mypy fails the test.
    address.port = 464  # type: ignore[misc]


def test_hash_method_of_the_class_is_kept() -> None:
    assert hash(Step(number=7, note="x")) == 7
