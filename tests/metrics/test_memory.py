"""Rows and slots: who has them, that they outlive who counted, and that they have an end."""

import os
import resource
import signal

import pytest

from kkdcpd.metrics.columns import CONNECTIONS_OPEN, FIXED, HEDGES
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics, Slots, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.values import KdcEndpoint, KdcState, Transport

KDC = KdcEndpoint(name="kdc1.example.com", address="192.0.2.1", port=88, transport=Transport.TCP)


@pytest.fixture
def slots() -> Slots:
    return make_metrics(rows=1, realm_slots=4).row(0).realms


def test_name_keeps_its_slot(slots: Slots) -> None:
    first, second = slots.place("EXAMPLE.COM"), slots.place("")
    assert first != second
    assert [slots.place(name) for name in ("EXAMPLE.COM", "")] == [first, second]
    assert list(slots) == [("EXAMPLE.COM", first), ("", second)]


def test_successor_finds_the_names() -> None:
    metrics = make_metrics(rows=1, realm_slots=4)
    before = [metrics.row(0).realms.place(name) for name in ("EXAMPLE.COM", "BÜCHER.EXAMPLE")]
    names = [metrics.row(0).realms.place(name) for name in ("EXAMPLE.COM", "BÜCHER.EXAMPLE", "NEW")]
    assert names[:2] == before
    assert names[2] not in before


def test_what_has_no_slot_is_other(slots: Slots) -> None:
    places = {slots.place(name) for name in ("A", "B", "C")}
    assert slots.is_full
    assert slots.other not in places
    assert slots.place("D") == slots.place("E") == slots.other
    assert slots.place("A") in places


def test_name_too_long_for_a_slot_is_other(slots: Slots) -> None:
    assert slots.place("A" * 265) == slots.other
    assert slots.place("A" * 264) != slots.other


def test_slot_that_was_not_finished_is_nobodys() -> None:
    """As a kill -9 leaves it: the name is written, its length isn't."""
    metrics = make_metrics(rows=1, realm_slots=4)
    row = metrics.row(0)
    at = row.realms.place("KILLED.EXAMPLE")
    metrics.words[at - 264 // 8 - 1] = 0
    assert list(metrics.row(0).realms) == []
    assert metrics.row(0).realms.place("NEXT") == at


def test_counters_stay_and_gauges_go_with_their_worker() -> None:
    metrics = make_metrics(rows=2)
    counters = Counters(metrics.take_row(0))
    counters.hedged()
    counters.connections_are(7)
    counters.kdc_changed(KDC, KdcState.DOWN)
    reader = MetricsReader(metrics)
    assert (reader.value(CONNECTIONS_OPEN), reader.kdc_states()) == (7, {KDC: KdcState.DOWN})
    metrics.clear_gauges(0)
    assert (reader.value(CONNECTIONS_OPEN), reader.kdc_states()) == (0, {KDC: KdcState.HEALTHY})
    Counters(metrics.take_row(0)).hedged()
    assert reader.value(HEDGES) == 2


def test_row_is_clean_when_it_is_taken() -> None:
    metrics = make_metrics(rows=1)
    Counters(metrics.row(0)).connections_are(7)
    metrics.take_row(0)
    assert MetricsReader(metrics).value(CONNECTIONS_OPEN) == 0


def test_every_count_of_every_process_is_there_and_a_kill_costs_one_at_most() -> None:
    metrics = make_metrics(rows=4)
    count = 20000
    children = [_fork(row, count, metrics) for row in range(3)]
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    killed = _fork(3, 1 << 30, metrics)
    at = metrics.row(3).first + FIXED[HEDGES]
    while metrics.words[at] < 1000:
        pass
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    before = metrics.words[at]
    metrics.clear_gauges(3)
    Counters(metrics.take_row(3)).hedged()
    assert metrics.words[at] == before + 1
    assert MetricsReader(metrics).value(HEDGES) == 3 * count + before + 1


def _fork(row: int, count: int, metrics: Metrics) -> int:
    child = os.fork()
    if child:
        return child
    counters = Counters(metrics.take_row(row))
    for _ in range(count):
        counters.hedged()
    os._exit(0)


def test_memory_that_is_not_counted_in_has_no_pages() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    metrics = make_metrics()
    assert metrics.words.nbytes > 64 * 1024 * 1024
    reader = MetricsReader(metrics)
    Counters(metrics.take_row(0)).hedged()
    for look in (reader.fixed, reader.realms, reader.kdcs):
        look()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 200
