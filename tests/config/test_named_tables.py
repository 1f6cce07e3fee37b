from typing import Annotated

import pytest

from kkdcpd.config.kinds import Text
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.problems import Location
from kkdcpd.config.reader import NOT_A_SETTING
from kkdcpd.errors import ConfigError
from kkdcpd.frozen import frozen

WORD = Text(parse=str.lower, remedy="write a word")


@frozen
class Fruit:
    name: Annotated[str, NOT_A_SETTING]
    colour: Annotated[str, WORD] = "green"


FRUIT = NamedTables(form=Fruit, name=WORD, remedy="add fruit")


def _problem(value: object) -> str:
    with pytest.raises(ConfigError) as caught:
        FRUIT.read(value, Location(key="fruit"))
    return str(caught.value)


def test_each_table_has_its_name_in_the_order_of_the_file() -> None:
    tables = FRUIT.read({"PLUM": {"colour": "BLUE"}, "pear": {}}, Location(key="fruit"))
    assert tables == (Fruit(name="plum", colour="blue"), Fruit(name="pear"))
    assert FRUIT.write(tables) == '{plum = {colour = "blue"}, pear = {}}'


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (1, "fruit: 1 is a whole number; add fruit"),
        ({}, "fruit: is empty; add fruit"),
        ({"pear": 1}, "fruit.pear: 1 is a whole number; write a table with colour"),
        (
            {"big": {"blue": {"plum": {"colour": "blue"}}}},
            (
                "fruit.big.blue.plum: its dots make tables within tables, as the name is not in quotes; "
                'write [fruit."big.blue.plum"]'
            ),
        ),
    ],
)
def test_bad_tables_are_refused_with_a_remedy(value: object, problem: str) -> None:
    assert _problem(value) == problem


def test_problems_of_all_tables_are_found() -> None:
    assert _problem({"pear": {"colour": 1}, "plum": {"color": ""}}).count("\n") == 1
