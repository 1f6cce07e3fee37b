import dataclasses
import os
from collections.abc import Iterator

import pytest

from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.slots import (
    LOAD_DROPPED_SECONDS,
    LONG_LIFE_SECONDS,
    MINIMUM_LIFE_SECONDS,
    RESTART_SECONDS,
    Slot,
)


@pytest.fixture
def child() -> Iterator[Child]:
    ours, theirs = Channel.pair()
    yield Child(name="worker 1", pid=os.getpid(), channel=ours, row=0)
    ours.close()
    theirs.close()


@pytest.fixture
def successor(child: Child) -> Child:
    return dataclasses.replace(child)


def test_repeated_deaths_lengthen_the_backoff(child: Child) -> None:
    slot = Slot(name="worker 1")
    now = child.started_at + 1.0
    for pause in (*RESTART_SECONDS, RESTART_SECONDS[-1]):
        slot.child = child
        slot.remove(child, now)
        assert slot.child is None
        assert slot.start_at == now + pause


def test_child_with_a_long_life_is_replaced_at_once(child: Child) -> None:
    slot = Slot(name="worker 1", deaths=5, child=child)
    now = child.started_at + LONG_LIFE_SECONDS
    slot.remove(child, now)
    assert slot.start_at == now


def test_child_whose_load_dropped_gets_a_successor_after_its_minimum_life(
    child: Child, successor: Child
) -> None:
    slot = Slot(name="worker 1")
    now = child.started_at + MINIMUM_LIFE_SECONDS
    assert slot.needs_child(now)
    slot.add(child)
    assert not slot.needs_child(now)
    child.load_dropped_at = now - 0.1
    assert not slot.needs_child(now - 0.1)
    assert slot.needs_child(now)
    # The load may have grown again.
    assert not slot.needs_child(now + LOAD_DROPPED_SECONDS)
    slot.add(successor)
    assert slot.children == [child, successor]
    assert not slot.needs_child(now)
    slot.retire()
    assert (slot.child, slot.successor, slot.retired) == (successor, None, child)
    assert slot.children == [successor, child]


def test_slot_has_one_retired_child_at_a_time(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=successor, retired=child)
    now = successor.load_dropped_at = successor.started_at + MINIMUM_LIFE_SECONDS
    assert not slot.needs_child(now)
    slot.remove(child, now)
    assert slot.needs_child(now)
    assert slot.deaths == 0


def test_dead_child_is_replaced_while_a_retired_child_finishes(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=successor, retired=child)
    slot.remove(successor, successor.started_at)
    assert slot.needs_child(slot.start_at)
    assert slot.children == [child]


def test_dead_successor_is_replaced_later(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=child, successor=successor, deaths=1)
    now = child.started_at + MINIMUM_LIFE_SECONDS
    child.load_dropped_at = now + RESTART_SECONDS[1]
    slot.remove(successor, now)
    assert slot.child is child
    assert slot.successor is None
    assert not slot.needs_child(now)
    assert slot.needs_child(now + RESTART_SECONDS[1])


def test_successor_replaces_a_child_that_dies(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=child, successor=successor)
    slot.remove(child, child.started_at)
    assert slot.child is successor
    assert slot.successor is None
