import mmap
import os

import pytest

from kkdcpd.shared_memory.areas import Area, make_area, make_areas, whole_pages


def test_areas_have_their_sizes_and_share_no_byte() -> None:
    first, second = make_areas(10, 5000)
    assert [len(area.memory) for area in (first, second)] == [10, 5000]
    first.memory[:] = b"x" * 10
    assert not any(second.memory)


def test_forked_process_and_its_parent_see_the_same_bytes() -> None:
    area = make_area(8)
    child = os.fork()
    if not child:
        area.memory[0] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert area.memory[0] == 7


def test_areas_begin_on_pages_so_that_each_may_be_read_as_words() -> None:
    for area in make_areas(1, 8, mmap.PAGESIZE + 8):
        words = len(area.memory) // 8 * 8
        area.memory[:words].cast("Q")


@pytest.mark.parametrize(("size", "pages"), [(0, 0), (1, 1), (mmap.PAGESIZE, 1), (mmap.PAGESIZE + 1, 2)])
def test_whole_pages_hold_the_size(size: int, pages: int) -> None:
    assert whole_pages(size) == pages * mmap.PAGESIZE


def test_digest_depends_on_the_secret_and_on_each_text() -> None:
    area = make_area(8)
    digests = {
        area.digest("user", "alice"),
        area.digest("usera", "lice"),
        area.digest("user", "bob"),
        area.digest("user", "\udcff"),
        area.digest(),
        Area(memory=area.memory, secret=bytes(16)).digest("user", "alice"),
    }
    assert len(digests) == 6
    assert area.digest("user", "alice") in digests
    assert all(0 <= digest < 1 << 64 for digest in digests)


def test_each_start_of_the_service_has_its_own_secret_and_the_memory_does_not_hold_it() -> None:
    areas = [make_area(4096) for _ in range(2)]
    assert areas[0].secret != areas[1].secret
    assert not any(any(area.memory) for area in areas)
