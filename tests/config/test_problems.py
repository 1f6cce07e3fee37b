from pathlib import Path
from types import SimpleNamespace

import pytest

from kkdcpd.config.problems import Location, collected, in_order, items_differ, join
from kkdcpd.errors import ConfigError, ConfigProblem, SettingError


def test_each_equal_item_is_a_problem_with_the_first() -> None:
    found = items_differ({"key[0]": "a", "key[1]": "b", "key[2]": "a", "key[3]": "a"})
    assert list(map(str, found)) == [
        "key[2]: is the same as key[0]; remove one of them",
        "key[3]: is the same as key[0]; remove one of them",
    ]


def test_setting_longer_than_its_pair_is_a_problem() -> None:
    section = SimpleNamespace(first=1, second=1.5, third=1)
    found = in_order(section, "section", [("first", "second"), ("second", "third"), ("first", "third")])
    assert list(map(str, found)) == [
        "section.second: 1.5 seconds is longer than third, which is 1; write 1 or less, or raise third"
    ]


def test_only_config_errors_are_collected() -> None:
    problems: list[ConfigProblem] = []
    with pytest.raises(SettingError), collected(problems):
        raise SettingError("not collected")
    assert not problems


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


def test_location_below_keeps_the_folder() -> None:
    at = Location(key="realms", directory=Path("/etc")).setting("A.B").setting("kdc").item(2)
    assert at == Location(key='realms."A.B".kdc[2]', directory=Path("/etc"))
    with pytest.raises(ConfigError, match=r'^realms."A.B".kdc\[2\]: is bad; write better$'):
        raise at.error("is bad", "write better")
