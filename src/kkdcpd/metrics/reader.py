"""Who reads: all rows added up, and of what tells of the present the worst. It may be any process."""

from operator import add

from kkdcpd.endpoints import KdcEndpoint, unpack_endpoint
from kkdcpd.metrics.columns import FIXED, FIXED_WORDS, KDC_WORDS, REQUEST_WORDS, Family
from kkdcpd.metrics.counters import KDC_STATES
from kkdcpd.metrics.memory import KDC_STATE_WORD, OTHER, Metrics
from kkdcpd.values import KdcState

__all__ = ["MetricsReader"]


class MetricsReader:
    """Reads what has been counted. While it reads, others count: sums of several words are only nearly so."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def fixed(self) -> list[int]:
        """Return the words of `columns.FIXED`."""
        total = [0] * FIXED_WORDS
        for row in self._metrics.used_rows():
            total = list(map(add, total, row.words[row.first : row.first + FIXED_WORDS]))
        return total

    def value(self, family: Family) -> int:
        """Return the one word of a family without labels."""
        return self.fixed()[FIXED[family]]

    def service(self, word: int) -> int:
        """Return a word of the parent's."""
        value: int = self._metrics.words[word]
        return value

    def realms(self) -> dict[str, list[int]]:
        """Return each realm's words; those of requests for no realm that is served are at ""."""
        totals: dict[str, list[int]] = {}
        for row in self._metrics.used_rows():
            for name, place in ((OTHER, row.realms.other), *row.realms):
                words = row.words[place : place + REQUEST_WORDS]
                totals[name] = list(map(add, totals.get(name, [0] * REQUEST_WORDS), words))
        return totals

    def kdcs(self) -> dict[KdcEndpoint | None, list[int]]:
        """Return the words of each endpoint that was ever tried; those without a slot are at None."""
        totals: dict[KdcEndpoint | None, list[int]] = {}
        for row in self._metrics.used_rows():
            others = ("", row.kdcs.other), ("", row.branch_kdcs.other)
            for name, place in (*others, *row.kdcs, *row.branch_kdcs):
                endpoint = unpack_endpoint(name) if name else None
                words = row.words[place : place + KDC_WORDS].tolist()
                total = totals.get(endpoint, [0] * KDC_WORDS)
                state = max(total[KDC_STATE_WORD], words[KDC_STATE_WORD])
                totals[endpoint] = list(map(add, total, words))
                totals[endpoint][KDC_STATE_WORD] = state
        return totals

    def kdc_states(self) -> dict[KdcEndpoint, KdcState]:
        """Return the worst that any worker knows of each endpoint that was ever tried."""
        return {
            endpoint: KDC_STATES[words[KDC_STATE_WORD]]
            for endpoint, words in self.kdcs().items()
            if endpoint is not None
        }
