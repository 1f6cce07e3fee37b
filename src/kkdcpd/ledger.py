"""Where every exchange is entered when it has ended, once: its log line and its counts are of one record."""

from kkdcpd import journal
from kkdcpd.journal import ExchangeRecord
from kkdcpd.metrics.counters import Counters

__all__ = ["Ledger"]


class Ledger:
    """Enters exchanges, however they ended."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters

    def enter(self, record: ExchangeRecord) -> None:
        """Write the line, and count."""
        journal.write(record)
        kind = record.request.kind if record.request else None
        self._counters.request_ended(record.served, kind, record.milliseconds / 1000)
