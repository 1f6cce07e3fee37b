"""Notes in shared memory: bounded, seen by every process, lost rather than wrong."""

import mmap
import os
import random
import struct

import pytest

from kkdcpd.upstream.shared_notes import (
    HEADER_BYTES,
    NOTE_BYTES,
    NOTES,
    SECRET_BYTES,
    WAYS,
    SharedNotes,
    make_memory,
)

NOW = 1000.0
SECRET = b"secret of a host"
FORKED_NOTE = 77


@pytest.fixture
def memory() -> mmap.mmap:
    return make_memory(SECRET)


@pytest.fixture
def notes(memory: mmap.mmap) -> SharedNotes:
    return SharedNotes(memory)


def test_a_note_is_read_until_it_ends(notes: SharedNotes) -> None:
    key = notes.key("user", "KK.TEST", "alice")
    notes.write(key, 2**64 - 1, NOW + 10)
    assert notes.read(key, NOW + 9.9) == 2**64 - 1
    assert notes.read(key, NOW + 10) is None


def test_keys_of_different_texts_differ_and_tell_nothing_without_the_secret(notes: SharedNotes) -> None:
    other_host = SharedNotes(make_memory(b"another secret.."))
    keys = {
        notes.key("user", "alice"),
        notes.key("usera", "lice"),
        notes.key("user", "bob"),
        notes.key("user", "\udcff"),
        other_host.key("user", "alice"),
    }
    assert len(keys) == 5


def test_memory_holds_no_names(memory: mmap.mmap, notes: SharedNotes) -> None:
    notes.write(notes.key("user", "KK.TEST", "alice"), notes.key("network", "192.0.2.1"), NOW + 10)
    content = memory[:]
    assert not any(text in content for text in (b"alice", b"KK.TEST", b"192.0.2"))


def test_a_later_note_replaces_the_earlier_one_of_its_key(notes: SharedNotes) -> None:
    key = notes.key("user", "alice")
    notes.write(key, 1, NOW + 20)
    notes.write(key, 2, NOW + 10)
    assert notes.read(key, NOW) == 2
    assert notes.read(key, NOW + 15) is None


def test_it_is_empty_before_the_first_note_and_after_the_last(notes: SharedNotes) -> None:
    assert notes.is_empty(NOW)
    notes.write(notes.key("a"), 1, NOW + 20)
    notes.write(notes.key("b"), 1, NOW + 10)
    assert not notes.is_empty(NOW + 19)
    assert notes.is_empty(NOW + 20)


def test_another_process_sees_the_note(memory: mmap.mmap, notes: SharedNotes) -> None:
    key = notes.key("user", "alice")
    child = os.fork()
    if not child:
        SharedNotes(memory).write(key, FORKED_NOTE, NOW + 10)
        os._exit(0)
    os.waitpid(child, 0)
    assert notes.read(key, NOW) == FORKED_NOTE


def test_the_oldest_note_of_a_full_bucket_gives_way() -> None:
    notes = SharedNotes(make_memory(SECRET, WAYS))
    keys = [notes.key(str(number)) for number in range(WAYS + 1)]
    for age, key in enumerate(keys):
        notes.write(key, age, NOW + age)
    assert [notes.read(key, NOW - 1) for key in keys] == [None, *range(1, WAYS + 1)]


def test_what_two_processes_wrote_at_once_is_lost_and_never_wrong(memory: mmap.mmap) -> None:
    notes = SharedNotes(memory)
    ours, theirs = notes.key("ours"), notes.key("theirs")
    first = struct.pack("=QdQ", ours, NOW + 10, 1)
    notes.write(ours, 1, NOW + 10)
    at = memory.find(first)
    mixed = struct.pack("=QdQ", ours, NOW + 10, 2)  # another's number under our key
    memory[at : at + len(mixed)] = mixed
    assert notes.read(ours, NOW) is None
    assert notes.read(theirs, NOW) is None
    notes.write(ours, 3, NOW + 10)
    assert notes.read(ours, NOW) == 3


@pytest.mark.parametrize(("notes", "secret"), [(WAYS + 1, SECRET), (WAYS, b"short")])
def test_a_memory_of_another_form_is_refused(notes: int, secret: bytes) -> None:
    with pytest.raises(ValueError, match="multiple"):
        make_memory(secret, notes)


def test_state_stays_bounded_under_a_million_networks(memory: mmap.mmap, notes: SharedNotes) -> None:
    """The memory keeps its size, and what was noted last is still there."""
    chance = random.Random(1)
    size = len(memory)
    # As many keys as networks make: a key is 64 bits of a digest.
    keys = [chance.getrandbits(64) for _ in range(1_000_000)]
    for number, key in enumerate(keys):
        notes.write(key, number, NOW + number / 1000)
    assert len(memory) == size == HEADER_BYTES + NOTES * NOTE_BYTES
    latest = keys[-NOTES // 4 :]
    held = sum(notes.read(key, NOW) is not None for key in latest)
    assert held > 0.99 * len(latest)


def test_secret_has_the_length_that_is_declared() -> None:
    assert len(SECRET) == SECRET_BYTES
