import datetime
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kkdcpd.config.kinds import Choice, Flag, Kind, ListOf, Member, Number, Text, collected, seconds
from kkdcpd.errors import ConfigError, ConfigProblem, SettingError
from kkdcpd.values import MessageKind, Mode

SECONDS = Number(minimum=0.1, maximum=60, unit="seconds", is_whole=False)
BYTES = Number(minimum=1, maximum=9, unit="bytes")


def _refuse_x(text: str) -> str:
    if text == "x":
        raise SettingError("is an x")
    if text == "y":
        raise SettingError("is a y", "write a z")
    return text.upper()


REQUEST = Member(enumeration=MessageKind, members=(MessageKind.AS_REQ, MessageKind.TGS_REQ))
LETTER = Text(parse=_refuse_x, remedy="write a letter")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (Flag(), True, True),
        (BYTES, 1, 1),
        (BYTES, 9, 9),
        (SECONDS, 0.1, 0.1),
        (SECONDS, 60, 60.0),
        (Choice(words=("a", "b")), "b", "b"),
        (Member(enumeration=Mode), "monitor", Mode.MONITOR),
        (REQUEST, "tgs_req", MessageKind.TGS_REQ),
        (seconds(60), 7, 7.0),
        (LETTER, "a", "A"),
        (ListOf(item=LETTER, remedy=""), ["b", "a"], ("B", "A")),
        (ListOf(item=LETTER, remedy=""), [], ()),
    ],
)
def test_good_value_is_read(kind: Kind[object], value: object, expected: object) -> None:
    read = kind.read(value, "key")
    assert (read, type(read)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        (Flag(), "yes", 'key: "yes" is text; write true or false'),
        (Flag(), 1, "key: 1 is a whole number; write true or false"),
        (BYTES, True, "key: true is a boolean; write a whole number of bytes from 1 to 9"),
        (BYTES, 1.0, "key: 1.0 is a fractional number; write a whole number of bytes from 1 to 9"),
        (BYTES, 0, "key: 0 is too small; write a whole number of bytes from 1 to 9"),
        (BYTES, 10, "key: 10 is too large; write a whole number of bytes from 1 to 9"),
        (SECONDS, False, "key: false is a boolean; write a number of seconds from 0.1 to 60"),
        (SECONDS, 0, "key: 0 is too small; write a number of seconds from 0.1 to 60"),
        (SECONDS, float("inf"), "key: inf is too large; write a number of seconds from 0.1 to 60"),
        (SECONDS, float("nan"), "key: nan is too large; write a number of seconds from 0.1 to 60"),
        (Choice(words=("a", "b")), "A", 'key: "A" is not one of its values; write "a" or "b"'),
        (Choice(words=("a", "b", "c")), "", 'key: "" is not one of its values; write "a", "b" or "c"'),
        (Choice(words=("a", "b")), 1.2, 'key: 1.2 is a fractional number; write "a" or "b"'),
        (REQUEST, "as_rep", 'key: "as_rep" is not one of its values; write "as_req" or "tgs_req"'),
        (REQUEST, "AS_REQ", 'key: "AS_REQ" is not one of its values; write "as_req" or "tgs_req"'),
        (
            Member(enumeration=Mode),
            True,
            'key: true is a boolean; write "off", "monitor" or "enforce"',
        ),
        (seconds(60, minimum=1), 0.5, "key: 0.5 is too small; write a number of seconds from 1 to 60"),
        (LETTER, datetime.date(2026, 1, 2), 'key: "2026-01-02" is a date or time; write a letter'),
        (LETTER, [], "key: is a list; write a letter"),
        (LETTER, {}, "key: is a table; write a letter"),
        (LETTER, "x", 'key: "x" is an x; write a letter'),
        (LETTER, "y", 'key: "y" is a y; write a z'),
        (ListOf(item=LETTER, remedy="write letters"), "a", 'key: "a" is text; write letters'),
        (ListOf(item=LETTER, remedy="write letters", may_be_empty=False), [], "key: is empty; write letters"),
        (
            ListOf(item=LETTER, remedy="write letters", at_most=2),
            ["a", "b", "c"],
            "key: has 3 entries; leave at most 2",
        ),
    ],
)
def test_bad_value_is_refused_with_what_to_write(kind: Kind[object], value: object, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind.read(value, "key")
    assert str(caught.value) == line


def test_every_bad_item_of_a_list_is_told() -> None:
    with pytest.raises(ConfigError) as caught:
        ListOf(item=LETTER, remedy="").read(["x", "a", "y"], "key")
    assert [problem.key for problem in caught.value.problems] == ["key[0]", "key[2]"]


def test_rule_of_a_list_sees_the_items_that_could_be_read() -> None:
    def find_problem(items: Mapping[str, Any]) -> Iterator[ConfigProblem]:
        yield ConfigProblem(key="rule", problem=repr(dict(items)), remedy="")

    with pytest.raises(ConfigError) as caught:
        ListOf(item=LETTER, remedy="", rule=find_problem).read(["x", "a"], "key")
    assert caught.value.problems[1].problem == "{'key[1]': 'A'}"


def test_only_config_errors_are_collected() -> None:
    problems: list[ConfigProblem] = []
    with pytest.raises(SettingError), collected(problems):
        raise SettingError("not collected")
    assert not problems
