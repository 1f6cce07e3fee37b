"""What is remembered of DNS, for how long, and what happens while it is down."""

import asyncio
import logging
import math
from collections import Counter
from typing import Any

import pytest

from kkdcpd.config import LocateConfig
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns import Requester, requester
from kkdcpd.locate.dns_cache import (
    FAILURE_SECONDS_LEAST,
    FAILURE_SECONDS_MOST,
    SILENCE_SECONDS_MOST,
    WILDCARD_SHARE,
    DnsCache,
)
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.metrics.columns import LookUp
from tests.locate.support import ManualClock, MemoryDns

NAME = "kdc1.example.com"


class Memory(DnsCache):
    """A cache over DNS in memory."""

    def __init__(self, **settings: Any) -> None:
        self.clock = ManualClock()
        self.dns = MemoryDns()
        self.told: Counter[LookUp] = Counter()
        self.dns.put(NAME, "A", "192.0.2.1", ttl=100)
        super().__init__(self.dns.query, LocateConfig(**settings), self.clock, self._note)

    def _note(self, look_up: LookUp) -> None:
        self.told[look_up] += 1

    async def addresses(self, name: str = NAME) -> tuple[str, ...]:
        """Return the addresses, as for a request that has nothing else."""
        answer = await self.ipv4(name, insist=True)
        if answer.failure:
            raise answer.failure
        return answer.records

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_cache_can_be_done_without_while_dns_answers() -> None:
    memory = Memory()
    assert await memory.can_be_refilled()
    assert memory.dns.count == 0
    await memory.addresses()
    assert await memory.can_be_refilled()
    memory.dns.is_down = True
    assert not await memory.can_be_refilled()
    memory.clock.turn(101)
    assert await memory.addresses() == ("192.0.2.1",)
    memory.dns.is_down = False
    assert not await memory.can_be_refilled()


async def test_an_answer_is_used_for_its_ttl() -> None:
    memory = Memory()
    assert await memory.addresses() == ("192.0.2.1",)
    memory.clock.turn(89)
    answer = await memory.ipv4("KDC1.Example.COM.")
    assert answer.validity.expires == 1100
    assert answer.validity.recheck == 1090
    assert not answer.is_stale
    assert (memory.dns.count, memory.told) == (1, {LookUp.DNS_MISS: 1, LookUp.DNS_HIT: 1})
    memory.dns.put(NAME, "A", "192.0.2.2", ttl=100)
    memory.clock.turn(12)
    assert await memory.addresses() == ("192.0.2.2",)
    assert memory.dns.count == 2


async def test_an_answer_in_use_is_asked_for_again_before_it_expires() -> None:
    memory = Memory()
    await memory.addresses()
    memory.dns.put(NAME, "A", "192.0.2.2", ttl=100)
    memory.clock.turn(91)
    assert await memory.addresses() == ("192.0.2.1",)
    await memory.settle()
    assert await memory.addresses() == ("192.0.2.2",)
    assert memory.dns.count == 2
    assert memory.told == {LookUp.DNS_HIT: 2, LookUp.DNS_MISS: 1}


@pytest.mark.parametrize(("ttl", "held"), [(0, 10), (5, 10), (100, 100), (99999, 3600)])
async def test_ttls_are_bounded(ttl: float, held: float) -> None:
    memory = Memory()
    memory.dns.put(NAME, "A", "192.0.2.1", ttl=ttl)
    assert (await memory.ipv4(NAME)).validity.expires == 1000 + held


@pytest.mark.parametrize(("negative_ttl", "held"), [(30, 30), (3600, 300), (5, 5)])
async def test_that_there_is_nothing_is_remembered_too(negative_ttl: int, held: float) -> None:
    memory = Memory(negative_ttl=negative_ttl)
    answer = await memory.srv("_kerberos._tcp.example.com")
    assert answer.records == ()
    assert answer.validity.expires == 1000 + held
    await memory.srv("_kerberos._tcp.example.com")
    assert memory.dns.count == 1


async def test_types_are_questions_of_their_own() -> None:
    memory = Memory()
    memory.dns.put(NAME, "AAAA", "2001:db8::1")
    memory.dns.put(NAME, "URI", "0 0 krb5srv::tcp:x")
    assert (await memory.ipv6(NAME)).records == ("2001:db8::1",)
    assert (await memory.uri(NAME)).records[0].target == "krb5srv::tcp:x"
    assert await memory.addresses() == ("192.0.2.1",)


