"""Keeps short-lived notes, each a number under a key, in memory that all processes of the host share.

The memory has one size for ever and no lock, so a killed process cannot leave it locked. A note is four words
of 8 bytes: the key's digest, the time at which the note ends, the number, and a checksum over these three.
Two processes that write to one place at the same moment may mix their words; then the checksum is wrong, and
both notes are lost. So a note may be lost at any time, and is never wrong.

Digests are keyed with a secret: a stranger can neither read names from the memory nor aim at another's note.
"""

import hashlib
import mmap
import struct
from zlib import crc32

__all__ = ["SECRET_BYTES", "SharedNotes", "make_memory"]

SECRET_BYTES = 16

NOTES = 16384
"""512 KiB. Ten a second that last ten minutes are 6,000."""

WAYS = 8
"""The places in which a note may be. The oldest note of the eight gives way to a new one."""

NOTE_BYTES = 32
HEADER_BYTES = 64
"""The secret, and the time at which the last note ends."""

_note = struct.Struct("=QdQQ")
_summed = struct.Struct("=QdQ")
_end = struct.Struct("=d")


def make_memory(secret: bytes, notes: int = NOTES) -> mmap.mmap:
    """Make the memory, which processes that are forked afterwards share; `secret` is 16 random bytes."""
    if notes % WAYS or len(secret) != SECRET_BYTES:
        raise ValueError(f"{notes} is no multiple of {WAYS}, or the secret hasn't {SECRET_BYTES} bytes")
    memory = mmap.mmap(-1, HEADER_BYTES + notes * NOTE_BYTES)
    memory[:SECRET_BYTES] = secret
    return memory


class SharedNotes:
    """The notes in such a memory. Each process makes its own view of it."""

    __slots__ = ("_buckets", "_memory", "_secret")

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._secret = memory[:SECRET_BYTES]
        self._buckets = (len(memory) - HEADER_BYTES) // (WAYS * NOTE_BYTES)

    def key(self, *parts: str) -> int:
        """Return the key that these texts make: 64 bits, which tell nothing about them."""
        text = self._secret + "\0".join(parts).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

    def is_empty(self, now: float) -> bool:
        """Whether no note holds any more: most of the time, and then no key has to be made."""
        return bool(now >= _end.unpack_from(self._memory, SECRET_BYTES)[0])

    def write(self, key: int, number: int, ends: float) -> None:
        """Note a number of 64 bits under the key until `ends`; an earlier note of the key is replaced."""
        at = self._place(key)
        checksum = crc32(_summed.pack(key, ends, number))
        _note.pack_into(self._memory, at, key, ends, number, checksum)
        if ends > _end.unpack_from(self._memory, SECRET_BYTES)[0]:
            _end.pack_into(self._memory, SECRET_BYTES, ends)

    def read(self, key: int, now: float) -> int | None:
        """Return the number under the key, if there is a note and it hasn't ended."""
        for at in self._places(key):
            found, ends, number, checksum = _note.unpack_from(self._memory, at)
            if found == key and now < ends and checksum == crc32(_summed.pack(key, ends, number)):
                return int(number)
        return None

    def _places(self, key: int) -> range:
        first = HEADER_BYTES + key % self._buckets * WAYS * NOTE_BYTES
        return range(first, first + WAYS * NOTE_BYTES, NOTE_BYTES)

    def _place(self, key: int) -> int:
        """Return the place of the key's note, else that of the note which ends first."""

        def rank(at: int) -> float:
            found, ends, _, _ = _note.unpack_from(self._memory, at)
            return -1.0 if found == key else ends

        return min(self._places(key), key=rank)
