"""The table of entries: eviction, and writes of several processes to one entry."""

import pytest

from kkdcpd.shared_memory.areas import Area, make_area
from kkdcpd.shared_memory.entries import (
    ENTRY_BYTES,
    LONGEST_KNOWN,
    MOST_KNOWN,
    NO_ENTRY,
    VALUE_END,
    EntryTable,
    Name,
    entries_bytes,
)

NOW = 5000.0
KEY = ("name", "192.0.2.1")


@pytest.fixture
def area() -> Area:
    return make_area(entries_bytes(1024))


@pytest.fixture
def table(area: Area) -> EntryTable:
    return EntryTable(area)


def names_of_one_bucket(table: EntryTable, count: int) -> list[Name]:
    names = (table.passing_name(("name", str(number))) for number in range(1_000_000))
    first = table.passing_name(("name", "0")).first
    found = (name for name in names if name.first == first)
    return [next(found) for _ in range(count)]


def put(table: EntryTable, name: Name, now: float, expires: float) -> int:
    at = table.claim(name, now)
    table.keep(at, now, expires)
    return at


def held(table: EntryTable, names: list[Name]) -> list[int]:
    """The numbers of the names that have an entry."""
    return [number for number, name in enumerate(names) if table.find(name)[0] != NO_ENTRY]


@pytest.mark.parametrize("entries", [8, 1024, 65536])
def test_area_has_the_size_of_its_entries_and_one_word(entries: int) -> None:
    assert entries_bytes(entries) == entries * ENTRY_BYTES + 8


@pytest.mark.parametrize("entries", [0, 12])
def test_entries_must_fill_whole_buckets(entries: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        entries_bytes(entries)


def test_bucket_of_a_key_depends_on_the_secret() -> None:
    tables = [EntryTable(make_area(entries_bytes(65536))) for _ in range(20)]
    assert len({table.names[KEY].first for table in tables}) > 15


def test_key_has_no_entry_before_it_claims_one(table: EntryTable) -> None:
    name = table.names[KEY]
    assert table.find(name) == (NO_ENTRY, 0)
    at = table.claim(name, NOW)
    assert table.find(name) == (at, 0)


def test_every_process_finds_a_value(area: Area, table: EntryTable) -> None:
    name = table.names[KEY]
    at = table.claim(name, NOW)
    for number in range(4):
        table.write(name, at, number, VALUE_END - 1 - number)
    other = EntryTable(area)
    found = [other.find(other.names[KEY], number) for number in range(4)]
    assert found == [(at, VALUE_END - 1 - number) for number in range(4)]


def test_number_of_known_keys_and_their_length_are_limited(table: EntryTable) -> None:
    for number in range(3 * MOST_KNOWN):
        table.names["name", str(number)].seen[0] = number
    assert len(table.names) <= MOST_KNOWN
    long = table.names[("name", "x" * (LONGEST_KNOWN + 1))]
    assert long is not table.names[("name", "x" * (LONGEST_KNOWN + 1))]
    assert table.names[KEY] is table.names[KEY]


def test_expired_entry_is_evicted_first(table: EntryTable) -> None:
    *names, late = names_of_one_bucket(table, 9)
    for number, name in enumerate(names):
        put(table, name, NOW, NOW + (10 if number == 3 else 600))
    put(table, late, NOW + 20, NOW + 600)
    assert held(table, [*names, late]) == [0, 1, 2, 4, 5, 6, 7, 8]


def test_entry_that_was_unused_for_longest_is_evicted_then(table: EntryTable) -> None:
    *names, late = names_of_one_bucket(table, 9)
    for seconds, name in enumerate(names):
        put(table, name, NOW + seconds, NOW + 600)
    table.keep(table.find(names[0])[0], NOW + 20, NOW + 600)
    put(table, late, NOW + 21, NOW + 600)
    assert held(table, [*names, late]) == [0, 2, 3, 4, 5, 6, 7, 8]


def test_guarded_entry_is_evicted_only_for_another_guarded_entry(table: EntryTable) -> None:
    names = names_of_one_bucket(table, 200)
    for seconds, name in enumerate(names[:7]):
        table.guard(put(table, name, NOW, NOW + 600), NOW + 60 + seconds)
    for name in names[9:]:
        put(table, name, NOW + 10, NOW + 600)
    assert held(table, names[:7]) == [0, 1, 2, 3, 4, 5, 6]
    for name in names[7:9]:
        table.guard(put(table, name, NOW + 10, NOW + 600), NOW + 90)
    assert held(table, names[:9]) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_outdated_write_of_a_process_that_slept_reverts_no_count(area: Area, table: EntryTable) -> None:
    name = table.names[KEY]
    at = table.claim(name, NOW)
    table.write(name, at, 0, 10)
    stale = area.memory.tobytes()
    table.write(name, at, 0, 500)
    area.memory[:] = stale
    assert table.find(name) == (at, 500)
    assert table.values(name, at) == [500, 0, 0, 0]
    assert table.add(name, at, 0, 0, 1) == 501


def test_processes_that_claim_two_entries_for_one_key_agree_on_one(area: Area, table: EntryTable) -> None:
    late, quick = table, EntryTable(area)
    *others, key_of_late, newcomer = names_of_one_bucket(late, 10)
    key_of_quick = names_of_one_bucket(quick, 9)[-1]
    for expires, other in zip((2, 1, *range(3, 9)), others, strict=True):
        put(late, other, NOW, NOW + expires)
    later = NOW + 10
    # The late process has found no entry. Before it claims one, the quick process claims one and finds it.
    put(quick, key_of_quick, later, later + 600)
    found, _ = quick.find(key_of_quick)
    put(late, key_of_late, later, later + 600)
    assert late.find(key_of_late)[0] == quick.find(key_of_quick)[0] < found
    assert late.claim(newcomer, later) == found  # It is free again.


def test_process_that_lost_an_entry_to_another_key_finds_none_of_its_values(
    area: Area, table: EntryTable
) -> None:
    loser, winner = names_of_one_bucket(table, 2)
    at = put(table, loser, NOW, NOW + 600)
    for number in range(4):
        table.write(loser, at, number, 900)
    table.words[at] = winner.digest
    other = EntryTable(area)
    assert [other.find(winner, number) for number in range(4)] == [(at, 0)] * 4
    assert other.values(winner, at) == [0] * 4


def test_value_is_raised_before_it_is_added_to(area: Area, table: EntryTable) -> None:
    name = table.names[KEY]
    at = table.claim(name, NOW)
    assert table.add(name, at, 1, 100, 5) == 105
    assert table.add(name, at, 1, 50, 5) == 110
    other = EntryTable(area)
    assert other.values(other.names[KEY], at) == [0, 110, 0, 0]


def test_process_restores_its_guard_after_another_process_overwrote_it(area: Area) -> None:
    one, other = EntryTable(area), EntryTable(area)
    one.guard(one.claim(one.names["a",], NOW), NOW + 60)
    # The other process had read the time before the first process wrote it.
    area.memory.cast("d")[-1] = NOW + 20
    assert one.has_guarded(NOW + 30)
    assert other.has_guarded(NOW + 30)


def test_all_processes_see_until_when_any_entry_is_guarded(area: Area) -> None:
    one, other = EntryTable(area), EntryTable(area)
    assert not other.has_guarded(0.0)
    for key, until in (("a", NOW + 60), ("b", NOW + 20)):
        one.guard(put(one, one.names[key,], NOW, NOW + 600), until)
    assert other.has_guarded(NOW + 59)
    assert not other.has_guarded(NOW + 60)
