from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kkdcpd.config.kinds import Flag, Number, Text
from kkdcpd.config.reader import NamedTables, Table, join, setting, settings_of
from kkdcpd.errors import ConfigError, ConfigProblem

WORD = Text(parse=str.lower, remedy="write a word")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fruit:
    name: str
    colour: str = field(metadata=setting(WORD, "How it looks."))
    is_ripe: bool = field(default=False, metadata=setting(Flag(), "Whether it is to eat."))


@dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    fruit: tuple[Fruit, ...] = field(
        metadata=setting(NamedTables(form=Fruit, name=WORD, remedy="add fruit"), "What is in it.")
    )
    weight: int = field(
        default=1, metadata=setting(Number(minimum=1, maximum=9, unit="pounds"), "How heavy it is.")
    )


def _lines(kind: Table[Any], table: object, key: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        kind.read(table, key)
    return list(map(str, caught.value.problems))


def test_tables_become_dataclasses() -> None:
    document = {"fruit": {"pear": {"colour": "GREEN"}, "plum": {"colour": "blue", "is_ripe": True}}}
    assert Table(form=Basket).read(document, "") == Basket(
        fruit=(Fruit(name="pear", colour="green"), Fruit(name="plum", colour="blue", is_ripe=True))
    )


def test_every_problem_at_every_depth_is_told() -> None:
    document = {"wight": 3, "fruit": {"pear": {"colour": 1, "is_ripe": 0}, "big.plum": {}}}
    assert _lines(Table(form=Basket), document) == [
        "wight: there is no such setting; did you mean weight?",
        "fruit.pear.colour: 1 is a whole number; write a word",
        "fruit.pear.is_ripe: 0 is a whole number; write true or false",
        'fruit."big.plum".colour: is missing; write a word',
    ]


def test_unknown_key_that_resembles_none_is_told_with_those_there_are() -> None:
    assert _lines(Table(form=Basket), {"fruit": {"pear": {"colour": "red"}}, "xyz": 1}, "basket") == [
        "basket.xyz: there is no such setting; remove it, or use one of fruit, weight"
    ]


def test_misspelt_key_is_not_told_as_missing_too() -> None:
    document = {"fruit": {"pear": {"color": "red"}}}
    assert _lines(Table(form=Basket), document) == [
        "fruit.pear.color: there is no such setting; did you mean colour?"
    ]


def test_field_that_is_no_setting_is_no_key() -> None:
    document = {"fruit": {"pear": {"colour": "red", "name": "apple"}}}
    assert _lines(Table(form=Basket), document) == [
        "fruit.pear.name: there is no such setting; remove it, or use one of colour, is_ripe"
    ]


def test_name_with_unquoted_dots_is_told_as_that() -> None:
    document = {"fruit": {"big": {"blue": {"plum": {"colour": "blue"}}}}}
    assert _lines(Table(form=Basket), document) == [
        (
            "fruit.big.blue.plum: its dots make tables within tables, as the name is not in quotes; "
            'write [fruit."big.blue.plum"]'
        )
    ]


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ([], "is a list; write a table with fruit, weight"),
        ({"fruit": 1}, "fruit: 1 is a whole number; add fruit"),
        ({"fruit": {}}, "fruit: is empty; add fruit"),
        ({}, "fruit: is missing; add fruit"),
        ({"fruit": {"pear": 1}}, "fruit.pear: 1 is a whole number; write a table with colour, is_ripe"),
    ],
)
def test_what_is_no_table_is_refused(document: object, line: str) -> None:
    assert [text.removeprefix(": ") for text in _lines(Table(form=Basket), document)] == [line]


def test_rule_of_a_table_is_asked_with_its_key() -> None:
    def never_red(fruit: Fruit, key: str) -> Iterator[ConfigProblem]:
        yield ConfigProblem(key=f"{key}.colour", problem=f"{fruit.colour} is bad", remedy="paint it")

    kind = Table(form=Fruit, rule=never_red)
    with pytest.raises(ConfigError) as caught:
        kind.read({"colour": "red"}, "fruit", name="pear")
    assert str(caught.value) == "fruit.colour: red is bad; paint it"


def test_settings_are_told_in_their_order() -> None:
    settings = settings_of(Fruit)
    assert [(name, told.description, told.is_required) for name, told in settings.items()] == [
        ("colour", "How it looks.", True),
        ("is_ripe", "Whether it is to eat.", False),
    ]


@pytest.mark.parametrize(
    ("key", "name", "joined"),
    [
        ("", "http", "http"),
        ("realms", "EXAMPLE", "realms.EXAMPLE"),
        ("realms", "EXAMPLE.COM", 'realms."EXAMPLE.COM"'),
        ("realms", "", 'realms.""'),
        ("realms", 'a"b', 'realms."a\\"b"'),
    ],
)
def test_keys_are_quoted_where_toml_wants_it(key: str, name: str, joined: str) -> None:
    assert join(key, name) == joined
