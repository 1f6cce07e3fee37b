import os
import resource
import signal

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.columns import CONNECTIONS_OPEN, FIXED, HEDGES
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics, RowLayout, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.values import KdcState

KDC = KdcEndpoint(name="kdc1.example.com", address="192.0.2.1", port=88, transport=Transport.TCP)


def test_counters_outlive_a_worker_process_and_gauges_do_not() -> None:
    metrics = make_metrics(2)
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


def test_gauges_are_zero_when_a_row_is_taken() -> None:
    metrics = make_metrics(1)
    Counters(metrics.row(0)).connections_are(7)
    metrics.take_row(0)
    assert MetricsReader(metrics).value(CONNECTIONS_OPEN) == 0


def test_no_count_of_any_process_is_lost_and_a_kill_costs_one_at_most() -> None:
    metrics = make_metrics(4)
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


def test_unused_rows_take_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    metrics = make_metrics(64)
    assert metrics.words.nbytes > 64 * 1024 * 1024
    reader = MetricsReader(metrics)
    Counters(metrics.take_row(0)).hedged()
    for look in (reader.fixed, reader.realms, reader.kdcs):
        look()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 200


def test_rows_have_the_entries_of_their_layout() -> None:
    layout = RowLayout(realm_entries=4, kdc_entries=3, branch_kdc_entries=2)
    row = make_metrics(2, layout).row(1)
    for table, free in ((row.realms, 3), (row.kdcs, 2), (row.branch_kdcs, 1)):
        used = [table.index(str(number)) for number in range(free)]
        assert table.is_full
        assert table.other not in used
    assert len({row.realms.other, row.kdcs.other, row.branch_kdcs.other}) == 3
