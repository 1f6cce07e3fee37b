"""Finds realms in a real DNS server, which counts its queries."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import Config, LocateConfig, Nameserver, RealmConfig, SystemFiles
from kkdcpd.errors import DnsFailedError, NoKdcKnownError, RealmNotServedError
from kkdcpd.locate.locator import Locator, build_locator
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, Route
from lab.dns import KnotServer
from tests.support.fake_dns import Habits, serving
from tests.support.waiting import eventually

ZONE = "kk.test"
KDC1 = "192.0.2.1"
KDC2 = "192.0.2.2"
SRV_ZONE = f"""
    _kerberos._tcp SRV 10 30 88 kdc1
    _kerberos._tcp SRV 10 70 88 kdc2
    _kerberos._tcp SRV 20 0 88 kdc3
    _kerberos._udp SRV 10 30 88 kdc1
    _kpasswd._udp SRV 0 0 464 kdc1
    kdc1 A {KDC1}
    kdc2 A {KDC2}
    kdc2 AAAA 2001:db8::2
    kdc3 A 192.0.2.3
"""

# Each test counts, stops or changes its server, so each test has its own server, which starts in 0.2 s.


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "knot"


class Site:
    """A DNS server and a locator that queries it."""

    def __init__(self, knot: KnotServer, locator: Locator) -> None:
        self.knot = knot
        self.locator = locator

    async def locate(
        self, realm: str = "KK.TEST", service: KdcService = KdcService.KDC, flags: int = 0
    ) -> Route:
        query = LocateQuery(target_domain=realm, service=service, flags=DcLocatorFlags(flags))
        return await self.locator.locate(query)

    async def addresses(self) -> set[str]:
        return {each.endpoint.address for each in (await self.locate()).candidates}

    async def queries(self) -> int:
        return await asyncio.to_thread(self.knot.query_count)

    async def set_zone(self, text: str) -> None:
        await asyncio.to_thread(self.knot.set_zone, ZONE, text)


@asynccontextmanager
async def _site(
    directory: Path,
    zone: str,
    *realms: RealmConfig,
    ttl: int = 3600,
    negative_ttl: int = 3600,
    **settings: Any,
) -> AsyncIterator[Site]:
    def start() -> KnotServer:
        return KnotServer(directory, {ZONE: zone}, ttl=ttl, negative_ttl=negative_ttl).__enter__()

    knot = await asyncio.to_thread(start)
    try:
        locate = LocateConfig(nameservers=(Nameserver(host=knot.address, port=knot.port),), **settings)
        config = Config(realms=realms or (RealmConfig(name="KK.TEST", discovery="dns"),), locate=locate)
        async with build_locator(config, SystemFiles()) as locator:
            yield Site(knot, locator)
    finally:
        await asyncio.to_thread(knot.stop)


def _shape(route: Route) -> list[tuple[str, int, int, bool]]:
    return [
        (
            f"{each.endpoint.transport.value}://{each.endpoint.address}",
            each.priority,
            each.weight,
            each.is_fallback,
        )
        for each in route.candidates
    ]


async def test_srv_records_are_found_with_priority_and_weight(directory: Path) -> None:
    async with _site(directory, SRV_ZONE) as site:
        route = await site.locate()
        assert _shape(route) == [
            ("tcp://2001:db8::2", 10, 70, False),
            ("tcp://192.0.2.2", 10, 70, False),
            ("tcp://192.0.2.1", 10, 30, False),
            ("tcp://192.0.2.3", 20, 0, False),
            ("udp://192.0.2.1", 10, 30, True),
        ]
        assert {each.source for each in route.candidates} == {
            "SRV _kerberos._tcp.kk.test",
            "SRV _kerberos._udp.kk.test",
        }
        kpasswd = await site.locate(service=KdcService.KPASSWD)
        assert _shape(kpasswd) == [("udp://192.0.2.1", 0, 0, False)]
        assert kpasswd.candidates[0].endpoint.port == 464


async def test_uri_records_come_before_srv(directory: Path) -> None:
    zone = (
        SRV_ZONE
        + """
        _kerberos URI 20 1 "krb5srv:m:tcp:kdc1.kk.test"
        _kerberos URI 10 1 "krb5srv::udp:[2001:db8::9]:88"
        _kerberos URI 30 1 "krb5srv:m:kkdcp:https://proxy.kk.test/KdcProxy"
        """
    )
    async with _site(directory, zone) as site:
        expected = [("udp://2001:db8::9", 10, 1, False), ("tcp://192.0.2.1", 20, 1, False)]

        async def is_found() -> bool:
            # A route does not wait for the addresses of every host.
            return _shape(await site.locate()) == expected

        await eventually(is_found)
        route = await site.locate()
        (refused,) = route.refused
        assert refused.target == "krb5srv:m:kkdcp:https://proxy.kk.test/KdcProxy"
        assert "only discovery of proxies uses it" in refused.reason
        primary = await site.locate(flags=DcLocatorFlags.PDC_REQUIRED)
        assert _shape(primary) == [("tcp://192.0.2.1", 20, 1, False)]


async def test_changed_record_is_seen_once_its_ttl_is_over(directory: Path) -> None:
    async with _site(directory, SRV_ZONE, ttl=1, negative_ttl=1, minimum_ttl=1) as site:
        assert KDC1 in await site.addresses()
        await site.set_zone(SRV_ZONE.replace(KDC1, "192.0.2.77"))
        assert KDC1 in await site.addresses()

        async def is_seen() -> bool:
            return "192.0.2.77" in await site.addresses()

        await eventually(is_seen)


async def test_what_held_is_served_while_dns_is_down(directory: Path) -> None:
    async with _site(directory, SRV_ZONE, ttl=1, negative_ttl=1, minimum_ttl=1, dns_timeout=0.3) as site:
        assert KDC1 in await site.addresses()
        await asyncio.to_thread(site.knot.stop)

        async def is_stale() -> bool:
            route = await site.locate()
            assert route.candidates
            return all("DNS is down" in each.source for each in route.candidates)

        await eventually(is_stale)
        # When DNS is known to be down, no request waits for it.
        async with asyncio.timeout(0.2):
            await site.locate()
        await site.set_zone(SRV_ZONE.replace(KDC1, "192.0.2.77"))
        await asyncio.to_thread(site.knot.start)

        async def is_back() -> bool:
            return "192.0.2.77" in await site.addresses()

        await eventually(is_back)


async def test_dns_that_fails_is_not_a_realm_without_records(directory: Path) -> None:
    async with _site(directory, SRV_ZONE, dns_timeout=0.2) as site:
        await asyncio.to_thread(site.knot.stop)
        with pytest.raises(DnsFailedError, match=r"kk\.test: no answer within 0\.2 s"):
            await site.locate()
    elsewhere = RealmConfig(name="REFUSED.TEST", discovery="dns")
    async with _site(directory, SRV_ZONE, elsewhere) as site:
        with pytest.raises(DnsFailedError, match="REFUSED"):
            await site.locate("REFUSED.TEST")


async def test_realm_without_records_is_queried_once(directory: Path) -> None:
    unknown = RealmConfig(name="UNKNOWN.KK.TEST", discovery="dns")
    async with _site(directory, SRV_ZONE, unknown) as site:
        for _ in range(20):
            with pytest.raises(NoKdcKnownError):
                await site.locate("UNKNOWN.KK.TEST")
        # URI, and SRV over TCP and UDP.
        assert await site.queries() == 3


async def test_hundred_requests_at_once_cost_one_look_up(directory: Path) -> None:
    async with _site(directory, SRV_ZONE) as site:
        routes = await asyncio.gather(*[site.locate() for _ in range(100)])
        assert all(route == routes[0] for route in routes)
        # URI, two SRV, and A and AAAA of three hosts.
        assert await site.queries() == 9
        await asyncio.gather(*[site.locate() for _ in range(100)])
        assert await site.queries() == 9


async def test_realm_outside_the_configuration_costs_no_query(directory: Path) -> None:
    realms = (
        RealmConfig(name="KK.TEST", discovery="dns", aliases=("KK",)),
        RealmConfig(name="*.SUB.KK.TEST", discovery="dns"),
    )
    strange = (
        "EVIL.TEST",
        "KK.TEST.EVIL.TEST",
        "XKK.TEST",
        "SUB.KK.TEST",
        "a..SUB.KK.TEST",
        "a b.SUB.KK.TEST",
        f"{'x' * 64}.SUB.KK.TEST",
        f"{'x.' * 200}SUB.KK.TEST",
        "",
        ".",
        "\0.SUB.KK.TEST",
        "é.SUB.KK.TEST",
    )
    async with _site(directory, SRV_ZONE, *realms) as site:
        for realm in strange:
            with pytest.raises(RealmNotServedError):
                await site.locate(realm, flags=DcLocatorFlags.FORCE_REDISCOVERY)
        for _ in range(3):
            with pytest.raises(RealmNotServedError):
                await site.locate("KK.TEST", flags=DcLocatorFlags.IS_FLAT_NAME)
        assert await site.queries() == 0


async def test_records_that_point_at_ourselves_are_refused(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zone = """
        _kerberos._tcp SRV 0 0 88 self
        _kerberos._tcp SRV 0 0 88 mapped
        _kerberos._tcp SRV 0 0 6379 kdc1
        _kerberos._tcp SRV 0 0 88 kdc1
        self A 127.0.0.1
        mapped AAAA ::ffff:169.254.169.254
        kdc1 A 192.0.2.1
    """
    async with _site(directory, zone) as site:
        with caplog.at_level(logging.WARNING, "kkdcpd"):
            for _ in range(5):
                route = await site.locate()
        assert _shape(route) == [("tcp://192.0.2.1", 0, 0, False)]
        assert {(each.target, each.reason) for each in route.refused} == {
            ("tcp://self.kk.test:88", "127.0.0.1 is loopback"),
            ("tcp://mapped.kk.test:88", "169.254.169.254 is link-local"),
            ("tcp://kdc1.kk.test:6379", "port 6379 is not in locate.allowed_ports"),
        }
        refusals = [record.fields for record in caplog.records if record.message == "server_refused"]  # type: ignore[attr-defined]
        assert [fields["source"] for fields in refusals] == ["SRV _kerberos._tcp.kk.test"] * 3
        # The refused port does not prevent one address query for its host: another record names the host too.
        assert await site.queries() == 3 + 2 * 3


async def test_domain_may_say_that_it_has_no_kpasswd(directory: Path) -> None:
    zone = """
        _kpasswd._tcp SRV 0 0 0 .
        _kerberos-adm._tcp SRV 0 0 749 kdc1
        kdc1 A 192.0.2.1
    """
    async with _site(directory, zone) as site:
        with pytest.raises(NoKdcKnownError, match="no such service"):
            await site.locate(service=KdcService.KPASSWD)


async def test_long_answers_come_over_tcp(directory: Path) -> None:
    hosts = {f"{'long-name-' * 5}{number}": f"192.0.2.{number}" for number in range(1, 61)}
    zone = "".join(
        f"_kerberos._tcp SRV 0 0 88 {host}\n{host} A {address}\n" for host, address in hosts.items()
    )
    async with _site(directory, zone) as site:
        assert (await site.locate()).candidates

        # The first request does not wait for all addresses.
        async def are_all_known() -> bool:
            return len((await site.locate()).candidates) == 60

        await eventually(are_all_known)


async def test_dead_nameserver_costs_its_share_once(directory: Path) -> None:
    async with _site(directory, SRV_ZONE) as site:
        dead = Nameserver(host="127.0.0.1", port=9)
        live = Nameserver(host=site.knot.address, port=site.knot.port)
        locate = LocateConfig(nameservers=(dead, live), dns_timeout=0.9)
        config = Config(realms=(RealmConfig(name="KK.TEST", discovery="dns"),), locate=locate)
        async with build_locator(config, SystemFiles()) as locator:
            loop = asyncio.get_running_loop()
            started = loop.time()
            query = LocateQuery(target_domain="KK.TEST", service=KdcService.KDC, flags=DcLocatorFlags(0))
            assert (await locator.locate(query)).candidates
            assert loop.time() - started < 0.6


async def test_realms_of_a_forest_are_found_under_a_wildcard(directory: Path) -> None:
    zone = "_kerberos._tcp.child SRV 0 0 88 dc.child\ndc.child A 192.0.2.8\n"
    forest = RealmConfig(name="*.KK.TEST", discovery="dns")
    async with _site(directory, zone, forest) as site:
        route = await site.locate("Child.kk.TEST")
        assert route.realm == "*.KK.TEST"
        assert _shape(route) == [("tcp://192.0.2.8", 0, 0, False)]
        with pytest.raises(NoKdcKnownError):
            await site.locate("made-up.kk.test")
        with pytest.raises(RealmNotServedError):
            await site.locate("kk.test")


SILENT_ZONE = """
    _kerberos._tcp.z.test 1 SRV 0 100 88 kdc1.z.test.
    _kerberos._tcp.z.test 1 SRV 0 100 88 kdc2.z.test.
    _kerberos._udp.z.test 1 SRV 0 100 88 kdc1.z.test.
    _kerberos-adm._tcp.z.test 1 SRV 0 100 749 kdc1.z.test.
    _kpasswd._tcp.z.test 1 SRV 0 100 464 kdc1.z.test.
    _kerberos._tcp.dc._msdcs.z.test 1 SRV 0 100 88 kdc1.z.test.
    kdc1.z.test 1 A 127.0.9.10
    kdc1.z.test 1 AAAA ::1
    kdc2.z.test 1 A 127.0.9.11
