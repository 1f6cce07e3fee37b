from types import SimpleNamespace

from kkdcpd.config.rules import in_order, items_differ


def test_equal_items_are_told_each_with_the_first() -> None:
    found = items_differ({"key[0]": "a", "key[1]": "b", "key[2]": "a", "key[3]": "a"})
    assert list(map(str, found)) == [
        "key[2]: is the same as key[0]; remove one of them",
        "key[3]: is the same as key[0]; remove one of them",
    ]


def test_longer_than_its_pair_is_told() -> None:
    section = SimpleNamespace(first=1, second=1.5, third=1)
    found = in_order(section, "section", [("first", "second"), ("second", "third"), ("first", "third")])
    assert list(map(str, found)) == [
        "section.second: 1.5 seconds is longer than third, which is 1; write 1 or less, or raise third"
    ]
