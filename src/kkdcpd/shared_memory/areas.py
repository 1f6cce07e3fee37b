"""Makes areas of shared memory, and digests of names with the secret of an area.

The parent process makes the areas before it forks any other process. All processes see each write at once.
The size of an area never changes. There is no lock, because a killed process could leave a lock taken: each
kind of table states which process may write which word, and what a race between two processes can cost.
"""

import hashlib
import mmap
import secrets

from kkdcpd.frozen import frozen

__all__ = ["Area", "make_area", "make_areas", "whole_pages"]

SECRET_BYTES = 16


@frozen
class Area:
    """A part of the shared memory, and the secret of the digests in it.

    The secret is not in the shared bytes: forked processes inherit it. Without it, a client can neither aim
    a name at a position in a table nor find the name of a digest.
    """

    memory: memoryview
    secret: bytes

    def digest(self, *parts: str) -> int:
        """Return a digest of these texts, of 64 bits."""
        # With the secret before the text, a digest takes half the time that BLAKE2b's `key` takes.
        text = self.secret + "\0".join(parts).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def make_areas(*sizes: int) -> tuple[Area, ...]:
    """Make areas of these sizes in bytes, full of zeros. Pages that no process writes to take no memory."""
    memory = memoryview(mmap.mmap(-1, sum(map(whole_pages, sizes))))
    secret = secrets.token_bytes(SECRET_BYTES)
    areas, start = [], 0
    for size in sizes:
        areas.append(Area(memory=memory[start : start + size], secret=secret))
        start += whole_pages(size)
    return tuple(areas)


def make_area(size: int) -> Area:
    """Make a single area."""
    return make_areas(size)[0]


def whole_pages(size: int) -> int:
    """Round a number of bytes up to whole pages."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
