import os
import random
import struct

import pytest

from kkdcpd.shared_memory.areas import Area, make_area
from kkdcpd.shared_memory.notes import HEADER_BYTES, NOTE_BYTES, NOTES, WAYS, Notes, notes_bytes

NOW = 1000.0
FORKED_NOTE = 77


@pytest.fixture
def area() -> Area:
    return make_area(notes_bytes())


@pytest.fixture
def notes(area: Area) -> Notes:
    return Notes(area)


def test_note_is_read_until_it_ends(notes: Notes) -> None:
    key = notes.key("user", "KK.TEST", "alice")
    notes.write(key, 2**64 - 1, NOW + 10)
    assert notes.read(key, NOW + 9.9) == 2**64 - 1
    assert notes.read(key, NOW + 10) is None


def test_memory_holds_no_names(area: Area, notes: Notes) -> None:
    notes.write(notes.key("user", "KK.TEST", "alice"), notes.key("network", "192.0.2.1"), NOW + 10)
    content = area.memory.tobytes()
    assert not any(text in content for text in (b"alice", b"KK.TEST", b"192.0.2"))


def test_later_note_replaces_the_earlier_one_of_its_key(notes: Notes) -> None:
    key = notes.key("user", "alice")
    notes.write(key, 1, NOW + 20)
    notes.write(key, 2, NOW + 10)
    assert notes.read(key, NOW) == 2
    assert notes.read(key, NOW + 15) is None


def test_notes_are_empty_before_the_first_note_and_after_the_last(notes: Notes) -> None:
    assert notes.is_empty(NOW)
    notes.write(notes.key("a"), 1, NOW + 20)
    notes.write(notes.key("b"), 1, NOW + 10)
    assert not notes.is_empty(NOW + 19)
    assert notes.is_empty(NOW + 20)


def test_another_process_sees_the_note(area: Area, notes: Notes) -> None:
    key = notes.key("user", "alice")
    child = os.fork()
    if not child:
        Notes(area).write(key, FORKED_NOTE, NOW + 10)
        os._exit(0)
    os.waitpid(child, 0)
    assert notes.read(key, NOW) == FORKED_NOTE


def test_note_that_ends_first_is_evicted_from_a_full_bucket() -> None:
    notes = Notes(make_area(notes_bytes(WAYS)))
    keys = [notes.key(str(number)) for number in range(WAYS + 1)]
    for age, key in enumerate(keys):
        notes.write(key, age, NOW + age)
    assert [notes.read(key, NOW - 1) for key in keys] == [None, *range(1, WAYS + 1)]


def test_note_that_two_processes_wrote_at_once_is_lost_and_never_wrong(area: Area) -> None:
    notes = Notes(area)
    ours, theirs = notes.key("ours"), notes.key("theirs")
    first = struct.pack("=QdQ", ours, NOW + 10, 1)
    notes.write(ours, 1, NOW + 10)
    at = area.memory.tobytes().find(first)
    mixed = struct.pack("=QdQ", ours, NOW + 10, 2)  # the number of another process under the same key
    area.memory[at : at + len(mixed)] = mixed
    assert notes.read(ours, NOW) is None
    assert notes.read(theirs, NOW) is None
    notes.write(ours, 3, NOW + 10)
    assert notes.read(ours, NOW) == 3


def test_number_of_notes_must_fill_whole_buckets() -> None:
    with pytest.raises(ValueError, match="multiple"):
        notes_bytes(WAYS + 1)


def test_state_stays_bounded_under_a_million_networks(area: Area, notes: Notes) -> None:
    """The area keeps its size, and the latest notes are still there."""
    chance = random.Random(1)
    size = len(area.memory)
    # As many keys as networks make: a key is 64 bits of a digest.
    keys = [chance.getrandbits(64) for _ in range(1_000_000)]
    for number, key in enumerate(keys):
        notes.write(key, number, NOW + number / 1000)
    assert len(area.memory) == size == HEADER_BYTES + NOTES * NOTE_BYTES
    latest = keys[-NOTES // 4 :]
    held = sum(notes.read(key, NOW) is not None for key in latest)
    assert held > 0.99 * len(latest)
