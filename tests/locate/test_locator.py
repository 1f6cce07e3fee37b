"""Routes: their making, their lifetime, and that clients cannot change them."""

import asyncio
import logging
from ipaddress import ip_network
from typing import Any

import pytest

from kkdcpd.errors import DnsFailedError, NoKdcKnownError, RealmNotServedError
from kkdcpd.locate.dns import Requester
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.locator import HOLD_SECONDS
from kkdcpd.locate.realms import IDLE_SECONDS, MAX_WAITING_LOOKUPS, NEW_LOOKUP_SHARE
from kkdcpd.metrics.columns import LookUp
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.support import LocatorWithDns, endpoints, realm

FORCE = DcLocatorFlags.FORCE_REDISCOVERY
PDC = DcLocatorFlags.PDC_REQUIRED


def _discovering(**settings: Any) -> LocatorWithDns:
    setup = LocatorWithDns(realm("EXAMPLE.COM", aliases=("EXAMPLE",)), **settings)
    setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", ttl=100)
    setup.dns.put("k1", "A", "192.0.2.1", ttl=100)
    return setup


async def test_list_takes_precedence_over_discovery_for_its_service() -> None:
    async with LocatorWithDns(realm("EXAMPLE.COM", kdc=["tcp://192.0.2.7"], discovery="dns")) as setup:
        setup.dns.put("_kpasswd._udp.example.com", "SRV", "0 0 464 192.0.2.8")
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.7:88"]
        assert setup.dns.count == 0
        assert endpoints(await setup.locate(service=KdcService.KPASSWD)) == ["udp://192.0.2.8:464"]


async def test_configured_endpoints_are_never_refused() -> None:
    async with LocatorWithDns(realm("EXAMPLE.COM", kdc=["tcp://127.0.0.1:1234"])) as setup:
        route = await setup.locate()
        assert endpoints(route) == ["tcp://127.0.0.1:1234"]
        assert route.candidates[0].source == "configuration"
        assert route.candidates[0].ttl is None


async def test_address_filter_does_not_apply_to_configured_hosts() -> None:
    async with LocatorWithDns(realm("EXAMPLE.COM", kdc=["k1"])) as setup:
        setup.dns.put("k1", "A", "127.0.0.1")
        assert endpoints(await setup.locate()) == ["tcp://127.0.0.1:88", "udp://127.0.0.1:88*"]
    async with LocatorWithDns(realm("EXAMPLE.COM", kdc=["k1"]), hosts_file="192.0.2.5 k1") as setup:
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.5:88", "udp://192.0.2.5:88*"]
        assert setup.dns.count == 0


async def test_service_without_list_and_discovery_has_no_known_server() -> None:
    async with LocatorWithDns(realm("EXAMPLE.COM", kdc=["192.0.2.1"])) as setup:
        with pytest.raises(NoKdcKnownError, match=r'realms\."EXAMPLE\.COM" has neither kpasswd'):
            await setup.locate(service=KdcService.KPASSWD)
        assert setup.dns.count == 0


async def test_configured_hosts_without_address_are_reported() -> None:
    async with LocatorWithDns(realm("EXAMPLE.COM", kdc=["tcp://k1"])) as setup:
        with pytest.raises(NoKdcKnownError, match="configuration: tcp://k1:88: the host has no address"):
            await setup.locate()
        setup.dns.is_down = True
        setup.clock.advance(60)
        with pytest.raises(NoKdcKnownError):
            await setup.locate()


async def test_route_has_the_configured_name() -> None:
    async with _discovering() as setup:
        assert (await setup.locate("example")).realm == "EXAMPLE.COM"
        assert (await setup.locate("Example.Com.")).realm == "EXAMPLE.COM"
        queries = setup.dns.count
        await setup.locate("EXAMPLE.COM")
        assert setup.dns.count == queries


@pytest.mark.parametrize("name", ["OTHER.COM", "A.EXAMPLE.COM", "", "EXAMPLE.COM.OTHER.COM"])
async def test_realm_that_is_not_configured_is_never_looked_up(name: str) -> None:
    async with _discovering() as setup:
        for flags in (DcLocatorFlags(0), FORCE, PDC, DcLocatorFlags(-1)):
            with pytest.raises(RealmNotServedError):
                await setup.locate(name, flags=flags)
        assert setup.dns.count == 0


async def test_route_is_kept_and_refreshed_while_it_is_valid() -> None:
    async with _discovering(negative_ttl=3600) as setup:
        first = await setup.locate()
        setup.clock.advance(89)
        assert await setup.locate() is first
        assert (setup.lookups.count(LookUp.ROUTE_MISS), setup.lookups.count(LookUp.ROUTE_HIT)) == (1, 1)
        hits = setup.lookups.count(LookUp.DNS_HIT)
        setup.clock.advance(2)
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k2", ttl=100)
        setup.dns.put("k2", "A", "192.0.2.2", ttl=100)
        assert await setup.locate() is first
        await setup.settle()
        assert setup.lookups.count(LookUp.DNS_HIT) > hits
        assert (setup.lookups.count(LookUp.ROUTE_MISS), setup.lookups.count(LookUp.ROUTE_HIT)) == (1, 2)
        setup.clock.advance(HOLD_SECONDS)
        await setup.locate()
        await setup.settle()
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.2:88"]


