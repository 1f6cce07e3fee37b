import pytest

from kkdcpd.shared_memory.areas import make_area
from kkdcpd.shared_memory.name_table import NameTable, TableShape

SHAPE = TableShape(first=3, entries=4, name_words=33, value_words=2)
ROW = 5


@pytest.fixture
def words() -> memoryview:
    return make_area((ROW + SHAPE.end) * 8).memory.cast("Q")


@pytest.fixture
def table(words: memoryview) -> NameTable:
    return NameTable(words, ROW, SHAPE)


def test_name_keeps_its_entry(table: NameTable) -> None:
    first, second = table.index("EXAMPLE.COM"), table.index("")
    assert first != second
    assert [table.index(name) for name in ("EXAMPLE.COM", "")] == [first, second]
    assert list(table) == [("EXAMPLE.COM", first), ("", second)]


def test_next_process_of_the_row_finds_the_names(words: memoryview, table: NameTable) -> None:
    before = [table.index(name) for name in ("EXAMPLE.COM", "BÜCHER.EXAMPLE")]
    successor = NameTable(words, ROW, SHAPE)
    names = [successor.index(name) for name in ("EXAMPLE.COM", "BÜCHER.EXAMPLE", "NEW")]
    assert names[:2] == before
    assert names[2] not in before


def test_names_beyond_the_last_entry_share_other(table: NameTable) -> None:
    entries = {table.index(name) for name in ("A", "B", "C")}
    assert table.is_full
    assert table.other not in entries
    assert table.index("D") == table.index("E") == table.other
    assert table.index("A") in entries


def test_name_too_long_for_an_entry_is_other(table: NameTable) -> None:
    assert table.index("A" * 265) == table.other
    assert table.index("A" * 264) != table.other


def test_values_of_all_entries_lie_in_the_table_and_share_no_word(table: NameTable) -> None:
    entries = [table.other, *(table.index(name) for name in ("A", "B", "C"))]
    values = [word for first in entries for word in range(first, first + SHAPE.value_words)]
    assert len(set(values)) == len(values)
    assert all(ROW + SHAPE.first <= word < ROW + SHAPE.end for word in values)


def test_entry_without_its_length_is_free(words: memoryview, table: NameTable) -> None:
    """A kill -9 can leave an entry with a name and without its length."""
    index = table.index("KILLED.EXAMPLE")
    words[index - SHAPE.name_words - 1] = 0
    successor = NameTable(words, ROW, SHAPE)
    assert list(successor) == []
    assert successor.index("NEXT") == index
