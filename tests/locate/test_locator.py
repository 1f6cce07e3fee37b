"""Routes: which are made, how long they are kept, and who can't change that."""

import asyncio
import logging
from typing import Any

import pytest

from kkdcpd.errors import DnsFailedError, NoKdcKnownError, RealmNotServedError
from kkdcpd.locate.dns import Requester
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.locator import HOLD_SECONDS
from kkdcpd.locate.realms import IDLE_SECONDS, MAX_WAITING_TRIALS, TRIAL_SHARE
from kkdcpd.metrics.columns import LookUp
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.support import Bench, endpoints, realm

FORCE = DcLocatorFlags.FORCE_REDISCOVERY
PDC = DcLocatorFlags.PDC_REQUIRED


def _discovering(**settings: Any) -> Bench:
    bench = Bench(realm("EXAMPLE.COM", aliases=("EXAMPLE",)), **settings)
    bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", ttl=100)
    bench.dns.put("k1", "A", "192.0.2.1", ttl=100)
    return bench


async def test_lists_come_before_discovery_each_for_its_service() -> None:
    async with Bench(realm("EXAMPLE.COM", kdc=["tcp://192.0.2.7"], discovery="dns")) as bench:
        bench.dns.put("_kpasswd._udp.example.com", "SRV", "0 0 464 192.0.2.8")
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.7:88"]
        assert bench.dns.count == 0
        assert endpoints(await bench.locate(service=KdcService.KPASSWD)) == ["udp://192.0.2.8:464"]


async def test_what_is_configured_is_never_refused() -> None:
    async with Bench(realm("EXAMPLE.COM", kdc=["tcp://127.0.0.1:1234"])) as bench:
        route = await bench.locate()
        assert endpoints(route) == ["tcp://127.0.0.1:1234"]
        assert route.candidates[0].source == "configuration"
        assert route.candidates[0].ttl is None


async def test_a_configured_host_is_looked_up_without_admission() -> None:
    async with Bench(realm("EXAMPLE.COM", kdc=["k1"])) as bench:
        bench.dns.put("k1", "A", "127.0.0.1")
        assert endpoints(await bench.locate()) == ["tcp://127.0.0.1:88", "udp://127.0.0.1:88*"]
    async with Bench(realm("EXAMPLE.COM", kdc=["k1"]), hosts_file="192.0.2.5 k1") as bench:
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.5:88", "udp://192.0.2.5:88*"]
        assert bench.dns.count == 0


async def test_nobody_is_known_where_nothing_is_listed_nor_discovered() -> None:
    async with Bench(realm("EXAMPLE.COM", kdc=["192.0.2.1"])) as bench:
        with pytest.raises(NoKdcKnownError, match=r'realms\."EXAMPLE\.COM" has neither kpasswd'):
            await bench.locate(service=KdcService.KPASSWD)
        assert bench.dns.count == 0


async def test_configured_hosts_without_address_are_told() -> None:
    async with Bench(realm("EXAMPLE.COM", kdc=["tcp://k1"])) as bench:
        with pytest.raises(NoKdcKnownError, match="configuration: tcp://k1:88: the host has no address"):
            await bench.locate()
        bench.dns.is_down = True
        bench.clock.turn(60)
        with pytest.raises(NoKdcKnownError):
            await bench.locate()


async def test_the_route_bears_the_configured_name() -> None:
    async with _discovering() as bench:
        assert (await bench.locate("example")).realm == "EXAMPLE.COM"
        assert (await bench.locate("Example.Com.")).realm == "EXAMPLE.COM"
        asked = bench.dns.count
        await bench.locate("EXAMPLE.COM")
        assert bench.dns.count == asked


@pytest.mark.parametrize("name", ["OTHER.COM", "A.EXAMPLE.COM", "", "EXAMPLE.COM.OTHER.COM"])
async def test_a_strangers_realm_is_never_looked_up(name: str) -> None:
    async with _discovering() as bench:
        for flags in (DcLocatorFlags(0), FORCE, PDC, DcLocatorFlags(-1)):
            with pytest.raises(RealmNotServedError):
                await bench.locate(name, flags=flags)
        assert bench.dns.count == 0


