from dataclasses import fields

from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.shared_memory.network_counts import NetworkCounts


def test_every_area_has_room_for_what_is_asked() -> None:
    memory = SharedMemory.make(guard_entries=1024, metrics_bytes=5000, rows=2)
    assert len(memory.guard.memory) == 1024 * 64 + 8
    assert len(memory.metrics.memory) == 5000
    assert len(memory.connections.memory) == len(memory.requests.memory)


def test_areas_are_apart() -> None:
    memory = SharedMemory.make(guard_entries=8, metrics_bytes=8, rows=1)
    areas = [getattr(memory, field.name) for field in fields(memory)]
    for number, area in enumerate(areas, start=1):
        area.memory[:] = bytes([number]) * len(area.memory)
    assert [set(area.memory) for area in areas] == [{1}, {2}, {3}, {4}, {5}]


def test_counts_of_an_ended_process_are_cleared_in_both_areas() -> None:
    memory = SharedMemory.make(guard_entries=8, metrics_bytes=8, rows=2)
    areas = memory.connections, memory.requests
    for area in areas:
        NetworkCounts(area, 1).add("192.0.2.1")
    views = [NetworkCounts(area, 0) for area in areas]
    assert [view.total for view in views] == [1, 1]
    memory.clear_counts(1)
    assert [view.total for view in views] == [0, 0]
