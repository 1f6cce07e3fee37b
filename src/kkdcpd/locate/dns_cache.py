"""What DNS said, for as long as it holds: nobody waits for what is known, and DNS' being down is survived.

dnspython's own caches know nothing of bounds by kind, negative answers' limits, refreshing ahead, shared
look-ups or stale answers; so this one is ours. It only decides; `query` does the asking. RFC 1034 3.6 (TTL),
RFC 2308 (negative answers), RFC 8767 (stale answers), RFC 9520 (failures).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

from kkdcpd.config import LocateConfig
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.dns import FoundRecords, RecordType
from kkdcpd.locate.flights import Flights
from kkdcpd.locate.records import Record, SrvRecord, UriRecord
from kkdcpd.locate.validity import Validity
from kkdcpd.metrics.columns import LookUp

__all__ = ["DnsAnswer", "DnsCache", "Query"]

logger = logging.getLogger(__name__)

REFRESH_AT = 0.9
"""The part of its TTL after which a used answer is asked for again; Unbound's prefetch has the same."""

STALE_WAIT_SECONDS = 0.5
"""How long DNS may take until the expired answer is given instead. RFC 8767 5 has 1.8 s for stub resolvers,
whose users wait for nothing else; our client's patience (field notes 4.2) is for the KDC too."""

FAILURE_SECONDS_LEAST = 1.0
FAILURE_SECONDS_MOST = 30.0
"""For how long a failure is remembered, doubled each time: within what RFC 9520 3.2 allows (1 s to 5 min).
A request that has nothing else fails at once meanwhile, so it is no longer than clients take to try again."""

NEGATIVE_SHARE = 4
"""One in so many entries may be a name without records: those a stranger can ask for have none, and they push
out only each other."""

Query = Callable[[str, RecordType], Awaitable[FoundRecords]]
"""Asks DNS; raises DnsFailedError."""

_Record = TypeVar("_Record", bound=Record)
_Question = tuple[str, RecordType]


@frozen
class DnsAnswer(Generic[_Record]):
    """Records of a name. `is_stale` tells that they held once, and DNS can't be asked for better."""

    records: tuple[_Record, ...]
    validity: Validity
    is_stale: bool = False