async def test_a_route_is_kept_and_made_anew_while_it_serves() -> None:
    async with _discovering(negative_ttl=3600) as bench:
        first = await bench.locate()
        bench.clock.turn(89)
        assert await bench.locate() is first
        assert (bench.lookups.count(LookUp.ROUTE_MISS), bench.lookups.count(LookUp.ROUTE_HIT)) == (1, 1)
        hits = bench.lookups.count(LookUp.DNS_HIT)
        bench.clock.turn(2)
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k2", ttl=100)
        bench.dns.put("k2", "A", "192.0.2.2", ttl=100)
        assert await bench.locate() is first
        await bench.settle()
        assert bench.lookups.count(LookUp.DNS_HIT) > hits
        assert (bench.lookups.count(LookUp.ROUTE_MISS), bench.lookups.count(LookUp.ROUTE_HIT)) == (1, 2)
        bench.clock.turn(HOLD_SECONDS)
        await bench.locate()
        await bench.settle()
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.2:88"]


async def test_a_hundred_requests_at_once_make_one_route() -> None:
    async with _discovering() as bench:
        routes = await asyncio.gather(*[bench.locate() for _ in range(100)])
        assert len(set(map(id, routes))) == 1
        assert max(bench.dns.asked.values()) == 1


async def test_dns_down_is_not_felt() -> None:
    async with _discovering() as bench:
        await bench.locate()
        bench.dns.is_down = True
        for _ in range(50):
            bench.clock.turn(60)
            route = await bench.locate()
            assert endpoints(route) == ["tcp://192.0.2.1:88"]
            await bench.settle()
        assert "DNS is down" in (await bench.locate()).candidates[0].source


async def test_a_realm_that_loses_its_records_is_known_no_more() -> None:
    async with _discovering() as bench:
        await bench.locate()
        bench.dns.zone.clear()
        bench.clock.turn(101)
        with pytest.raises(NoKdcKnownError):
            await bench.locate()


async def test_dns_that_fails_from_the_start_is_told_apart() -> None:
    async with _discovering() as bench:
        bench.dns.is_down = True
        with pytest.raises(DnsFailedError):
            await bench.locate()


async def test_rediscovery_is_for_its_own_request_and_once_in_a_while() -> None:
    async with _discovering(rediscovery_interval=30) as bench:
        await bench.locate()
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k2", ttl=100)
        bench.dns.put("k2", "A", "192.0.2.2", ttl=100)
        assert endpoints(await bench.locate(flags=FORCE)) == ["tcp://192.0.2.2:88"]
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.1:88"]
        asked = bench.dns.count
        for _ in range(10):
            assert endpoints(await bench.locate(flags=FORCE)) == ["tcp://192.0.2.1:88"]
        assert bench.dns.count == asked
        bench.clock.turn(30)
        assert endpoints(await bench.locate(flags=FORCE)) == ["tcp://192.0.2.2:88"]


async def test_rediscovery_that_finds_nobody_empties_nothing() -> None:
    async with _discovering() as bench:
        await bench.locate()
        bench.dns.zone.clear()
        assert endpoints(await bench.locate(flags=FORCE)) == ["tcp://192.0.2.1:88"]
        bench.clock.turn(31)
        bench.dns.is_down = True
        assert endpoints(await bench.locate(flags=FORCE)) == ["tcp://192.0.2.1:88"]


@pytest.mark.parametrize("silent", [RecordType.SRV, RecordType.A])
async def test_rediscovery_that_gets_no_answer_goes_by_what_is_known(silent: RecordType) -> None:
    async with _discovering() as bench:
        known = await bench.locate()
        bench.dns.silent = {silent}
        async with asyncio.timeout(5):
            assert await bench.locate(flags=FORCE) == known


async def test_bits_that_mean_nothing_here_make_no_routes() -> None:
    async with _discovering() as bench:
        first = await bench.locate()
        for bit in range(1, 32):
            flags = DcLocatorFlags(1 << bit)
            if flags in {PDC, DcLocatorFlags.IS_FLAT_NAME}:
                continue
            assert await bench.locate(flags=flags) is first
        assert await bench.locate(flags=PDC) is not first


def _forest(count: int, **settings: Any) -> Bench:
    bench = Bench(realm("*.EXAMPLE.COM"), **settings)
    for number in range(count):
        bench.dns.put(f"_kerberos._tcp.r{number}.example.com", "SRV", "0 0 88 192.0.2.1")
    return bench