"""
# Without a limit, each request takes the 2 s of locate.dns_timeout. A busy machine may be slow too.
FIRST_SECONDS = 1.5
LATER_SECONDS = 0.5
DNS, SITE = (
    RealmConfig(name="Z.TEST", discovery="dns"),
    RealmConfig(name="Z.TEST", discovery="active_directory", site="Main"),
)
SITE_NAME = "_kerberos._tcp.Main._sites.dc._msdcs.z.test"
PDC, KDC, KPASSWD = int(DcLocatorFlags.PDC_REQUIRED), KdcService.KDC, KdcService.KPASSWD


def _dropped(*questions: str) -> Habits:
    return Habits(dropped=questions)


QUESTIONS = {
    "URI": (_dropped("URI"), DNS, KDC, 0),
    "AAAA": (_dropped("AAAA"), DNS, KDC, 0),
    "A": (_dropped("kdc1.z.test A"), DNS, KDC, 0),
    "udp": (_dropped("_kerberos._udp.z.test"), DNS, KDC, 0),
    "master": (_dropped("_kerberos-master._tcp.z.test", "_kerberos-master._udp.z.test"), DNS, KDC, PDC),
    "kpasswd udp": (_dropped("_kpasswd._udp.z.test", "URI"), DNS, KPASSWD, 0),
    "kpasswd": (_dropped(*(f"_kpasswd{each}.z.test" for each in ("", "._tcp", "._udp"))), DNS, KPASSWD, 0),
    "one of two KDCs": (_dropped("kdc2.z.test"), DNS, KDC, 0),
    "site": (_dropped(SITE_NAME.lower()), SITE, KDC, 0),
    "domain": (_dropped("_kerberos._tcp.z.test"), SITE, KDC, 0),
    "several": (_dropped("URI", "AAAA", "_kerberos._udp.z.test"), DNS, KDC, 0),
    "slow": (Habits(slow={"URI": 1.5, "AAAA": 1.5}), DNS, KDC, 0),
    "SERVFAIL": (Habits(failing={"URI": "SERVFAIL"}), DNS, KDC, 0),
    "REFUSED": (Habits(failing={"AAAA": "REFUSED"}), DNS, KDC, 0),
    "EDNS dropped": (Habits(edns="drop"), DNS, KDC, 0),
    "EDNS refused": (Habits(edns="FORMERR", dropped=["URI"]), DNS, KDC, 0),
}


async def test_question_that_is_never_answered_holds_up_no_request() -> None:
    async with asyncio.TaskGroup() as tasks:
        for name, (habits, realm, service, flags) in QUESTIONS.items():
            tasks.create_task(_meet_habits(habits, realm, service, flags), name=name)


async def _meet_habits(habits: Habits, realm: RealmConfig, service: KdcService, flags: int) -> None:
    async with serving(SILENT_ZONE, habits) as server:
        await _meet_no_wait((Nameserver(host=server.address, port=server.port),), realm, service, flags)


async def test_one_of_two_nameservers_that_is_silent_holds_up_no_request() -> None:
    async with serving(SILENT_ZONE, _dropped("URI")) as server, serving("", _dropped(*_TYPES)) as silent:
        nameservers = tuple(Nameserver(host=each.address, port=each.port) for each in (silent, server))
        await _meet_no_wait(nameservers, DNS, KDC, 0)


async def test_controllers_that_answer_no_ping_hold_up_no_request() -> None:
    zone = SILENT_ZONE.replace("127.0.9.1", "192.0.2.1").replace("kdc1.z.test 1 AAAA ::1", "")
    async with serving(zone) as server:
        await _meet_no_wait((Nameserver(host=server.address, port=server.port),), SITE, KDC, 0)


_TYPES = ("A", "AAAA", "SRV", "URI")


async def _meet_no_wait(
    nameservers: tuple[Nameserver, ...], realm: RealmConfig, service: KdcService, flags: int
) -> None:
    """Locate as requests do, while TTLs end and routes are refreshed, and after all records have expired."""
    networks = tuple(ip_network(each) for each in ("127.0.0.0/8", "::1/128", "192.0.2.0/24"))
    locate = LocateConfig(
        nameservers=nameservers, minimum_ttl=1, maximum_ttl=1, negative_ttl=1, allowed_networks=networks
    )
    config = Config(realms=(realm,), locate=locate)
    query = LocateQuery(target_domain="Z.TEST", service=service, flags=DcLocatorFlags(flags))
    loop = asyncio.get_running_loop()
    taken: list[float] = []
    async with build_locator(config, SystemFiles()) as locator:
        for pause in (0.0, 0.3, 0.3, 0.3, 0.3, 0.3, 1.2, 0.3, 1.2):
            await asyncio.sleep(pause)
            started = loop.time()
            assert (await locator.locate(query)).candidates
            taken.append(loop.time() - started)
    task = asyncio.current_task()
    name = task.get_name() if task else ""
    assert taken[0] < FIRST_SECONDS, (name, taken)
    # A busy machine may delay some of them.
    assert sorted(taken[1:])[-3] < LATER_SECONDS, (name, taken)
