"""What DNS said, for as long as it holds: no client waits for what is known, and DNS may be down.

dnspython's own caches know nothing of bounds by kind, negative answers' limits, refreshing ahead, shared
look-ups or stale answers; so this one is ours. It only decides; `query` does the asking. RFC 1034 3.6 (TTL),
RFC 2308 (negative answers), RFC 8767 (stale answers), RFC 9520 (failures).
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar, cast

from kkdcpd.config import LocateConfig
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.dns import requester
from kkdcpd.locate.dns_wire import FoundRecords, RecordType
from kkdcpd.locate.grace_period import GRACE_SECONDS
from kkdcpd.locate.records import Record, SrvRecord, UriRecord
from kkdcpd.locate.shared_tasks import SharedTasks
from kkdcpd.locate.validity import Validity
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.columns import LookUp

__all__ = ["DnsAnswer", "DnsCache", "Query"]

logger = EventLogger(__name__)

REFRESH_AT = 0.9
"""The part of its TTL after which a used answer is asked for again; Unbound's prefetch has the same."""

FAILURE_SECONDS_LEAST = 1.0
FAILURE_SECONDS_MOST = 30.0
"""For how long a failure is remembered, doubled each time: within what RFC 9520 3.2 allows (1 s to 5 min).
A request that has nothing else fails at once meanwhile, so it is no longer than clients take to try again."""

SILENCE_TRIES = 3
"""After so many failed look-ups of one question, while DNS answers others, the fault is the question's."""

SILENCE_SECONDS_LEAST = 60.0
SILENCE_SECONDS_MOST = 300.0
"""For how long such a question is then left alone, doubled each time (RFC 9520 3.2: at most 5 minutes)."""

NEGATIVE_SHARE = 4
"""One in so many entries may be a name without records: those a stranger can ask for have none, and they push
out only each other."""

WILDCARD_SHARE = 4
"""One in so many entries is for realms under wildcards: what strangers put into DNS pushes out only these."""

Query = Callable[[str, RecordType], Awaitable[FoundRecords]]
"""Asks DNS; raises DnsFailedError."""

_Record = TypeVar("_Record", bound=Record)
_Question = tuple[str, RecordType]
_Entries = OrderedDict[_Question, "_Entry"]


@frozen
class DnsAnswer(Generic[_Record]):
    """Records of a name, or why DNS gives no answer. `is_stale` tells that the records have expired."""

    records: tuple[_Record, ...] = ()
    validity: Validity
    is_stale: bool = False
    failure: DnsFailedError | None = None

    @property
    def bound(self) -> Validity:
        """For how long this lets a result hold that was made of several answers: only records expire.

        That there are none may change, and is looked up again, but takes nothing away from the others.
        """
        return self.validity if self.records else Validity(recheck=self.validity.recheck, expires=math.inf)


@dataclass(slots=True, kw_only=True)
class _Entry:
    """`found` is DNS' last answer, None if it never gave one; `failures` count those since.

    `retry_at` is when the question may be asked again, `insist_at` when a request that has nothing else may
    have it asked. `is_told` tells whether the log has the failure, `is_slow` whether the last answer took so
    long that no request waits for the next one.
    """

    found: tuple[Record, ...] | None = None
    recheck: float = 0.0
    expires: float = 0.0
    failures: int = 0
    failing_since: float = 0.0
    retry_at: float = 0.0
    insist_at: float = 0.0
    failure: str = ""
    is_told: bool = False
    is_slow: bool = False


class _Shelf:
    """Entries of one kind of asker: answers with records and all others apart, each with its own limit."""

    def __init__(self, limit: int) -> None:
        negative_limit = limit // NEGATIVE_SHARE
        self.positive: _Entries = OrderedDict()
        self._negative: _Entries = OrderedDict()
        self._limits = {True: limit - negative_limit, False: negative_limit}

    def __len__(self) -> int:
        return len(self.positive) + len(self._negative)

    def recall(self, question: _Question) -> _Entry | None:
        for entries in (self.positive, self._negative):
            if question in entries:
                entries.move_to_end(question)
                return entries[question]
        return None

    def keep(self, question: _Question, entry: _Entry) -> None:
        self.positive.pop(question, None)
        self._negative.pop(question, None)
        entries = self.positive if entry.found else self._negative
        entries[question] = entry
        if len(entries) > self._limits[bool(entry.found)]:
            entries.popitem(last=False)