@dataclass(slots=True, kw_only=True)
class _Entry:
    """`found` is DNS' last answer, None if it never gave one; `failures` count those since."""

    found: tuple[Record, ...] | None = None
    recheck: float = 0.0
    expires: float = 0.0
    failures: int = 0
    retry_at: float = 0.0
    failure: str = ""


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
        tell: Callable[[LookUp], None],
    ) -> None:
        self._tell = tell
        self._query = query
        self._config = config
        self._clock = clock
        self._flights: Flights[_Question, _Entry] = Flights("dns")
        self._positive: OrderedDict[_Question, _Entry] = OrderedDict()
        self._negative: OrderedDict[_Question, _Entry] = OrderedDict()

    async def srv(self, name: str, *, afresh: bool = False) -> DnsAnswer[SrvRecord]:
        """Return the SRV records of a name."""
        return cast("DnsAnswer[SrvRecord]", await self._look_up((name, RecordType.SRV), afresh=afresh))

    async def uri(self, name: str, *, afresh: bool = False) -> DnsAnswer[UriRecord]:
        """Return the URI records of a name."""
        return cast("DnsAnswer[UriRecord]", await self._look_up((name, RecordType.URI), afresh=afresh))

    async def ipv4(self, name: str, *, afresh: bool = False) -> DnsAnswer[str]:
        """Return the A records of a name."""
        return cast("DnsAnswer[str]", await self._look_up((name, RecordType.A), afresh=afresh))

    async def ipv6(self, name: str, *, afresh: bool = False) -> DnsAnswer[str]:
        """Return the AAAA records of a name."""
        return cast("DnsAnswer[str]", await self._look_up((name, RecordType.AAAA), afresh=afresh))

    def __len__(self) -> int:
        return len(self._positive) + len(self._negative)

    async def could_be_learned_anew(self) -> bool:
        """Whether somebody who knows nothing yet could do without this cache, as DNS answers now."""
        if any(entry.failures for entry in self._positive.values()):
            return False
        latest = next(reversed(self._positive), None)
        try:
            if latest:
                await self._query(*latest)
        except DnsFailedError:
            return False
        return True

    async def close(self) -> None:
        """End the look-ups under way."""
        await self._flights.close()

    async def _look_up(self, question: _Question, *, afresh: bool) -> DnsAnswer[Record]:
        """Answer from memory where that holds, else from DNS, else from what held once.

        `afresh` asks DNS in any case, and leaves what others use as it is.

        Raises:
            DnsFailedError: DNS gives no answer, and never gave one that could serve still.
        """
        question = (question[0].lower().removesuffix("."), question[1])
        entry = self._recall(question)
        if afresh:
            return await self._ask_apart(question, entry)
        now = self._clock()
        if entry is None:
            return await self._ask(question)
        if entry.found is not None and now < entry.expires:
            self._tell(LookUp.DNS_HIT)
            self._refresh(question, entry, due=entry.recheck)
            return _answer(entry.found, entry, now)
        if entry.found is not None and now < entry.expires + self._config.stale_ttl:
            return await self._ask_or_stale(question, entry, entry.found)
        if now < entry.retry_at:
            self._tell(LookUp.DNS_HIT)
            raise DnsFailedError(entry.failure)
        return await self._ask(question)

    async def _ask(self, question: _Question) -> DnsAnswer[Record]:
        self._tell(LookUp.DNS_MISS)
        entry = await self._flights.share(question, partial(self._fly, question))
        if entry.found is None or self._clock() >= entry.expires:
            raise DnsFailedError(entry.failure)
        return _answer(entry.found, entry, self._clock())

    async def _ask_or_stale(
        self, question: _Question, entry: _Entry, found: tuple[Record, ...]
    ) -> DnsAnswer[Record]:
        """Give DNS a moment, but not if it has failed already; then give the expired answer."""
        if entry.failures:
            self._refresh(question, entry, due=entry.retry_at)
        else:
            flight = self._flights.start(question, partial(self._fly, question))
            await asyncio.wait([flight], timeout=STALE_WAIT_SECONDS)
        fresh = self._recall(question)
        now = self._clock()
        if fresh is not None and fresh.found is not None and now < fresh.expires:
            self._tell(LookUp.DNS_MISS)
            return _answer(fresh.found, fresh, now)
        self._tell(LookUp.DNS_STALE)
        until = max(entry.retry_at, now + FAILURE_SECONDS_LEAST)
        return DnsAnswer(records=found, validity=Validity(recheck=until, expires=until), is_stale=True)

    async def _ask_apart(self, question: _Question, entry: _Entry | None) -> DnsAnswer[Record]:
        self._tell(LookUp.DNS_MISS)
        try:
            result = await self._query(*question)
        except DnsFailedError:
            if entry is None or entry.found is None:
                raise
            return _answer(entry.found, entry, self._clock(), is_stale=True)
        now = self._clock()
        validity = Validity(recheck=now, expires=now + self._ttl(result))
        return DnsAnswer(records=result.records, validity=validity)

    def _refresh(self, question: _Question, entry: _Entry, *, due: float) -> None:
        """Ask ahead, or again, while what is known still serves."""
        now = self._clock()
        if now >= due and now >= entry.retry_at:
            self._flights.start(question, partial(self._fly, question))

    async def _fly(self, question: _Question) -> _Entry:
        """Ask DNS and remember what it said, or that it failed. It is an entry in any case."""
        try:
            result = await self._query(*question)
        except DnsFailedError as error:
            return self._remember_failure(question, str(error))
        before = self._recall(question)
        if before is not None and before.failures and before.found:
            logger.info("dns_answers_again", extra={"fields": _fields(question)})
        now, ttl = self._clock(), self._ttl(result)
        entry = _Entry(found=result.records, recheck=now + ttl * REFRESH_AT, expires=now + ttl)
        self._keep(question, entry)
        return entry

    def _remember_failure(self, question: _Question, failure: str) -> _Entry:
        entry = self._recall(question) or _Entry()
        pause = min(FAILURE_SECONDS_LEAST * 2**entry.failures, FAILURE_SECONDS_MOST)
        # Nobody but us sees this failure, for what is known serves on. All others end up with who asked.
        if entry.found and not entry.failures:
            logger.warning("dns_fails", extra={"fields": _fields(question) | {"reason": failure}})
        entry.failures += 1
        entry.retry_at = self._clock() + pause
        entry.failure = failure
        self._keep(question, entry)
        return entry

    def _ttl(self, result: FoundRecords) -> float:
        config = self._config
        if result.records:
            return min(max(result.ttl, config.minimum_ttl), config.maximum_ttl)
        return min(max(result.ttl, config.minimum_ttl), config.negative_ttl)

    def _recall(self, question: _Question) -> _Entry | None:
        for entries in (self._positive, self._negative):
            if question in entries:
                entries.move_to_end(question)
                return entries[question]
        return None

    def _keep(self, question: _Question, entry: _Entry) -> None:
        self._positive.pop(question, None)
        self._negative.pop(question, None)
        negative_limit = self._config.cache_entries // NEGATIVE_SHARE
        entries, limit = (
            (self._positive, self._config.cache_entries - negative_limit)
            if entry.found
            else (self._negative, negative_limit)
        )
        entries[question] = entry
        if len(entries) > limit:
            entries.popitem(last=False)


def _answer(
    found: tuple[Record, ...], entry: _Entry, now: float, *, is_stale: bool = False
) -> DnsAnswer[Record]:
    # A refresh that is under way or failed is no reason to come back at every request.
    recheck = max(entry.recheck, entry.retry_at, now)
    validity = Validity(recheck=recheck, expires=max(entry.expires, now))
    return DnsAnswer(records=found, validity=validity, is_stale=is_stale)


def _fields(question: _Question) -> dict[str, str]:
    name, record_type = question
    return {"name": name, "type": record_type.value}
