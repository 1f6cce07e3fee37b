"""Reads the metrics of all processes: adds up counters, and takes the worst state of each KDC."""

from operator import add

from kkdcpd.endpoints import KdcEndpoint, unpack_endpoint
from kkdcpd.metrics.columns import FIXED, FIXED_WORDS, KDC_WORDS, REQUEST_WORDS, Family
from kkdcpd.metrics.counters import KDC_STATES
from kkdcpd.metrics.memory import KDC_STATE_WORD, OTHER, Metrics
from kkdcpd.values import KdcState

__all__ = ["MetricsReader"]


class MetricsReader:
    """Reads the counters. Other processes count at the same time, so values may differ by a few requests."""

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
        """Return a word of the parent process."""
        value: int = self._metrics.words[word]
        return value

    def realms(self) -> dict[str, list[int]]:
        """Return the words of each realm. Requests for realms that are not served are at ""."""
        totals: dict[str, list[int]] = {}
        for row in self._metrics.used_rows():
            for name, offset in ((OTHER, row.realms.other), *row.realms):
                words = row.words[offset : offset + REQUEST_WORDS]
                totals[name] = list(map(add, totals.get(name, [0] * REQUEST_WORDS), words))
        return totals

    def kdcs(self) -> dict[KdcEndpoint | None, list[int]]:
        """Return the words of each tried endpoint. Endpoints without a slot are added up at None."""
        totals: dict[KdcEndpoint | None, list[int]] = {}
        for row in self._metrics.used_rows():
            others = ("", row.kdcs.other), ("", row.branch_kdcs.other)
            for name, offset in (*others, *row.kdcs, *row.branch_kdcs):
                endpoint = unpack_endpoint(name) if name else None
                words = row.words[offset : offset + KDC_WORDS].tolist()
                total = totals.get(endpoint, [0] * KDC_WORDS)
                state = max(total[KDC_STATE_WORD], words[KDC_STATE_WORD])
                totals[endpoint] = list(map(add, total, words))
                totals[endpoint][KDC_STATE_WORD] = state
        return totals

    def kdc_states(self) -> dict[KdcEndpoint, KdcState]:
        """Return the worst state of each endpoint in any worker process."""
        return {
            endpoint: KDC_STATES[words[KDC_STATE_WORD]]
            for endpoint, words in self.kdcs().items()
            if endpoint is not None
        }
