"""Entries of the DNS cache, with their limits and the schedule of retries after a failure. Pure.

RFC 1034 3.6 (TTL), RFC 2308 (negative answers), RFC 9520 (failures).
"""

import math
from collections import OrderedDict
from dataclasses import dataclass

from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns_answers import DnsAnswer, Validity
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.records import Record

__all__ = ["CacheEntry", "CachePartition", "Question"]

REFRESH_AT = 0.9
"""The part of its TTL after which an answer in use is looked up again, as in Unbound's prefetch."""

FAILURE_SECONDS_LEAST = 1.0
FAILURE_SECONDS_MOST = 30.0
"""The pause after a failed look-up; it doubles with each failure. RFC 9520 3.2 allows 1 s to 5 min. A request
without another answer fails at once during the pause, so the pause is no longer than a client's retry."""

UNANSWERED_TRIES = 3
"""If a question fails this many times while DNS answers others, the fault is the question's."""

UNANSWERED_SECONDS_LEAST = 60.0
UNANSWERED_SECONDS_MOST = 300.0
"""The pause before a retry of this question; it doubles each time (RFC 9520 3.2: at most 5 minutes)."""

NEGATIVE_SHARE = 4
"""The fraction of entries (1/4) for names without records. A client that invents names evicts only these."""

Question = tuple[str, RecordType]
"""A name in lower case without the root dot, and a record type."""


@dataclass(slots=True, kw_only=True)
class CacheEntry:
    """The last answer to a question, and the failures since.

    `has_answer` is false if DNS never answered the question. `retry_at` is the time of the next look-up in
    the background, `required_retry_at` the time of the next look-up for a request without another answer.
    `is_logged`: the log has the failure. `is_slow`: the last answer took so long that no request waits for
    the next one.
    """

    records: tuple[Record, ...] = ()
    has_answer: bool = False
    recheck: float = 0.0
    expires: float = 0.0
    failures: int = 0
    failing_since: float = 0.0
    retry_at: float = 0.0
    required_retry_at: float = 0.0
    failure: str = ""
    is_logged: bool = False
    is_slow: bool = False

    @classmethod
    def of_answer(
        cls, records: tuple[Record, ...], ttl: float, now: float, *, is_slow: bool = False
    ) -> "CacheEntry":
        """Make an entry of a new answer."""
        return cls(
            records=records,
            has_answer=True,
            recheck=now + ttl * REFRESH_AT,
            expires=now + ttl,
            is_slow=is_slow,
        )

    @property
    def is_unanswered(self) -> bool:
        """Whether DNS fails for this question alone."""
        return self.retry_at > self.required_retry_at

    def is_valid(self, now: float, *, stale_ttl: float = 0.0) -> bool:
        """Whether the answer may be used, at most `stale_ttl` seconds after its end."""
        return self.has_answer and now < self.expires + stale_ttl

    def note_failure(self, reason: str, started: float, now: float, *, last_answer_at: float) -> None:
        """Note a failed look-up, and when to retry. `last_answer_at`: when DNS last answered any question."""
        if not self.failures:
            self.failing_since = started
        pause = min(FAILURE_SECONDS_LEAST * 2**self.failures, FAILURE_SECONDS_MOST)
        self.failures += 1
        self.required_retry_at = self.retry_at = now + pause
        self.failure = reason
        if self.failures >= UNANSWERED_TRIES and last_answer_at >= self.failing_since:
            pause = UNANSWERED_SECONDS_LEAST * 2 ** (self.failures - UNANSWERED_TRIES)
            self.retry_at = now + min(pause, UNANSWERED_SECONDS_MOST)

    def answer(self, now: float, *, is_stale: bool = False) -> DnsAnswer[Record]:
        """Return the records."""
        # `retry_at` counts: after a failed refresh, the next request must not look the name up again.
        recheck = max(self.recheck, self.retry_at, now)
        validity = Validity(recheck=recheck, expires=max(self.expires, now))
        return DnsAnswer(records=self.records, validity=validity, is_stale=is_stale)

    def failed_answer(self, now: float) -> DnsAnswer[Record]:
        """Return the reason for the last failure."""
        validity = Validity(recheck=max(self.retry_at, now), expires=math.inf)
        return DnsAnswer(validity=validity, failure=DnsFailedError(self.failure))

    def stale_answer(self, now: float) -> DnsAnswer[Record]:
        """Return the expired records, to be used until the next retry."""
        until = max(self.retry_at, now + FAILURE_SECONDS_LEAST)
        return DnsAnswer(records=self.records, validity=Validity(recheck=until, expires=until), is_stale=True)


_Entries = OrderedDict[Question, CacheEntry]


class CachePartition:
    """Entries with records and entries without, each kind with a limit of its own. The oldest is evicted."""

    def __init__(self, limit: int) -> None:
        negative_limit = limit // NEGATIVE_SHARE
        self._positive: _Entries = OrderedDict()
        self._negative: _Entries = OrderedDict()
        self._limits = {True: limit - negative_limit, False: negative_limit}

    def __len__(self) -> int:
        return len(self._positive) + len(self._negative)

    def get(self, question: Question) -> CacheEntry | None:
        """Return the entry, and note that it is in use."""
        for entries in (self._positive, self._negative):
            if question in entries:
                entries.move_to_end(question)
                return entries[question]
        return None

    def put(self, question: Question, entry: CacheEntry) -> None:
        """Store the entry in place of an earlier one."""
        self._positive.pop(question, None)
        self._negative.pop(question, None)
        entries = self._positive if entry.records else self._negative
        entries[question] = entry
        if len(entries) > self._limits[bool(entry.records)]:
            entries.popitem(last=False)

    def has_failures(self) -> bool:
        """Whether the last look-up failed for a name that has records."""
        return any(entry.failures for entry in self._positive.values())

    def latest_question(self) -> Question | None:
        """Return the question with records that was used last."""
        return next(reversed(self._positive), None)
