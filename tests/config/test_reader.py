from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from kkdcpd.config.kinds import (
    Choice,
    File,
    Flag,
    Items,
    Kind,
    ListOf,
    Member,
    NoneAs,
    Number,
    OrNone,
    Range,
    Text,
)
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.problems import Location
from kkdcpd.config.reader import NOT_A_SETTING, Shown, Table, kind_of, settings_of
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.values import Mode

WORD = Text(parse=str.lower, remedy="write a word")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fruit:
    name: Annotated[str, NOT_A_SETTING]
    colour: Annotated[str, WORD, Shown('"red"')]
    is_ripe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NeverRed(Fruit):
    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        yield ConfigProblem(key=f"{key}.colour", problem=f"{self.colour} is bad", remedy="paint it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Basket:
    fruit: Annotated[tuple[Fruit, ...], NamedTables(form=Fruit, name=WORD, remedy="add fruit")]
    weight: Annotated[int, Range(1, 9, "pounds")] = 1


def _lines(kind: Table[Any], table: object, key: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        kind.read(table, Location(key=key))
    return list(map(str, caught.value.problems))


def test_tables_become_dataclasses() -> None:
    document = {"fruit": {"pear": {"colour": "GREEN"}, "plum": {"colour": "blue", "is_ripe": True}}}
    assert Table(form=Basket).read(document, Location()) == Basket(
        fruit=(Fruit(name="pear", colour="green"), Fruit(name="plum", colour="blue", is_ripe=True))
    )


def test_problems_at_every_depth_are_found() -> None:
    document = {"wight": 3, "fruit": {"pear": {"colour": 1, "is_ripe": 0}, "big.plum": {}}}
    assert _lines(Table(form=Basket), document) == [
        "wight: there is no such setting; did you mean weight?",
        "fruit.pear.colour: 1 is a whole number; write a word",
        "fruit.pear.is_ripe: 0 is a whole number; write true or false",
        'fruit."big.plum".colour: is missing; write a word',
    ]


def test_unknown_key_without_a_similar_key_is_refused_with_all_keys() -> None:
    assert _lines(Table(form=Basket), {"fruit": {"pear": {"colour": "red"}}, "xyz": 1}, "basket") == [
        "basket.xyz: there is no such setting; remove it, or use one of fruit, weight"
    ]


def test_misspelt_key_is_not_also_missing() -> None:
    document = {"fruit": {"pear": {"color": "red"}}}
    assert _lines(Table(form=Basket), document) == [
        "fruit.pear.color: there is no such setting; did you mean colour?"
    ]


def test_field_that_is_no_setting_is_no_key() -> None:
    document = {"fruit": {"pear": {"colour": "red", "name": "apple"}}}
    assert _lines(Table(form=Basket), document) == [
        "fruit.pear.name: there is no such setting; remove it, or use one of colour, is_ripe"
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
def test_value_that_is_no_table_is_refused(document: object, line: str) -> None:
    assert [text.removeprefix(": ") for text in _lines(Table(form=Basket), document)] == [line]


def test_rules_of_a_table_get_its_key() -> None:
    with pytest.raises(ConfigError) as caught:
        Table(form=NeverRed).read({"colour": "red"}, Location(key="fruit"), name="pear")
    assert str(caught.value) == "fruit.colour: red is bad; paint it"


def test_settings_have_the_order_of_the_fields() -> None:
    settings = settings_of(Fruit)
    assert [(name, each.kind, each.shown, each.is_required) for name, each in settings.items()] == [
        ("colour", WORD, '"red"', True),
        ("is_ripe", Flag(), "", False),
    ]


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [
        (bool, Flag()),
        (Annotated[int, Range(1, 9)], Number(bounds=Range(1, 9))),
        (Annotated[float, Range(1, 9)], Number(bounds=Range(1, 9), is_whole=False)),
        (Literal["a", "b"], Choice(words=("a", "b"))),
        (Mode, Member(enumeration=Mode)),
        (Fruit, Table(form=Fruit)),
        (Fruit | None, Table(form=Fruit)),
        (Annotated[str, WORD], WORD),
        (Annotated[str, WORD] | None, OrNone(kind=WORD, word="")),
        (Annotated[int | str, WORD], WORD),
        (Annotated[Path | None, File("/etc/krb5.conf")], OrNone(kind=File("/etc/krb5.conf"), word="")),
        (
            Annotated[int | None, Range(1, 9), NoneAs("auto")],
            OrNone(kind=Number(bounds=Range(1, 9)), word="auto"),
        ),
        (
            Annotated[tuple[Annotated[str, WORD], ...], Items(remedy="write words")],
            ListOf(item=WORD, rules=Items(remedy="write words")),
        ),
    ],
)
def test_annotation_decides_the_kind(annotation: object, kind: Kind[Any]) -> None:
    assert kind_of(annotation) == kind


@pytest.mark.parametrize("annotation", [int, float, str, tuple[str, ...], Path, Path | None])
def test_annotation_that_says_too_little_is_refused(annotation: object) -> None:
    with pytest.raises(TypeError, match="needs Annotated"):
        kind_of(annotation)


def test_table_is_written_without_its_defaults() -> None:
    assert Table(form=Fruit).write(Fruit(name="pear", colour="red")) == '{colour = "red"}'
    ripe = Fruit(name="pear", colour="red", is_ripe=True)
    assert Table(form=Fruit).write(ripe) == '{colour = "red", is_ripe = true}'