async def test_a_wildcards_realm_is_kept_under_its_own_name() -> None:
    async with _forest(2) as bench:
        assert (await bench.locate("R0.example.com")).realm == "*.EXAMPLE.COM"
        asked = bench.dns.count
        await bench.locate("r0.EXAMPLE.com.")
        assert bench.dns.count == asked
        await bench.locate("R1.EXAMPLE.COM", flags=FORCE)
        assert max(bench.dns.asked.values()) == 1


async def test_made_up_names_push_nobody_out() -> None:
    async with _forest(2, wildcard_realms=2) as bench:
        first = await bench.locate("r0.example.com")
        for number in range(100):
            with pytest.raises(NoKdcKnownError):
                await bench.locate(f"made-up-{number}.example.com")
        assert await bench.locate("r0.example.com") is first
        await bench.locate("r1.example.com")


async def test_a_wildcard_stands_for_so_many_realms_and_no_more() -> None:
    async with _forest(4, wildcard_realms=2) as bench:
        await bench.locate("r0.example.com")
        await bench.locate("r1.example.com")
        asked = bench.dns.count
        with pytest.raises(RealmNotServedError, match="as many realms"):
            await bench.locate("r2.example.com")
        assert bench.dns.count == asked
        bench.clock.turn(IDLE_SECONDS - 1)
        await bench.locate("r0.example.com")
        bench.clock.turn(1)
        await bench.locate("r2.example.com")
        with pytest.raises(RealmNotServedError):
            await bench.locate("r1.example.com")


async def test_a_flood_of_new_names_is_bounded_and_does_not_touch_the_known() -> None:
    async with _forest(1) as bench:
        await bench.locate("r0.example.com")
        bench.dns.gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            flood = [
                group.create_task(_outcome(bench, f"made-up-{number}.example.com")) for number in range(200)
            ]
            await bench.settle()
            assert bench.dns.count < 100
            async with asyncio.timeout(1):
                await bench.locate("r0.example.com")
            bench.dns.gate.set()
        outcomes = [task.result() for task in flood]
        assert outcomes.count("realm_not_served") == 200 - TRIAL_SHARE - MAX_WAITING_TRIALS
        assert outcomes.count("no_kdc_known") == 200 - outcomes.count("realm_not_served")


async def test_dns_knows_for_whom_it_is_asked() -> None:
    async with Bench(realm("*.EXAMPLE.COM"), realm("EXAMPLE.ORG")) as bench:
        for domain in ("b.r0.example.com", "example.org"):
            bench.dns.put(f"_kerberos._tcp.{domain}", "SRV", f"0 0 88 kdc.{domain}", ttl=60)
            bench.dns.put(f"kdc.{domain}", "A", "192.0.2.1", ttl=60)
        for _ in range(2):
            await bench.locate("b.r0.example.com")
            await bench.locate("EXAMPLE.ORG")
            await bench.locate("EXAMPLE.ORG", flags=FORCE)
            assert bench.dns.requesters["kdc.b.r0.example.com"] == Requester(
                name="r0.example.com", is_wildcard=True
            )
            assert bench.dns.requesters["kdc.example.org"] == Requester(name="example.org")
            bench.dns.requesters.clear()
            bench.clock.turn(1000)


async def _outcome(bench: Bench, name: str) -> str:
    try:
        await bench.locate(name)
    except (NoKdcKnownError, RealmNotServedError) as error:
        return error.outcome.value
    return "found"


async def test_who_is_refused_is_told_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    async with _discovering() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", "0 0 22 k1", ttl=10)
        with caplog.at_level(logging.WARNING, "kkdcpd"):
            for _ in range(10):
                await bench.locate()
                bench.clock.turn(11)
            assert len(caplog.records) == 1
            bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", "0 0 23 k1", "0 0 22 k1", ttl=10)
            bench.clock.turn(11)
            await bench.locate()
        assert len(caplog.records) == 2


async def test_names_that_are_made_up_fill_no_log(caplog: pytest.LogCaptureFixture) -> None:
    async with _forest(0) as bench:
        with caplog.at_level(logging.WARNING, "kkdcpd"):
            for number in range(20):
                bench.dns.put(f"_kerberos._tcp.x{number}.example.com", "SRV", "0 0 88 127.0.0.1")
                with pytest.raises(NoKdcKnownError, match="loopback"):
                    await bench.locate(f"x{number}.example.com")
        assert caplog.records == []


async def test_closing_ends_what_is_under_way() -> None:
    async with _discovering() as bench:
        bench.dns.gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(bench.locate())
            await bench.settle()
            await bench.locator.close()
        assert waiter.cancelled()
