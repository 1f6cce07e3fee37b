"""Keeps short-lived notes, each a number under a key, for all processes.

A note is four words of 8 bytes: its key, the time at which the note ends, the number, and a checksum over
these three. Two processes that write to one position at the same moment may mix their words. Then the
checksum is wrong, and both notes are lost. So a note may be lost at any time, and is never wrong.
"""

import struct
from zlib import crc32

from kkdcpd.shared_memory.areas import Area

__all__ = ["Notes", "notes_bytes"]

NOTES = 16384
"""512 KiB. Ten notes a second that last ten minutes are 6,000."""

WAYS = 8
"""The positions in which a note may be. A new note replaces the first note to end."""

NOTE_BYTES = 32
HEADER_BYTES = 64
"""The time at which the last note ends, and space up to a whole cache line."""

_note = struct.Struct("=QdQQ")
_summed = struct.Struct("=QdQ")
_end = struct.Struct("=d")


def notes_bytes(notes: int = NOTES) -> int:
    """Return the size of an area for as many notes.

    Raises:
        ValueError: it is no multiple of 8.
    """
    if notes % WAYS:
        raise ValueError(f"{notes} is no multiple of {WAYS}")
    return HEADER_BYTES + notes * NOTE_BYTES


class Notes:
    """One process's view of the notes in an area."""

    __slots__ = ("_buckets", "_memory", "key")

    def __init__(self, area: Area) -> None:
        self._memory = area.memory
        self._buckets = (len(area.memory) - HEADER_BYTES) // (WAYS * NOTE_BYTES)
        self.key = area.digest
        """Return the key of some texts."""

    def is_empty(self, now: float) -> bool:
        """Whether all notes have ended. Then a caller need not make a key."""
        return bool(now >= _end.unpack_from(self._memory)[0])

    def write(self, key: int, number: int, ends: float) -> None:
        """Note a number of 64 bits under the key until `ends`, in place of the key's earlier note."""
        at = self._position(key)
        checksum = crc32(_summed.pack(key, ends, number))
        _note.pack_into(self._memory, at, key, ends, number, checksum)
        if ends > _end.unpack_from(self._memory)[0]:
            _end.pack_into(self._memory, 0, ends)

    def read(self, key: int, now: float) -> int | None:
        """Return the number under the key, or None if there is no note or it has ended."""
        for at in self._positions(key):
            found, ends, number, checksum = _note.unpack_from(self._memory, at)
            if found == key and now < ends and checksum == crc32(_summed.pack(key, ends, number)):
                return int(number)
        return None

    def _positions(self, key: int) -> range:
        first = HEADER_BYTES + key % self._buckets * WAYS * NOTE_BYTES
        return range(first, first + WAYS * NOTE_BYTES, NOTE_BYTES)

    def _position(self, key: int) -> int:
        """Return the position of the key's note, else of the note that ends first."""

        def rank(at: int) -> float:
            found, ends, _, _ = _note.unpack_from(self._memory, at)
            return -1.0 if found == key else ends

        return min(self._positions(key), key=rank)
