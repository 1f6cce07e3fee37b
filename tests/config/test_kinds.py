import datetime
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config.kinds import (
    Choice,
    File,
    Flag,
    Items,
    Kind,
    ListOf,
    Member,
    Number,
    OrNone,
    Range,
    Text,
    seconds,
)
from kkdcpd.config.problems import Location
from kkdcpd.errors import ConfigError, ConfigProblem, SettingError
from kkdcpd.values import MessageKind, Mode

SECONDS = Number(bounds=seconds(60), is_whole=False)
BYTES = Number(bounds=Range(1, 9, "bytes"))


def _refuse_x(text: str) -> str:
    if text == "x":
        raise SettingError("is an x")
    if text == "y":
        raise SettingError("is a y", "write a z")
    return text.upper()


REQUEST = Member(enumeration=MessageKind, members=(MessageKind.AS_REQ, MessageKind.TGS_REQ))
LETTER = Text(parse=_refuse_x, remedy="write a letter")
WORKERS = OrNone(kind=BYTES, word="auto")
FILE = File("/etc/krb5.conf")
AT = Location(key="key", directory=Path("/etc/kkdcpd"))


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
        (SECONDS, 7, 7.0),
        (LETTER, "a", "A"),
        (FILE, "krb5.conf", Path("/etc/kkdcpd/krb5.conf")),
        (FILE, "/etc/krb5.conf", Path("/etc/krb5.conf")),
        (OrNone(kind=FILE, word=""), "krb5.conf", Path("/etc/kkdcpd/krb5.conf")),
        (OrNone(kind=FILE, word=""), "", None),
        (WORKERS, "auto", None),
        (WORKERS, 3, 3),
        (ListOf(item=LETTER, rules=Items(remedy="")), ["b", "a"], ("B", "A")),
        (ListOf(item=LETTER, rules=Items(remedy="")), [], ()),
    ],
)
def test_good_value_is_read(kind: Kind[object], value: object, expected: object) -> None:
    read = kind.read(value, AT)
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
        (
            Number(bounds=seconds(60, minimum=1), is_whole=False),
            0.5,
            "key: 0.5 is too small; write a number of seconds from 1 to 60",
        ),
        (LETTER, datetime.date(2026, 1, 2), 'key: "2026-01-02" is a date or time; write a letter'),
        (LETTER, [], "key: is a list; write a letter"),
        (LETTER, {}, "key: is a table; write a letter"),
        (LETTER, "x", 'key: "x" is an x; write a letter'),
        (FILE, 1, 'key: 1 is a whole number; write a path such as "/etc/krb5.conf"'),
        (FILE, "a\0b", 'key: "a\\u0000b" is no path; write a path such as "/etc/krb5.conf"'),
        (WORKERS, "many", 'key: "many" is text; write "auto", or a whole number of bytes from 1 to 9'),
        (WORKERS, 10, "key: 10 is too large; write a whole number of bytes from 1 to 9"),
        (LETTER, "y", 'key: "y" is a y; write a z'),
        (ListOf(item=LETTER, rules=Items(remedy="write letters")), "a", 'key: "a" is text; write letters'),
        (
            ListOf(item=LETTER, rules=Items(remedy="write letters", may_be_empty=False)),
            [],
            "key: is empty; write letters",
        ),
        (
            ListOf(item=LETTER, rules=Items(remedy="write letters", at_most=2)),
            ["a", "b", "c"],
            "key: has 3 entries; leave at most 2",
        ),
    ],
)
def test_bad_value_is_refused_with_a_remedy(kind: Kind[object], value: object, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind.read(value, AT)
    assert str(caught.value) == line


def test_every_bad_item_of_a_list_is_a_problem() -> None:
    with pytest.raises(ConfigError) as caught:
        ListOf(item=LETTER, rules=Items(remedy="")).read(["x", "a", "y"], AT)
    assert [problem.key for problem in caught.value.problems] == ["key[0]", "key[2]"]


def test_rule_of_a_list_sees_the_items_that_could_be_read() -> None:
    def find_problem(items: Mapping[str, Any]) -> Iterator[ConfigProblem]:
        yield ConfigProblem(key="rule", problem=repr(dict(items)), remedy="")

    with pytest.raises(ConfigError) as caught:
        ListOf(item=LETTER, rules=Items(remedy="", rule=find_problem)).read(["x", "a"], AT)
    assert caught.value.problems[1].problem == "{'key[1]': 'A'}"


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Flag(), False, "false"),
        (SECONDS, 10.0, "10"),
        (SECONDS, 0.25, "0.25"),
        (REQUEST, MessageKind.AS_REQ, '"as_req"'),
        (Text(parse=lambda text: int(text, 8), remedy="", form="{:04o}".format), 0o660, '"0660"'),
        (FILE, Path("/etc/krb5.conf"), '"/etc/krb5.conf"'),
        (WORKERS, None, '"auto"'),
        (ListOf(item=BYTES, rules=Items(remedy="")), (1, 2), "[1, 2]"),
    ],
)
def test_written_value_is_read_as_the_same_value(kind: Kind[Any], value: object, text: str) -> None:
    assert kind.write(value) == text
    assert kind.read(tomllib.loads(f"key = {text}")["key"], AT) == value