async def test_a_hundred_who_ask_at_once_cost_one_query() -> None:
    memory = Memory()
    answers = await asyncio.gather(*[memory.addresses() for _ in range(100)])
    assert set(answers) == {("192.0.2.1",)}
    assert memory.dns.count == 1


async def test_who_asks_first_and_leaves_takes_nothing_from_the_others() -> None:
    memory = Memory()
    memory.dns.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(memory.addresses())
        second = group.create_task(memory.addresses())
        await memory.settle()
        first.cancel()
        await memory.settle()
        memory.dns.gate.set()
    assert second.result() == ("192.0.2.1",)
    assert memory.dns.count == 1


async def test_a_failure_is_no_answer_and_is_not_asked_for_at_every_request() -> None:
    memory = Memory()
    memory.dns.is_down = True
    for _ in range(5):
        with pytest.raises(DnsFailedError, match="down"):
            await memory.addresses()
    assert memory.dns.count == 1
    memory.clock.turn(FAILURE_SECONDS_LEAST)
    memory.dns.is_down = False
    assert await memory.addresses() == ("192.0.2.1",)


async def test_failures_are_remembered_longer_each_time_up_to_a_bound() -> None:
    memory = Memory()
    memory.dns.is_down = True
    pause = FAILURE_SECONDS_LEAST
    for count in range(1, 9):
        with pytest.raises(DnsFailedError):
            await memory.addresses()
        assert memory.dns.count == count
        memory.clock.turn(pause - 0.01)
        with pytest.raises(DnsFailedError):
            await memory.addresses()
        assert memory.dns.count == count
        memory.clock.turn(0.01)
        pause = min(pause * 2, FAILURE_SECONDS_MOST)
    assert pause == FAILURE_SECONDS_MOST


