"""Caches DNS answers: refreshes them before they expire, and serves expired answers while DNS is down.

dnspython's own caches have no separate limits for negative answers, no refresh ahead, no shared look-ups and
no stale answers (RFC 8767). This module decides when to ask DNS; `query` asks.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, cast

from kkdcpd.config import LocateConfig
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns import requester
from kkdcpd.locate.dns_answers import DnsAnswer, Validity
from kkdcpd.locate.dns_cache_entries import CacheEntry, CachePartition, Question
from kkdcpd.locate.dns_wire import FoundRecords, RecordType
from kkdcpd.locate.grace_period import GRACE_SECONDS
from kkdcpd.locate.records import Record, SrvRecord, UriRecord
from kkdcpd.locate.shared_tasks import SharedTasks
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.columns import LookUp

__all__ = ["DnsCache", "Query"]

logger = EventLogger(__name__)

WILDCARD_SHARE = 4
"""The fraction of entries (1/4) for realms under wildcards. Data under wildcards evicts only these."""

Query = Callable[[str, RecordType], Awaitable[FoundRecords]]
"""Asks DNS; raises DnsFailedError."""


class DnsCache:
    """Asks DNS for the answers that it does not hold, with one query at a time for each question.

    The callback `on_lookup` gets the source of each answer: the cache, DNS (a failure included), or an
    expired entry.
    """

    def __init__(
        self,
        query: Query,
        config: LocateConfig,
        clock: Callable[[], float],
        on_lookup: Callable[[LookUp], None],
    ) -> None:
        self._on_lookup = on_lookup
        self._query = query
        self._config = config
        self._clock = clock
        self._lookups: SharedTasks[Question, CacheEntry] = SharedTasks("dns")
        self._started_at: dict[Question, float] = {}
        self._last_answer_at = -math.inf
        wildcard_limit = config.cache_entries // WILDCARD_SHARE
        self._configured = CachePartition(config.cache_entries - wildcard_limit)
        self._wildcard = CachePartition(wildcard_limit)

    async def srv(
        self, name: str, *, bypass_cache: bool = False, required: bool = False
    ) -> DnsAnswer[SrvRecord]:
        """Return the SRV records of a name.

        `bypass_cache` asks DNS and leaves the cache as it is. `required` says that the request has no other
        answer to use, so it waits for DNS even if the question has failed before. Otherwise a failed question
        is retried in the background.
        """
        answer = await self._look_up((name, RecordType.SRV), bypass_cache=bypass_cache, required=required)
        return cast("DnsAnswer[SrvRecord]", answer)

    async def uri(
        self, name: str, *, bypass_cache: bool = False, required: bool = False
    ) -> DnsAnswer[UriRecord]:
        """Return the URI records of a name."""
        answer = await self._look_up((name, RecordType.URI), bypass_cache=bypass_cache, required=required)
        return cast("DnsAnswer[UriRecord]", answer)

    async def ipv4(self, name: str, *, bypass_cache: bool = False, required: bool = False) -> DnsAnswer[str]:
        """Return the A records of a name."""
        answer = await self._look_up((name, RecordType.A), bypass_cache=bypass_cache, required=required)
        return cast("DnsAnswer[str]", answer)

    async def ipv6(self, name: str, *, bypass_cache: bool = False, required: bool = False) -> DnsAnswer[str]:
        """Return the AAAA records of a name."""
        answer = await self._look_up((name, RecordType.AAAA), bypass_cache=bypass_cache, required=required)
        return cast("DnsAnswer[str]", answer)

    def pending(self, name: str) -> DnsAnswer[Any]:
        """Return the stand-in for an answer that is still looked up in the background."""
        failure = DnsFailedError(f"DNS look-up of {name}: no answer yet")
        return DnsAnswer(validity=Validity(recheck=self._clock(), expires=math.inf), failure=failure)

    def __len__(self) -> int:
        return len(self._configured) + len(self._wildcard)

    async def can_be_refilled(self) -> bool:
        """Whether an empty cache would get the same answers now, because DNS answers."""
        partitions = (self._configured, self._wildcard)
        if any(partition.has_failures() for partition in partitions):
            return False
        question = next(filter(None, (partition.latest_question() for partition in partitions)), None)
        try:
            if question:
                await self._query(*question)
        except DnsFailedError:
            return False
        return True

    async def close(self) -> None:
        """Cancel all look-ups."""
        await self._lookups.close()

    async def _look_up(self, question: Question, *, bypass_cache: bool, required: bool) -> DnsAnswer[Record]:
        """Answer from a valid entry, else from DNS, else from an expired entry."""
        question = (question[0].lower().removesuffix("."), question[1])
        entry = self._get(question)
        if bypass_cache:
            return await self._ask_without_cache(question, entry)
        if entry is None:
            is_late = self._is_late(question) and not required
            return self.pending(question[0]) if is_late else await self._ask(question)
        now = self._clock()
        if entry.is_valid(now):
            self._on_lookup(LookUp.DNS_HIT)
            self._refresh(question, entry, due=entry.recheck)
            return entry.answer(now)
        if entry.is_valid(now, stale_ttl=self._config.stale_ttl):
            return await self._ask_or_use_stale(question, entry)
        if not entry.failures or (required and now >= entry.required_retry_at):
            return await self._ask(question)
        self._on_lookup(LookUp.DNS_HIT)
        self._refresh(question, entry, due=entry.retry_at)
        return entry.failed_answer(now)

    async def _ask(self, question: Question) -> DnsAnswer[Record]:
        self._on_lookup(LookUp.DNS_MISS)
        entry = await self._lookups.run(question, partial(self._query_and_store, question))
        now = self._clock()
        return entry.answer(now) if entry.is_valid(now) else entry.failed_answer(now)

    async def _ask_or_use_stale(self, question: Question, entry: CacheEntry) -> DnsAnswer[Record]:
        """Wait for DNS for GRACE_SECONDS, unless DNS was late before; then use the expired entry."""
        if entry.failures or entry.is_slow or self._is_late(question):
            self._refresh(question, entry, due=entry.retry_at)
        else:
            task = self._lookups.start(question, partial(self._query_and_store, question))
            await asyncio.wait([task], timeout=GRACE_SECONDS)
        fresh = self._get(question)
        now = self._clock()
        if fresh is not None and fresh.is_valid(now):
            self._on_lookup(LookUp.DNS_MISS)
            return fresh.answer(now)
        self._on_lookup(LookUp.DNS_STALE)
        return entry.stale_answer(now)

    async def _ask_without_cache(self, question: Question, entry: CacheEntry | None) -> DnsAnswer[Record]:
        """Ask DNS for one request alone, unless the question failed a short time ago."""
        now = self._clock()
        if entry is not None and entry.failures and now < entry.retry_at:
            return entry.answer(now, is_stale=True) if entry.records else entry.failed_answer(now)
        self._on_lookup(LookUp.DNS_MISS)
        try:
            result = await self._query(*question)
        except DnsFailedError as error:
            now = self._clock()
            if entry is None or not entry.has_answer:
                return DnsAnswer(validity=Validity(recheck=now, expires=math.inf), failure=error)
            return entry.answer(now, is_stale=True)
        now = self._clock()
        validity = Validity(recheck=now, expires=now + self._ttl(result))
        return DnsAnswer(records=result.records, validity=validity)

    def _is_late(self, question: Question) -> bool:
        """Whether a look-up of the question runs for longer than GRACE_SECONDS."""
        return self._clock() - self._started_at.get(question, math.inf) > GRACE_SECONDS

    def _refresh(self, question: Question, entry: CacheEntry, *, due: float) -> None:
        """Start a look-up in the background if it is due."""
        now = self._clock()
        if now >= due and now >= entry.retry_at:
            self._lookups.start(question, partial(self._query_and_store, question))

    async def _query_and_store(self, question: Question) -> CacheEntry:
        """Ask DNS, and store the answer or the failure."""
        started = self._started_at[question] = self._clock()
        try:
            result = await self._query(*question)
        except DnsFailedError as error:
            return self._store_failure(question, str(error), started)
        finally:
            del self._started_at[question]
        before = self._get(question)
        if before is not None and before.is_logged:
            name, record_type = question
            logger.info("dns_recovered", sum_by=_sum_key(), name=name, type=record_type.value)
        now = self._last_answer_at = self._clock()
        entry = CacheEntry.of_answer(
            result.records, self._ttl(result), now, is_slow=now - started > GRACE_SECONDS
        )
        self._put(question, entry)
        return entry

    def _store_failure(self, question: Question, reason: str, started: float) -> CacheEntry:
        entry = self._get(question) or CacheEntry()
        entry.note_failure(reason, started, self._clock(), last_answer_at=self._last_answer_at)
        # These requests are served in spite of the failure, so their own log lines do not show it.
        if not entry.is_logged and (entry.records or entry.is_unanswered):
            entry.is_logged = True
            name, record_type = question
            logger.warning("dns_failing", sum_by=_sum_key(), name=name, type=record_type.value, reason=reason)
        self._put(question, entry)
        return entry

    def _ttl(self, result: FoundRecords) -> float:
        config = self._config
        if result.records:
            return min(max(result.ttl, config.minimum_ttl), config.maximum_ttl)
        return min(max(result.ttl, config.minimum_ttl), config.negative_ttl)

    def _get(self, question: Question) -> CacheEntry | None:
        return self._configured.get(question) or self._wildcard.get(question)

    def _put(self, question: Question, entry: CacheEntry) -> None:
        # An entry that a configured realm uses stays in its partition, even if another realm refreshes it.
        if requester.get().is_wildcard and self._configured.get(question) is None:
            self._wildcard.put(question, entry)
        else:
            self._configured.put(question, entry)


def _sum_key() -> Hashable:
    """Return the key to sum events by. The owner of a domain under a wildcard can cause many events."""
    return ("dns", requester.get()) if requester.get().is_wildcard else None