async def test_hundred_concurrent_requests_make_one_route() -> None:
    async with _discovering() as setup:
        routes = await asyncio.gather(*[setup.locate() for _ in range(100)])
        assert len(set(map(id, routes))) == 1
        assert max(setup.dns.queries.values()) == 1


async def test_routes_stay_valid_while_dns_is_down() -> None:
    async with _discovering() as setup:
        await setup.locate()
        setup.dns.is_down = True
        for _ in range(50):
            setup.clock.advance(60)
            route = await setup.locate()
            assert endpoints(route) == ["tcp://192.0.2.1:88"]
            await setup.settle()
        assert "DNS is down" in (await setup.locate()).candidates[0].source


async def test_realm_that_loses_its_records_loses_its_route() -> None:
    async with _discovering() as setup:
        await setup.locate()
        setup.dns.zone.clear()
        setup.clock.advance(101)
        with pytest.raises(NoKdcKnownError):
            await setup.locate()


async def test_failure_of_dns_differs_from_a_realm_without_servers() -> None:
    async with _discovering() as setup:
        setup.dns.is_down = True
        with pytest.raises(DnsFailedError):
            await setup.locate()


async def test_rediscovery_affects_its_own_request_only_and_is_rate_limited() -> None:
    async with _discovering(rediscovery_interval=30) as setup:
        await setup.locate()
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k2", ttl=100)
        setup.dns.put("k2", "A", "192.0.2.2", ttl=100)
        assert endpoints(await setup.locate(flags=FORCE)) == ["tcp://192.0.2.2:88"]
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.1:88"]
        queries = setup.dns.count
        for _ in range(10):
            assert endpoints(await setup.locate(flags=FORCE)) == ["tcp://192.0.2.1:88"]
        assert setup.dns.count == queries
        setup.clock.advance(30)
        assert endpoints(await setup.locate(flags=FORCE)) == ["tcp://192.0.2.2:88"]


async def test_rediscovery_without_result_keeps_the_route() -> None:
    async with _discovering() as setup:
        await setup.locate()
        setup.dns.zone.clear()
        assert endpoints(await setup.locate(flags=FORCE)) == ["tcp://192.0.2.1:88"]
        setup.clock.advance(31)
        setup.dns.is_down = True
        assert endpoints(await setup.locate(flags=FORCE)) == ["tcp://192.0.2.1:88"]


@pytest.mark.parametrize("silent", [RecordType.SRV, RecordType.A])
async def test_rediscovery_without_answer_uses_the_known_route(silent: RecordType) -> None:
    async with _discovering() as setup:
        known = await setup.locate()
        setup.dns.silent = {silent}
        async with asyncio.timeout(5):
            assert await setup.locate(flags=FORCE) == known


async def test_flags_without_meaning_make_no_further_routes() -> None:
    async with _discovering() as setup:
        first = await setup.locate()
        for bit in range(1, 32):
            flags = DcLocatorFlags(1 << bit)
            if flags in {PDC, DcLocatorFlags.IS_FLAT_NAME}:
                continue
            assert await setup.locate(flags=flags) is first
        assert await setup.locate(flags=PDC) is not first


def _forest(count: int, **settings: Any) -> LocatorWithDns:
    setup = LocatorWithDns(realm("*.EXAMPLE.COM"), **settings)
    for number in range(count):
        setup.dns.put(f"_kerberos._tcp.r{number}.example.com", "SRV", "0 0 88 192.0.2.1")
    return setup


async def test_realm_under_a_wildcard_is_kept_under_its_own_name() -> None:
    async with _forest(2) as setup:
        assert (await setup.locate("R0.example.com")).realm == "*.EXAMPLE.COM"
        queries = setup.dns.count
        await setup.locate("r0.EXAMPLE.com.")
        assert setup.dns.count == queries
        await setup.locate("R1.EXAMPLE.COM", flags=FORCE)
        assert max(setup.dns.queries.values()) == 1


async def test_invented_names_evict_no_realm() -> None:
    async with _forest(2, wildcard_realms=2) as setup:
        first = await setup.locate("r0.example.com")
        for number in range(100):
            with pytest.raises(NoKdcKnownError):
                await setup.locate(f"made-up-{number}.example.com")
        assert await setup.locate("r0.example.com") is first
        await setup.locate("r1.example.com")


async def test_number_of_realms_under_a_wildcard_is_limited() -> None:
    async with _forest(4, wildcard_realms=2) as setup:
        await setup.locate("r0.example.com")
        await setup.locate("r1.example.com")
        queries = setup.dns.count
        with pytest.raises(RealmNotServedError, match="as many realms"):
            await setup.locate("r2.example.com")
        assert setup.dns.count == queries
        setup.clock.advance(IDLE_SECONDS - 1)
        await setup.locate("r0.example.com")
        setup.clock.advance(1)
        await setup.locate("r2.example.com")
        with pytest.raises(RealmNotServedError):
            await setup.locate("r1.example.com")


