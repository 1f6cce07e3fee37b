"""One record, two entries: the line and the counts."""

import logging
from dataclasses import replace

import pytest

from kkdcpd.ledger import Ledger
from kkdcpd.metrics.columns import FIXED, REQUEST_SECONDS, REQUESTS
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import make_metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.values import Outcome, RequestResult
from tests.test_journal import RECORD

UNREAD = replace(RECORD, request=None, served=RequestResult(outcome=Outcome.MALFORMED_HTTP), status=400)


def test_every_exchange_is_a_line_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kkdcpd")
    metrics = make_metrics(1)
    metrics.take_row(0)
    ledger = Ledger(Counters(metrics.row(0)))
    for record in (RECORD, RECORD, UNREAD):
        ledger.enter(record)
    assert [line.message for line in caplog.records] == ["exchange"] * 3
    reader = MetricsReader(metrics)
    counts = {
        (realm, *labels): count
        for realm, words in reader.realms().items()
        for labels, count in zip(REQUESTS.series, words, strict=True)
        if count
    }
    assert counts == {("EXAMPLE.COM", "answered", "AS_REQ"): 2, ("", "malformed_http", ""): 1}
    # 1.25 ms: the third bucket of the first kind.
    assert reader.fixed()[FIXED[REQUEST_SECONDS] + 2] == 2
