"""The sums and states over all rows."""

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.columns import CONNECTIONS_OPEN, HEDGES
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import WORKER_DEATHS, RowLayout, make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.values import KdcState, MessageKind, Outcome, RequestResult

NAMED = KdcEndpoint(name="kdc1.example.com", address="2001:db8::1", port=88, transport=Transport.TCP)
BY_ADDRESS = KdcEndpoint(name="2001:db8::1", address="2001:db8::1", port=1088, transport=Transport.UDP)


def test_rows_are_added_up() -> None:
    metrics = make_metrics(3)
    reader = MetricsReader(metrics)
    for number in range(3):
        metrics.take_row(number)
        counters = Counters(metrics.row(number))
        counters.hedged()
        counters.connections_are(number)
        counters.request_ended(RequestResult(outcome=Outcome.ANSWERED, realm="A"), MessageKind.AS_REQ, 0.1)
        counters.request_ended(RequestResult(outcome=Outcome.ANSWERED, realm=f"B{number}"), None, 0.1)
        counters.kdc_tried(NAMED)
    assert (reader.value(HEDGES), reader.value(CONNECTIONS_OPEN)) == (3, 3)
    assert {name: sum(words) for name, words in reader.realms().items()} == {
        "other": 0,
        "A": 3,
        "B0": 1,
        "B1": 1,
        "B2": 1,
    }
    assert sum(reader.kdcs()[NAMED]) == 3


def test_worst_that_is_known_of_an_endpoint_counts() -> None:
    metrics = make_metrics(3)
    for number, state in enumerate((KdcState.SUSPECT, KdcState.DOWN, KdcState.HEALTHY)):
        metrics.take_row(number)
        Counters(metrics.row(number)).kdc_changed(NAMED, state)
    Counters(metrics.row(0)).kdc_tried(BY_ADDRESS)
    assert MetricsReader(metrics).kdc_states() == {NAMED: KdcState.DOWN, BY_ADDRESS: KdcState.HEALTHY}


def test_unused_row_is_not_read() -> None:
    metrics = make_metrics(2)
    Counters(metrics.row(1)).hedged()
    assert MetricsReader(metrics).value(HEDGES) == 0


def test_realm_with_the_name_other_is_exported_with_the_others() -> None:
    metrics = make_metrics(1, RowLayout(realm_entries=2))
    metrics.take_row(0)
    counters = Counters(metrics.row(0))
    for realm in ("other", "more"):
        counters.request_ended(RequestResult(outcome=Outcome.ANSWERED, realm=realm), None, 0.1)
    assert {name: sum(words) for name, words in MetricsReader(metrics).realms().items()} == {"other": 2}


def test_counts_of_the_parent_are_apart_from_the_rows() -> None:
    metrics = make_metrics(1)
    metrics.add(WORKER_DEATHS)
    assert MetricsReader(metrics).service(WORKER_DEATHS) == 1
    assert not any(MetricsReader(metrics).fixed())