async def test_flood_of_new_names_is_limited_and_does_not_affect_known_realms() -> None:
    async with _forest(1) as setup:
        await setup.locate("r0.example.com")
        setup.dns.gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            flood = [
                group.create_task(_outcome(setup, f"made-up-{number}.example.com")) for number in range(200)
            ]
            await setup.settle()
            assert setup.dns.count < 100
            async with asyncio.timeout(1):
                await setup.locate("r0.example.com")
            setup.dns.gate.set()
        outcomes = [task.result() for task in flood]
        assert outcomes.count("realm_not_served") == 200 - NEW_LOOKUP_SHARE - MAX_WAITING_LOOKUPS
        assert outcomes.count("no_kdc_known") == 200 - outcomes.count("realm_not_served")


async def test_dns_queries_know_their_realm() -> None:
    async with LocatorWithDns(realm("*.EXAMPLE.COM"), realm("EXAMPLE.ORG")) as setup:
        for domain in ("b.r0.example.com", "example.org"):
            setup.dns.put(f"_kerberos._tcp.{domain}", "SRV", f"0 0 88 kdc.{domain}", ttl=60)
            setup.dns.put(f"kdc.{domain}", "A", "192.0.2.1", ttl=60)
        for _ in range(2):
            await setup.locate("b.r0.example.com")
            await setup.locate("EXAMPLE.ORG")
            await setup.locate("EXAMPLE.ORG", flags=FORCE)
            assert setup.dns.requesters["kdc.b.r0.example.com"] == Requester(
                name="r0.example.com", is_wildcard=True
            )
            assert setup.dns.requesters["kdc.example.org"] == Requester(name="example.org")
            setup.dns.requesters.clear()
            setup.clock.advance(1000)


async def _outcome(setup: LocatorWithDns, name: str) -> str:
    try:
        await setup.locate(name)
    except (NoKdcKnownError, RealmNotServedError) as error:
        return error.outcome.value
    return "found"


async def test_refused_servers_are_logged_once_per_change(caplog: pytest.LogCaptureFixture) -> None:
    async with _discovering() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", "0 0 22 k1", ttl=10)
        with caplog.at_level(logging.WARNING, "kkdcpd"):
            for _ in range(10):
                await setup.locate()
                setup.clock.advance(11)
            assert len(caplog.records) == 1
            setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", "0 0 23 k1", "0 0 22 k1", ttl=10)
            setup.clock.advance(11)
            await setup.locate()
        assert len(caplog.records) == 2


async def test_invented_names_cause_no_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    async with _forest(0) as setup:
        with caplog.at_level(logging.WARNING, "kkdcpd"):
            for number in range(20):
                setup.dns.put(f"_kerberos._tcp.x{number}.example.com", "SRV", "0 0 88 127.0.0.1")
                with pytest.raises(NoKdcKnownError, match="loopback"):
                    await setup.locate(f"x{number}.example.com")
        assert caplog.records == []


async def test_close_cancels_look_ups() -> None:
    async with _discovering() as setup:
        setup.dns.gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(setup.locate())
            await setup.settle()
            await setup.locator.close()
        assert waiter.cancelled()


@pytest.mark.parametrize(
    ("uri", "address", "reason"),
    [
        ("https://proxy.example.com:22/", "192.0.2.1", "port 22 is not in locate.proxy_ports"),
        ("https://evil.test/", "192.0.2.1", "evil.test is outside locate.proxy_domains"),
        ("https://proxy.example.com/", "198.51.100.1", "198.51.100.1 is outside locate.proxy_networks"),
    ],
)
async def test_proxies_that_dns_may_not_name_are_refused(uri: str, address: str, reason: str) -> None:
    async with LocatorWithDns(
        realm("EXAMPLE.COM", discovery="proxies"),
        proxy_domains=("example.com",),
        proxy_networks=(ip_network("192.0.2.0/24"),),
    ) as setup:
        setup.dns.put("_kerberos.example.com", "URI", f"0 0 krb5srv:m:kkdcp:{uri}")
        for host in ("proxy.example.com", "evil.test"):
            setup.dns.put(host, "A", address)
        with pytest.raises(NoKdcKnownError, match=reason):
            await setup.locate()
        assert ("evil.test", "A") not in setup.dns.queries


async def test_address_of_this_host_is_no_proxy_that_dns_may_name() -> None:
    async with LocatorWithDns(realm("EXAMPLE.COM", discovery="proxies")) as setup:
        setup.dns.put("_kerberos._https.example.com", "SRV", "0 0 443 proxy.example.com")
        setup.dns.put("proxy.example.com", "A", "127.0.0.1", "169.254.169.254", "192.0.2.1")
        route = await setup.locate()
        assert [each.endpoint.address for each in route.candidates] == ["192.0.2.1"]
        assert [each.reason for each in route.refused] == [
            "127.0.0.1 is loopback",
            "169.254.169.254 is link-local",
        ]