async def test_what_held_is_used_while_dns_fails_and_nobody_waits(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    await memory.addresses()
    memory.dns.is_down = True
    memory.clock.turn(101)
    with caplog.at_level(logging.INFO, "kkdcpd"):
        answer = await memory.ipv4(NAME)
        assert (answer.records, answer.is_stale) == (("192.0.2.1",), True)
        assert answer.validity.expires == memory.clock.now + FAILURE_SECONDS_LEAST
        for _ in range(10):
            assert await memory.addresses() == ("192.0.2.1",)
        assert memory.dns.count == 2
        assert memory.told[LookUp.DNS_STALE] == 11
        # Known to be down, it is asked again in the background alone.
        memory.dns.gate = asyncio.Event()
        memory.clock.turn(FAILURE_SECONDS_LEAST)
        assert await memory.addresses() == ("192.0.2.1",)
        await memory.settle()
        assert memory.dns.count == 3
        memory.dns.is_down = False
        memory.dns.gate.set()
        await memory.settle()
        assert not (await memory.ipv4(NAME)).is_stale
    assert [record.message for record in caplog.records] == ["dns_failing", "dns_recovered"]


async def test_what_held_is_given_up_in_the_end() -> None:
    memory = Memory(stale_ttl=50)
    await memory.addresses()
    memory.dns.is_down = True
    memory.clock.turn(149)
    assert await memory.addresses() == ("192.0.2.1",)
    memory.clock.turn(2)
    with pytest.raises(DnsFailedError):
        await memory.addresses()


async def test_a_slow_dns_is_not_waited_for_while_something_held() -> None:
    memory = Memory()
    await memory.addresses()
    memory.clock.turn(101)
    memory.dns.gate = asyncio.Event()
    async with asyncio.timeout(5):
        answer = await memory.ipv4(NAME)
    assert answer.is_stale
    memory.dns.gate.set()
    await memory.settle()
    assert not (await memory.ipv4(NAME)).is_stale


async def test_a_fresh_answer_on_wish_changes_nothing_for_others() -> None:
    memory = Memory()
    await memory.addresses()
    memory.dns.put(NAME, "A", "192.0.2.2", ttl=100)
    assert (await memory.ipv4(NAME, afresh=True)).records == ("192.0.2.2",)
    assert await memory.addresses() == ("192.0.2.1",)
    memory.dns.is_down = True
    again = await memory.ipv4(NAME, afresh=True)
    assert (again.records, again.is_stale) == (("192.0.2.1",), True)
    assert (await memory.ipv4("other.example.com", afresh=True)).failure


async def test_names_without_records_push_out_only_each_other() -> None:
    memory = Memory(cache_entries=64)
    await memory.addresses()
    for number in range(500):
        await memory.addresses(f"made-up-{number}.example.com")
    assert len(memory) == 48 // 4 + 1
    asked = memory.dns.count
    await memory.addresses()
    assert memory.dns.count == asked


async def test_the_answers_least_used_give_way() -> None:
    memory = Memory(cache_entries=64)
    await memory.addresses()
    for number in range(100):
        memory.dns.put(f"host-{number}", "A", "192.0.2.9")
        await memory.addresses(f"host-{number}")
        await memory.addresses()
    assert len(memory) == 36
    assert memory.dns.asked[NAME, "A"] == 1


async def test_closing_ends_look_ups() -> None:
    memory = Memory()
    memory.dns.gate = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(memory.addresses())
        await memory.settle()
        await memory.close()
    assert waiter.cancelled()


async def test_a_question_that_is_never_answered_is_left_alone_for_minutes() -> None:
    memory = Memory()
    memory.dns.broken = {RecordType.URI}
    asked: list[float] = []
    for _ in range(1200):
        before = memory.dns.asked["_kerberos.example.com", "URI"]
        await memory.uri("_kerberos.example.com")
        await memory.addresses()
        await memory.settle()
        if memory.dns.asked["_kerberos.example.com", "URI"] > before:
            asked.append(memory.clock.now - 1000)
        memory.clock.turn(1)
    assert asked == [0, 1, 3, 63, 183, 423, 723, 1023]


async def test_a_question_that_failed_is_asked_again_in_the_background_alone() -> None:
    memory = Memory()
    memory.dns.broken = {RecordType.URI}
    assert (await memory.uri(NAME)).failure
    memory.dns.broken, memory.dns.silent = set(), {RecordType.URI}
    memory.clock.turn(FAILURE_SECONDS_LEAST)
    async with asyncio.timeout(5):
        answer = await memory.uri(NAME)
    assert answer.failure
    assert answer.bound.expires == math.inf
    await memory.settle()
    assert memory.dns.asked[NAME, "URI"] == 2
    await memory.close()


async def test_while_dns_is_down_nothing_is_left_alone_for_long(caplog: pytest.LogCaptureFixture) -> None:
    memory = Memory()
    memory.dns.is_down = True
    for _ in range(20):
        await memory.ipv4(NAME)
        await memory.settle()
        memory.clock.turn(FAILURE_SECONDS_MOST)
    memory.dns.is_down = False
    await memory.ipv4(NAME)
    await memory.settle()
    assert await memory.addresses() == ("192.0.2.1",)
    assert caplog.records == []


async def test_the_log_tells_once_of_a_question_that_is_never_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = Memory()
    memory.dns.broken = {RecordType.URI}
    with caplog.at_level(logging.INFO, "kkdcpd"):
        for _ in range(100):
            await memory.uri(NAME)
            await memory.addresses()
            await memory.settle()
            memory.clock.turn(10)
        memory.dns.broken = set()
        memory.clock.turn(SILENCE_SECONDS_MOST)
        await memory.uri(NAME)
        await memory.settle()
    assert [record.message for record in caplog.records] == ["dns_failing", "dns_recovered"]


async def test_realms_under_wildcards_push_out_nothing_of_the_configured() -> None:
    memory = Memory(cache_entries=64)
    await memory.addresses()
    requester.set(Requester(name="evil", is_wildcard=True))
    for number in range(500):
        memory.dns.put(f"host-{number}", "A", "192.0.2.9")
        await memory.addresses(f"host-{number}")
        await memory.addresses(f"made-up-{number}")
        memory.clock.turn(1)
        await memory.addresses()
    assert len(memory) == 64 // WILDCARD_SHARE + 1
    requester.set(Requester())
    memory.dns.asked.clear()
    await memory.addresses()
    assert memory.dns.count == 0
