"""The DNS cache: lifetimes of answers, refreshes, and behaviour while DNS is down."""

import asyncio
import logging
import math
from collections import Counter
from typing import Any

import pytest

from kkdcpd.config import LocateConfig
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns import Requester, requester
from kkdcpd.locate.dns_cache import WILDCARD_SHARE, DnsCache
from kkdcpd.locate.dns_cache_entries import (
    FAILURE_SECONDS_LEAST,
    FAILURE_SECONDS_MOST,
    UNANSWERED_SECONDS_MOST,
)
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.metrics.columns import LookUp
from tests.locate.support import ManualClock, MemoryDns

NAME = "kdc1.example.com"


class CacheWithDns(DnsCache):
    """A cache in front of an in-cache DNS."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.dns = MemoryDns()
        self.lookups: Counter[LookUp] = Counter()
        self.dns.put(NAME, "A", "192.0.2.1", ttl=100)
        super().__init__(self.dns.query, LocateConfig(**settings), self.clock, self._count)

    def _count(self, look_up: LookUp) -> None:
        self.lookups[look_up] += 1

    async def addresses(self, name: str = NAME) -> tuple[str, ...]:
        """Return the addresses, as for a request that has no other answer to use."""
        answer = await self.ipv4(name, required=True)
        if answer.failure:
            raise answer.failure
        return answer.records

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_cache_can_be_refilled_while_dns_answers() -> None:
    cache = CacheWithDns()
    assert await cache.can_be_refilled()
    assert cache.dns.count == 0
    await cache.addresses()
    assert await cache.can_be_refilled()
    cache.dns.is_down = True
    assert not await cache.can_be_refilled()
    cache.clock.advance(101)
    assert await cache.addresses() == ("192.0.2.1",)
    cache.dns.is_down = False
    assert not await cache.can_be_refilled()


async def test_answer_is_used_for_its_ttl() -> None:
    cache = CacheWithDns()
    assert await cache.addresses() == ("192.0.2.1",)
    cache.clock.advance(89)
    answer = await cache.ipv4("KDC1.Example.COM.")
    assert answer.validity.expires == 1100
    assert answer.validity.recheck == 1090
    assert not answer.is_stale
    assert (cache.dns.count, cache.lookups) == (1, {LookUp.DNS_MISS: 1, LookUp.DNS_HIT: 1})
    cache.dns.put(NAME, "A", "192.0.2.2", ttl=100)
    cache.clock.advance(12)
    assert await cache.addresses() == ("192.0.2.2",)
    assert cache.dns.count == 2


async def test_answer_in_use_is_refreshed_before_it_expires() -> None:
    cache = CacheWithDns()
    await cache.addresses()
    cache.dns.put(NAME, "A", "192.0.2.2", ttl=100)
    cache.clock.advance(91)
    assert await cache.addresses() == ("192.0.2.1",)
    await cache.settle()
    assert await cache.addresses() == ("192.0.2.2",)
    assert cache.dns.count == 2
    assert cache.lookups == {LookUp.DNS_HIT: 2, LookUp.DNS_MISS: 1}


@pytest.mark.parametrize(("ttl", "held"), [(0, 10), (5, 10), (100, 100), (99999, 3600)])
async def test_ttls_are_bounded(ttl: float, held: float) -> None:
    cache = CacheWithDns()
    cache.dns.put(NAME, "A", "192.0.2.1", ttl=ttl)
    assert (await cache.ipv4(NAME)).validity.expires == 1000 + held


@pytest.mark.parametrize(("negative_ttl", "held"), [(30, 30), (3600, 300), (5, 5)])
async def test_negative_answers_are_cached(negative_ttl: int, held: float) -> None:
    cache = CacheWithDns(negative_ttl=negative_ttl)
    answer = await cache.srv("_kerberos._tcp.example.com")
    assert answer.records == ()
    assert answer.validity.expires == 1000 + held
    await cache.srv("_kerberos._tcp.example.com")
    assert cache.dns.count == 1


async def test_each_record_type_has_its_own_entry() -> None:
    cache = CacheWithDns()
    cache.dns.put(NAME, "AAAA", "2001:db8::1")
    cache.dns.put(NAME, "URI", "0 0 krb5srv::tcp:x")
    assert (await cache.ipv6(NAME)).records == ("2001:db8::1",)
    assert (await cache.uri(NAME)).records[0].target == "krb5srv::tcp:x"
    assert await cache.addresses() == ("192.0.2.1",)


async def test_hundred_concurrent_requests_cost_one_query() -> None:
    cache = CacheWithDns()
    answers = await asyncio.gather(*[cache.addresses() for _ in range(100)])
    assert set(answers) == {("192.0.2.1",)}
    assert cache.dns.count == 1


async def test_cancelled_first_request_does_not_end_the_look_up_of_others() -> None:
    cache = CacheWithDns()
    cache.dns.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(cache.addresses())
        second = group.create_task(cache.addresses())
        await cache.settle()
        first.cancel()
        await cache.settle()
        cache.dns.gate.set()
    assert second.result() == ("192.0.2.1",)
    assert cache.dns.count == 1


async def test_failure_is_raised_and_not_retried_at_every_request() -> None:
    cache = CacheWithDns()
    cache.dns.is_down = True
    for _ in range(5):
        with pytest.raises(DnsFailedError, match="down"):
            await cache.addresses()
    assert cache.dns.count == 1
    cache.clock.advance(FAILURE_SECONDS_LEAST)
    cache.dns.is_down = False
    assert await cache.addresses() == ("192.0.2.1",)


async def test_pauses_after_failures_grow_to_a_limit() -> None:
    cache = CacheWithDns()
    cache.dns.is_down = True
    pause = FAILURE_SECONDS_LEAST
    for count in range(1, 9):
        with pytest.raises(DnsFailedError):
            await cache.addresses()
        assert cache.dns.count == count
        cache.clock.advance(pause - 0.01)
        with pytest.raises(DnsFailedError):
            await cache.addresses()
        assert cache.dns.count == count
        cache.clock.advance(0.01)
        pause = min(pause * 2, FAILURE_SECONDS_MOST)
    assert pause == FAILURE_SECONDS_MOST


async def test_expired_answers_are_served_without_delay_while_dns_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = CacheWithDns()
    await cache.addresses()
    cache.dns.is_down = True
    cache.clock.advance(101)
    with caplog.at_level(logging.INFO, "kkdcpd"):
        answer = await cache.ipv4(NAME)
        assert (answer.records, answer.is_stale) == (("192.0.2.1",), True)
        assert answer.validity.expires == cache.clock.now + FAILURE_SECONDS_LEAST
        for _ in range(10):
            assert await cache.addresses() == ("192.0.2.1",)
        assert cache.dns.count == 2
        assert cache.lookups[LookUp.DNS_STALE] == 11
        # DNS is known to fail, so it is retried in the background only.
        cache.dns.gate = asyncio.Event()
        cache.clock.advance(FAILURE_SECONDS_LEAST)
        assert await cache.addresses() == ("192.0.2.1",)
        await cache.settle()
        assert cache.dns.count == 3
        cache.dns.is_down = False
        cache.dns.gate.set()
        await cache.settle()
        assert not (await cache.ipv4(NAME)).is_stale
    assert [record.message for record in caplog.records] == ["dns_failing", "dns_recovered"]


async def test_expired_answers_are_dropped_after_stale_ttl() -> None:
    cache = CacheWithDns(stale_ttl=50)
    await cache.addresses()
    cache.dns.is_down = True
    cache.clock.advance(149)
    assert await cache.addresses() == ("192.0.2.1",)
    cache.clock.advance(2)
    with pytest.raises(DnsFailedError):
        await cache.addresses()


async def test_slow_dns_is_not_awaited_while_an_expired_answer_exists() -> None:
    cache = CacheWithDns()
    await cache.addresses()
    cache.clock.advance(101)
    cache.dns.gate = asyncio.Event()
    async with asyncio.timeout(5):
        answer = await cache.ipv4(NAME)
    assert answer.is_stale
    cache.dns.gate.set()
    await cache.settle()
    assert not (await cache.ipv4(NAME)).is_stale


async def test_bypassing_the_cache_leaves_the_cache_unchanged() -> None:
    cache = CacheWithDns()
    await cache.addresses()
    cache.dns.put(NAME, "A", "192.0.2.2", ttl=100)
    assert (await cache.ipv4(NAME, bypass_cache=True)).records == ("192.0.2.2",)
    assert await cache.addresses() == ("192.0.2.1",)
    cache.dns.is_down = True
    again = await cache.ipv4(NAME, bypass_cache=True)
    assert (again.records, again.is_stale) == (("192.0.2.1",), True)
    assert (await cache.ipv4("other.example.com", bypass_cache=True)).failure


async def test_names_without_records_evict_only_each_other() -> None:
    cache = CacheWithDns(cache_entries=64)
    await cache.addresses()
    for number in range(500):
        await cache.addresses(f"made-up-{number}.example.com")
    assert len(cache) == 48 // 4 + 1
    queries = cache.dns.count
    await cache.addresses()
    assert cache.dns.count == queries


async def test_least_recently_used_answers_are_evicted() -> None:
    cache = CacheWithDns(cache_entries=64)
    await cache.addresses()
    for number in range(100):
        cache.dns.put(f"host-{number}", "A", "192.0.2.9")
        await cache.addresses(f"host-{number}")
        await cache.addresses()
    assert len(cache) == 36
    assert cache.dns.queries[NAME, "A"] == 1


async def test_close_cancels_look_ups() -> None:
    cache = CacheWithDns()
    cache.dns.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(cache.addresses())
        await cache.settle()
        await cache.close()
    assert waiter.cancelled()


async def test_question_that_alone_fails_is_retried_after_minutes() -> None:
    cache = CacheWithDns()
    cache.dns.broken = {RecordType.URI}
    query_times: list[float] = []
    for _ in range(1200):
        before = cache.dns.queries["_kerberos.example.com", "URI"]
        await cache.uri("_kerberos.example.com")
        await cache.addresses()
        await cache.settle()
        if cache.dns.queries["_kerberos.example.com", "URI"] > before:
            query_times.append(cache.clock.now - 1000)
        cache.clock.advance(1)
    assert query_times == [0, 1, 3, 63, 183, 423, 723, 1023]


async def test_failed_question_is_retried_in_the_background_only() -> None:
    cache = CacheWithDns()
    cache.dns.broken = {RecordType.URI}
    assert (await cache.uri(NAME)).failure
    cache.dns.broken, cache.dns.silent = set(), {RecordType.URI}
    cache.clock.advance(FAILURE_SECONDS_LEAST)
    async with asyncio.timeout(5):
        answer = await cache.uri(NAME)
    assert answer.failure
    assert answer.part_validity.expires == math.inf
    await cache.settle()
    assert cache.dns.queries[NAME, "URI"] == 2
    await cache.close()


async def test_while_dns_is_down_retries_stay_frequent(caplog: pytest.LogCaptureFixture) -> None:
    cache = CacheWithDns()
    cache.dns.is_down = True
    for _ in range(20):
        await cache.ipv4(NAME)
        await cache.settle()
        cache.clock.advance(FAILURE_SECONDS_MOST)
    cache.dns.is_down = False
    await cache.ipv4(NAME)
    await cache.settle()
    assert await cache.addresses() == ("192.0.2.1",)
    assert caplog.records == []


async def test_question_that_alone_fails_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = CacheWithDns()
    cache.dns.broken = {RecordType.URI}
    with caplog.at_level(logging.INFO, "kkdcpd"):
        for _ in range(100):
            await cache.uri(NAME)
            await cache.addresses()
            await cache.settle()
            cache.clock.advance(10)
        cache.dns.broken = set()
        cache.clock.advance(UNANSWERED_SECONDS_MOST)
        await cache.uri(NAME)
        await cache.settle()
    assert [record.message for record in caplog.records] == ["dns_failing", "dns_recovered"]


async def test_realms_under_wildcards_do_not_evict_entries_of_configured_realms() -> None:
    cache = CacheWithDns(cache_entries=64)
    await cache.addresses()
    requester.set(Requester(name="evil", is_wildcard=True))
    for number in range(500):
        cache.dns.put(f"host-{number}", "A", "192.0.2.9")
        await cache.addresses(f"host-{number}")
        await cache.addresses(f"made-up-{number}")
        cache.clock.advance(1)
        await cache.addresses()
    assert len(cache) == 64 // WILDCARD_SHARE + 1
    requester.set(Requester())
    cache.dns.queries.clear()
    await cache.addresses()
    assert cache.dns.count == 0