class DnsCache:
    """Asks DNS for what it doesn't know, once at a time for each question.

    `tell` hears how each question was answered: from memory, by waiting for DNS (a failure included), with an
    expired answer.
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
        self._flights: SharedTasks[_Question, _Entry] = SharedTasks("dns")
        self._begun: dict[_Question, float] = {}
        self._answered_at = -math.inf
        wildcard_limit = config.cache_entries // WILDCARD_SHARE
        self._configured = _Shelf(config.cache_entries - wildcard_limit)
        self._wildcard = _Shelf(wildcard_limit)

    async def srv(self, name: str, *, afresh: bool = False, insist: bool = False) -> DnsAnswer[SrvRecord]:
        """Return the SRV records of a name.

        `afresh` asks DNS in any case, and leaves what others use as it is. A question that has failed before
        is asked again in the background, unless somebody `insist`s: a request that has nothing else.
        """
        answer = await self._look_up((name, RecordType.SRV), afresh=afresh, insist=insist)
        return cast("DnsAnswer[SrvRecord]", answer)

    async def uri(self, name: str, *, afresh: bool = False, insist: bool = False) -> DnsAnswer[UriRecord]:
        """Return the URI records of a name."""
        answer = await self._look_up((name, RecordType.URI), afresh=afresh, insist=insist)
        return cast("DnsAnswer[UriRecord]", answer)

    async def ipv4(self, name: str, *, afresh: bool = False, insist: bool = False) -> DnsAnswer[str]:
        """Return the A records of a name."""
        answer = await self._look_up((name, RecordType.A), afresh=afresh, insist=insist)
        return cast("DnsAnswer[str]", answer)

    async def ipv6(self, name: str, *, afresh: bool = False, insist: bool = False) -> DnsAnswer[str]:
        """Return the AAAA records of a name."""
        answer = await self._look_up((name, RecordType.AAAA), afresh=afresh, insist=insist)
        return cast("DnsAnswer[str]", answer)

    def pending(self, name: str) -> DnsAnswer[Any]:
        """Return what stands for an answer that nobody waits for any longer: it comes in the background."""
        failure = DnsFailedError(f"DNS look-up of {name}: no answer yet")
        return DnsAnswer(validity=Validity(recheck=self._clock(), expires=math.inf), failure=failure)

    def __len__(self) -> int:
        return len(self._configured) + len(self._wildcard)

    async def can_be_refilled(self) -> bool:
        """Whether somebody who knows nothing yet could do without this cache, as DNS answers now."""
        shelves = (self._configured.positive, self._wildcard.positive)
        if any(entry.failures for entries in shelves for entry in entries.values()):
            return False
        latest = next((next(reversed(entries)) for entries in shelves if entries), None)
        try:
            if latest:
                await self._query(*latest)
        except DnsFailedError:
            return False
        return True

    async def close(self) -> None:
        """End the look-ups under way."""
        await self._flights.close()

    async def _look_up(self, question: _Question, *, afresh: bool, insist: bool) -> DnsAnswer[Record]:
        """Answer from memory where that holds, else from DNS, else from what held once."""
        question = (question[0].lower().removesuffix("."), question[1])
        entry = self._recall(question)
        if afresh:
            return await self._ask_apart(question, entry)
        if entry is None:
            late = self._is_late(question) and not insist
            return self.pending(question[0]) if late else await self._ask(question)
        now = self._clock()
        if entry.found is not None and now < entry.expires:
            self._on_lookup(LookUp.DNS_HIT)
            self._refresh(question, entry, due=entry.recheck)
            return _answer(entry.found, entry, now)
        if entry.found is not None and now < entry.expires + self._config.stale_ttl:
            return await self._ask_or_stale(question, entry, entry.found)
        if not entry.failures or (insist and now >= entry.insist_at):
            return await self._ask(question)
        self._on_lookup(LookUp.DNS_HIT)
        self._refresh(question, entry, due=entry.retry_at)
        return _failed(entry, now)

    async def _ask(self, question: _Question) -> DnsAnswer[Record]:
        self._on_lookup(LookUp.DNS_MISS)
        entry = await self._flights.share(question, partial(self._fly, question))
        now = self._clock()
        if entry.found is None or now >= entry.expires:
            return _failed(entry, now)
        return _answer(entry.found, entry, now)

    async def _ask_or_stale(
        self, question: _Question, entry: _Entry, found: tuple[Record, ...]
    ) -> DnsAnswer[Record]:
        """Give DNS a moment, but not if that was not enough before; then give the expired answer."""
        if entry.failures or entry.is_slow or self._is_late(question):
            self._refresh(question, entry, due=entry.retry_at)
        else:
            flight = self._flights.start(question, partial(self._fly, question))
            await asyncio.wait([flight], timeout=GRACE_SECONDS)
        fresh = self._recall(question)
        now = self._clock()
        if fresh is not None and fresh.found is not None and now < fresh.expires:
            self._on_lookup(LookUp.DNS_MISS)
            return _answer(fresh.found, fresh, now)
        self._on_lookup(LookUp.DNS_STALE)
        until = max(entry.retry_at, now + FAILURE_SECONDS_LEAST)
        return DnsAnswer(records=found, validity=Validity(recheck=until, expires=until), is_stale=True)

    async def _ask_apart(self, question: _Question, entry: _Entry | None) -> DnsAnswer[Record]:
        """Ask for one request alone. A question that is known to fail is not asked in a client's time."""
        now = self._clock()
        if entry is not None and entry.failures and now < entry.retry_at:
            return _answer(entry.found, entry, now, is_stale=True) if entry.found else _failed(entry, now)
        self._on_lookup(LookUp.DNS_MISS)
        try:
            result = await self._query(*question)
        except DnsFailedError as error:
            now = self._clock()
            if entry is None or entry.found is None:
                return DnsAnswer(validity=Validity(recheck=now, expires=math.inf), failure=error)
            return _answer(entry.found, entry, now, is_stale=True)
        now = self._clock()
        validity = Validity(recheck=now, expires=now + self._ttl(result))
        return DnsAnswer(records=result.records, validity=validity)

    def _is_late(self, question: _Question) -> bool:
        """Whether DNS is being asked for longer than a request waits that has something to go by."""
        return self._clock() - self._begun.get(question, math.inf) > GRACE_SECONDS

    def _refresh(self, question: _Question, entry: _Entry, *, due: float) -> None:
        """Ask ahead, or again, while what is known still serves."""
        now = self._clock()
        if now >= due and now >= entry.retry_at:
            self._flights.start(question, partial(self._fly, question))

    async def _fly(self, question: _Question) -> _Entry:
        """Ask DNS and remember what it said, or that it failed. It is an entry in any case."""
        started = self._begun[question] = self._clock()
        try:
            result = await self._query(*question)
        except DnsFailedError as error:
            return self._remember_failure(question, str(error), started)
        finally:
            del self._begun[question]
        before = self._recall(question)
        if before is not None and before.is_told:
            name, record_type = question
            logger.info("dns_recovered", sum_by=_sum_key(), name=name, type=record_type.value)
        now, ttl = self._clock(), self._ttl(result)
        self._answered_at = now
        entry = _Entry(
            found=result.records,
            recheck=now + ttl * REFRESH_AT,
            expires=now + ttl,
            is_slow=now - started > GRACE_SECONDS,
        )
        self._keep(question, entry)
        return entry

    def _remember_failure(self, question: _Question, failure: str, started: float) -> _Entry:
        entry = self._recall(question) or _Entry()
        if not entry.failures:
            entry.failing_since = started
        pause = min(FAILURE_SECONDS_LEAST * 2**entry.failures, FAILURE_SECONDS_MOST)
        entry.failures += 1
        entry.insist_at = entry.retry_at = self._clock() + pause
        is_silent = entry.failures >= SILENCE_TRIES and self._answered_at >= entry.failing_since
        if is_silent:
            silence = SILENCE_SECONDS_LEAST * 2 ** (entry.failures - SILENCE_TRIES)
            entry.retry_at = self._clock() + min(silence, SILENCE_SECONDS_MOST)
        entry.failure = failure
        # Requests are served nevertheless, so no line of theirs tells. All other failures end up in one.
        if not entry.is_told and (entry.found or is_silent):
            entry.is_told = True
            name, record_type = question
            logger.warning(
                "dns_failing", sum_by=_sum_key(), name=name, type=record_type.value, reason=failure
            )
        self._keep(question, entry)
        return entry

    def _ttl(self, result: FoundRecords) -> float:
        config = self._config
        if result.records:
            return min(max(result.ttl, config.minimum_ttl), config.maximum_ttl)
        return min(max(result.ttl, config.minimum_ttl), config.negative_ttl)

    def _recall(self, question: _Question) -> _Entry | None:
        return self._configured.recall(question) or self._wildcard.recall(question)

    def _keep(self, question: _Question, entry: _Entry) -> None:
        # What a configured realm has asked for stays its own, whoever asks for it again.
        if requester.get().is_wildcard and self._configured.recall(question) is None:
            self._wildcard.keep(question, entry)
        else:
            self._configured.keep(question, entry)


def _answer(
    found: tuple[Record, ...], entry: _Entry, now: float, *, is_stale: bool = False
) -> DnsAnswer[Record]:
    # A refresh that is under way or failed is no reason to come back at every request.
    recheck = max(entry.recheck, entry.retry_at, now)
    validity = Validity(recheck=recheck, expires=max(entry.expires, now))
    return DnsAnswer(records=found, validity=validity, is_stale=is_stale)


def _failed(entry: _Entry, now: float) -> DnsAnswer[Record]:
    validity = Validity(recheck=max(entry.retry_at, now), expires=math.inf)
    return DnsAnswer(validity=validity, failure=DnsFailedError(entry.failure))


def _sum_key() -> Hashable:
    """Return by what to sum events: the owner of a domain under a wildcard can cause as many as they like."""
    return ("dns", requester.get()) if requester.get().is_wildcard else None
