import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network

import pytest

from kkdcpd.config import LocateConfig
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.active_directory import (
    FIRST_WAIT_SECONDS,
    MAX_DOMAINS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    ActiveDirectory,
)
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import CandidateFinder, FoundCandidates
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.dns_wire import FoundRecords, RecordType
from kkdcpd.locate.host_resolver import HostResolver
from kkdcpd.locate.records import Record, SrvRecord
from kkdcpd.protocol.cldap import DomainControllerFacts, DomainControllerFlags
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery
from tests.support.waiting import eventually

DOMAIN = "ad.test"
DC_NAME = f"_kerberos._tcp.dc._msdcs.{DOMAIN}"
PLAIN_NAME = f"_kerberos._tcp.{DOMAIN}"
PDC_NAME = f"_ldap._tcp.pdc._msdcs.{DOMAIN}"
KPASSWD_NAME = f"_kpasswd._tcp.{DOMAIN}"
NONE = DcLocatorFlags(0)
FULL = (
    DomainControllerFlags.KDC
    | DomainControllerFlags.LDAP
    | DomainControllerFlags.WRITABLE
    | DomainControllerFlags.CLOSEST
)
READ_ONLY = FULL & ~DomainControllerFlags.WRITABLE
FACTS = DomainControllerFacts(
    flags=FULL,
    domain_guid=uuid.UUID(int=1),
    forest=DOMAIN,
    domain=DOMAIN,
    host="dc.ad.test",
    netbios_domain="AD",
    netbios_host="DC",
    site="Main",
    client_site="Main",
)


def site_name(site: str) -> str:
    return f"_kerberos._tcp.{site}._sites.dc._msdcs.{DOMAIN}"


def srv(number: int, *, priority: int = 0, weight: int = 100, port: int = 88) -> SrvRecord:
    return SrvRecord(priority=priority, weight=weight, port=port, target=f"dc{number}.{DOMAIN}")


@dataclass
class World:
    """DNS, domain controllers and a clock, in which dcN has the address 10.0.0.N."""

    zone: dict[str, list[Record]] = field(default_factory=dict)
    alive: dict[str, DomainControllerFacts] = field(default_factory=dict)
    is_dns_down: bool = False
    ping_delay: float = 0.0
    now: float = 1000.0
    asked: list[str] = field(default_factory=list)
    pinged: list[tuple[str, ...]] = field(default_factory=list)

    async def query(self, name: str, record_type: RecordType) -> FoundRecords:
        if self.is_dns_down:
            raise DnsFailedError("nobody answers")
        if record_type is RecordType.SRV:
            self.asked.append(name)
            zone = {known.lower(): records for known, records in self.zone.items()}
            return FoundRecords(records=tuple(zone.get(name.lower(), ())), ttl=600)
        host = name.partition(".")[0]
        if record_type is RecordType.A and host.startswith("dc"):
            return FoundRecords(records=(f"10.0.0.{host[2:]}",), ttl=1200)
        return FoundRecords(records=(), ttl=600)

    async def ping(
        self, addresses: Iterable[str], domain: str, deadline: float
    ) -> Mapping[str, DomainControllerFacts]:
        assert domain == DOMAIN
        assert deadline - asyncio.get_running_loop().time() < 2
        tried = tuple(addresses)
        self.pinged.append(tried)
        await asyncio.sleep(self.ping_delay)
        return {address: facts for address, facts in self.alive.items() if address in tried}

    def controllers(self, *numbers: int, **changes: object) -> None:
        """Let these answer pings."""
        self.alive |= {f"10.0.0.{number}": replace(FACTS, **changes) for number in numbers}  # type: ignore[arg-type]


@dataclass
class Lab:
    world: World
    locator: ActiveDirectory

    async def discover(
        self, flags: DcLocatorFlags = NONE, *, service: KdcService = KdcService.KDC, site: str = ""
    ) -> FoundCandidates:
        query = LocateQuery(target_domain="AD.TEST", service=service, flags=flags)
        return await self.locator.discover("AD.TEST", query, site)

    async def order(
        self, flags: DcLocatorFlags = NONE, *, service: KdcService = KdcService.KDC, site: str = ""
    ) -> list[tuple[str, int]]:
        """Where requests go: hosts with their priority."""
        found = await self.discover(flags, service=service, site=site)
        return [(each.endpoint.name.partition(".")[0], each.priority) for each in found.candidates]


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    world = World()
    clock = lambda: world.now  # noqa: E731
    dns = DnsCache(world.query, LocateConfig(negative_ttl=1000), clock, lambda _: None)
    finder = CandidateFinder(HostResolver(dns, hosts_file=""), clock)
    address_filter = AddressFilter(ports=(88, 464), networks=(ip_network("10.0.0.0/24"),))
    locator = ActiveDirectory(dns, finder, address_filter, world.ping, clock)
    yield Lab(world, locator)
    await locator.close()
    await dns.close()


@pytest.fixture
def main_and_branch(lab: Lab) -> Lab:
    """A domain with dc1 and dc2 in Main, where we are, and dc3 and dc4 in Branch; all are well."""
    lab.world.zone = {
        DC_NAME: [srv(4), srv(3), srv(2), srv(1)],
        site_name("Main"): [srv(1), srv(2)],
        site_name("Branch"): [srv(3), srv(4)],
        PLAIN_NAME: [srv(9)],
        PDC_NAME: [srv(3, port=389)],
        KPASSWD_NAME: [srv(number, port=464) for number in (4, 3, 2, 1)],
    }
    lab.world.controllers(1, 2)
    lab.world.controllers(3, 4, site="Branch")
    return lab


async def test_controllers_of_our_site_come_first(main_and_branch: Lab) -> None:
    assert await main_and_branch.order() == [("dc1", 0), ("dc2", 0), ("dc4", 1), ("dc3", 1)]


async def test_endpoints_are_of_tcp_and_say_where_they_were_found(main_and_branch: Lab) -> None:
    found = await main_and_branch.discover()
    first, last = found.candidates[0], found.candidates[-1]
    assert str(first.endpoint) == "tcp://dc1.ad.test:88"
    assert first.endpoint.address == "10.0.0.1"
    assert (first.weight, first.ttl, first.is_fallback) == (100, 600, False)
    assert first.source == f"SRV {site_name('Main')}"
    assert last.source == f"SRV {DC_NAME}"
    assert found.refused == ()


async def test_a_configured_site_is_taken_as_it_is(main_and_branch: Lab) -> None:
    assert await main_and_branch.order(site="Branch") == [("dc3", 0), ("dc4", 0), ("dc2", 1), ("dc1", 1)]
    assert site_name("Main").lower() not in main_and_branch.world.asked


async def test_controllers_of_a_configured_site_are_pinged_first(main_and_branch: Lab) -> None:
    await main_and_branch.discover(site="Branch")
    [addresses] = main_and_branch.world.pinged
    assert addresses[:2] == ("10.0.0.3", "10.0.0.4")


async def test_a_site_without_controllers_leaves_those_of_the_domain(main_and_branch: Lab) -> None:
    main_and_branch.world.zone[site_name("Main")] = []
    assert [host for host, _ in await main_and_branch.order()] == ["dc2", "dc1", "dc4", "dc3"]


async def test_controllers_known_only_by_their_site_are_pinged_once_it_is_known(main_and_branch: Lab) -> None:
    main_and_branch.world.zone[site_name("Main")].append(srv(5))
    main_and_branch.world.controllers(5)
    await main_and_branch.discover()
    assert main_and_branch.world.pinged[1] == ("10.0.0.5",)


@pytest.mark.parametrize("site", ["", "a.b", "Ma in", "x" * 64, "Zürich", "*", "a\0b"])
async def test_a_site_that_is_no_label_is_not_looked_for(main_and_branch: Lab, site: str) -> None:
    main_and_branch.world.controllers(1, 2, 3, 4, client_site=site)
    assert len(await main_and_branch.order()) == 4
    assert set(main_and_branch.world.asked) == {DC_NAME, PLAIN_NAME}


async def test_who_answers_comes_before_who_does_not(main_and_branch: Lab) -> None:
    del main_and_branch.world.alive["10.0.0.1"]
    assert await main_and_branch.order() == [("dc2", 0), ("dc1", 1), ("dc4", 2), ("dc3", 2)]


async def test_priority_counts_among_those_who_answer(lab: Lab) -> None:
    lab.world.zone[DC_NAME] = [srv(1, priority=20), srv(2, priority=10), srv(3, priority=0)]
    lab.world.controllers(1, 2)
    assert await lab.order() == [("dc2", 0), ("dc1", 1), ("dc3", 2)]


async def test_weight_is_kept(lab: Lab) -> None:
    lab.world.zone[DC_NAME] = [srv(1, weight=10), srv(2, weight=90)]
    found = await lab.discover()
    assert {each.endpoint.name: each.weight for each in found.candidates} == {
        "dc1.ad.test": 10,
        "dc2.ad.test": 90,
    }


async def test_without_any_answer_dns_alone_counts(main_and_branch: Lab) -> None:
    main_and_branch.world.alive.clear()
    assert {priority for _, priority in await main_and_branch.order()} == {0}


async def test_the_plain_name_serves_where_there_is_no_other(lab: Lab) -> None:
    lab.world.zone[PLAIN_NAME] = [srv(9)]
    assert await lab.order() == [("dc9", 0)]


async def test_the_pdc_is_asked_at_kerberos_port(main_and_branch: Lab) -> None:
    found = await main_and_branch.discover(DcLocatorFlags.PDC_REQUIRED)
    assert [str(each.endpoint) for each in found.candidates] == ["tcp://dc3.ad.test:88"]


async def test_without_a_pdc_nobody_stands_in_for_it(main_and_branch: Lab) -> None:
    del main_and_branch.world.zone[PDC_NAME]
    assert (await main_and_branch.discover(DcLocatorFlags.PDC_REQUIRED)).candidates == ()


async def test_password_changes_go_to_our_site_first(main_and_branch: Lab) -> None:
    found = await main_and_branch.discover(service=KdcService.KPASSWD)
    assert [str(each.endpoint) for each in found.candidates] == [
        f"tcp://dc{number}.ad.test:464" for number in (2, 1, 4, 3)
    ]


async def test_password_changes_of_the_pdc_go_to_its_kpasswd_port(main_and_branch: Lab) -> None:
    found = await main_and_branch.discover(DcLocatorFlags.PDC_REQUIRED, service=KdcService.KPASSWD)
    assert [str(each.endpoint) for each in found.candidates] == ["tcp://dc3.ad.test:464"]


@pytest.mark.parametrize(
    ("flags", "service"),
    [(DcLocatorFlags.WRITABLE_REQUIRED, KdcService.KDC), (NONE, KdcService.KPASSWD)],
)
async def test_read_only_controllers_are_left_out_of_what_needs_writing(
    main_and_branch: Lab, flags: DcLocatorFlags, service: KdcService
) -> None:
    main_and_branch.world.controllers(1, 3, flags=READ_ONLY)
    del main_and_branch.world.alive["10.0.0.4"]
    found = await main_and_branch.discover(flags, service=service)
    assert [each.endpoint.name for each in found.candidates] == ["dc2.ad.test", "dc4.ad.test"]
    assert {
        (each.target.partition(":88")[0].partition(":464")[0], each.reason) for each in found.refused
    } == {
        ("tcp://dc1.ad.test", "says that it is read-only"),
        ("tcp://dc3.ad.test", "says that it is read-only"),
    }


async def test_read_only_controllers_serve_what_needs_no_writing(main_and_branch: Lab) -> None:
    main_and_branch.world.controllers(1, flags=READ_ONLY)
    assert ("dc1", 0) in await main_and_branch.order()


async def test_nobody_is_found_where_all_are_read_only_and_one_has_to_write(main_and_branch: Lab) -> None:
    main_and_branch.world.controllers(1, 2, 3, 4, flags=READ_ONLY)
    found = await main_and_branch.discover(DcLocatorFlags.WRITABLE_REQUIRED)
    assert (found.candidates, len(found.refused)) == ((), 4)


async def test_who_runs_no_kdc_is_left_out(main_and_branch: Lab) -> None:
    main_and_branch.world.controllers(1, flags=FULL & ~DomainControllerFlags.KDC)
    found = await main_and_branch.discover()
    assert "dc1.ad.test" not in [each.endpoint.name for each in found.candidates]
    assert [each.reason for each in found.refused] == ["says that it runs no KDC"]


@pytest.mark.parametrize("flag", ["DS_8", "DS_9", "DS_10"])
async def test_old_controllers_are_left_out_of_what_needs_fast(main_and_branch: Lab, flag: str) -> None:
    main_and_branch.world.controllers(1, flags=FULL | DomainControllerFlags[flag])
    del main_and_branch.world.alive["10.0.0.4"]
    order = await main_and_branch.order(DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED)
    assert [host for host, _ in order] == ["dc1", "dc4"]
    assert len(await main_and_branch.order()) == 4


async def test_where_all_controllers_are_old_they_get_what_needs_fast(main_and_branch: Lab) -> None:
    assert len(await main_and_branch.order(DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED)) == 4


async def test_ip_and_kdc_required_change_nothing(main_and_branch: Lab) -> None:
    flags = DcLocatorFlags.IP_REQUIRED | DcLocatorFlags.KDC_REQUIRED | DcLocatorFlags(0x80000000)
    assert await main_and_branch.order(flags) == await main_and_branch.order()


async def test_refused_addresses_and_ports_are_not_even_pinged(main_and_branch: Lab) -> None:
    zone = main_and_branch.world.zone
    zone[DC_NAME] = [srv(1), srv(2, port=8080), SrvRecord(priority=0, weight=0, port=88, target="127.0.0.1")]
    zone[site_name("Main")] = []
    found = await main_and_branch.discover()
    assert [each.endpoint.name for each in found.candidates] == ["dc1.ad.test"]
    assert {each.target for each in found.refused} == {"tcp://dc2.ad.test:8080", "tcp://127.0.0.1:88"}
    assert main_and_branch.world.pinged[0] == ("10.0.0.1",)
    assert all("127.0.0.1" not in tried for tried in main_and_branch.world.pinged)


async def test_a_domain_that_declines_the_service_is_told_so(lab: Lab) -> None:
    lab.world.zone[KPASSWD_NAME] = [SrvRecord(priority=0, weight=0, port=0, target=".")]
    found = await lab.discover(service=KdcService.KPASSWD)
    assert (found.candidates, [each.target for each in found.refused]) == ((), ["."])


async def test_what_is_known_is_not_asked_again(main_and_branch: Lab) -> None:
    before = await main_and_branch.order()
    count = len(main_and_branch.world.pinged)
    assert await main_and_branch.order(DcLocatorFlags.PDC_REQUIRED)
    assert await main_and_branch.order() == before
    assert len(main_and_branch.world.pinged) == count


async def test_concurrent_first_requests_share_their_pings(main_and_branch: Lab) -> None:
    main_and_branch.world.ping_delay = 0.01
    await asyncio.gather(*(main_and_branch.order() for _ in range(20)))
    assert len(main_and_branch.world.pinged) == 2  # of all, and once the site is known, of whom it adds


async def test_first_request_may_go_without_harm_to_who_waits_with_it(main_and_branch: Lab) -> None:
    main_and_branch.world.ping_delay = 0.05
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(main_and_branch.order(), name="first")
        second = tasks.create_task(main_and_branch.order(), name="second")
        await asyncio.sleep(0.01)
        first.cancel()
    assert len(second.result()) == 4


async def test_the_domain_is_pinged_again_after_a_while(main_and_branch: Lab) -> None:
    found = await main_and_branch.discover()
    assert found.validity.recheck == main_and_branch.world.now + REFRESH_SECONDS
    main_and_branch.world.now += REFRESH_SECONDS
    del main_and_branch.world.alive["10.0.0.1"]
    assert (await main_and_branch.order())[0] == ("dc1", 0)

    async def is_known() -> bool:
        return (await main_and_branch.order())[0] == ("dc2", 0)

    await eventually(is_known)


async def test_no_request_waits_for_a_refresh(main_and_branch: Lab) -> None:
    before = await main_and_branch.order()
    main_and_branch.world.now += REFRESH_SECONDS
    main_and_branch.world.ping_delay = 5
    started = asyncio.get_running_loop().time()
    assert await main_and_branch.order() == before
    assert asyncio.get_running_loop().time() - started < FIRST_WAIT_SECONDS


async def test_the_first_request_goes_by_dns_where_no_ping_is_answered(main_and_branch: Lab) -> None:
    main_and_branch.world.ping_delay = 5
    async with asyncio.timeout(2):
        assert {host for host, _ in await main_and_branch.order()} == {"dc1", "dc2", "dc3", "dc4"}


async def test_silence_does_not_undo_what_was_known(main_and_branch: Lab) -> None:
    before = await main_and_branch.order()
    main_and_branch.world.now += REFRESH_SECONDS
    main_and_branch.world.alive.clear()
    assert await main_and_branch.order() == before


async def test_forced_rediscovery_pings_anew(main_and_branch: Lab) -> None:
    await main_and_branch.order()
    main_and_branch.world.zone[site_name("Main")] = [srv(2)]
    order = await main_and_branch.order(DcLocatorFlags.FORCE_REDISCOVERY)
    assert order[0] == ("dc2", 0)
    assert len(main_and_branch.world.pinged) == 4


async def test_dns_failure_is_no_empty_answer(lab: Lab) -> None:
    lab.world.is_dns_down = True
    with pytest.raises(DnsFailedError):
        await lab.discover()


async def test_without_records_nobody_is_found_and_nobody_pinged(lab: Lab) -> None:
    found = await lab.discover()
    assert (found.candidates, found.refused) == ((), ())
    assert lab.world.pinged == []
    assert found.validity.recheck <= lab.world.now + RETRY_SECONDS


async def test_dns_that_goes_down_leaves_what_was_known(main_and_branch: Lab) -> None:
    before = [host for host, _ in await main_and_branch.order()]
    main_and_branch.world.is_dns_down = True
    main_and_branch.world.now += 2000
    found = await main_and_branch.discover()
    assert [each.endpoint.name.partition(".")[0] for each in found.candidates] == before
    assert all("expired" in each.source for each in found.candidates)


async def test_the_site_is_told_once(main_and_branch: Lab, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kkdcpd.locate.active_directory"):
        await main_and_branch.order()
        main_and_branch.world.now += REFRESH_SECONDS
        await main_and_branch.order()
    assert [record.getMessage() for record in caplog.records] == ["site_found"]
    assert caplog.records[0].__dict__["fields"] == {"domain": "ad.test", "site": "Main"}


async def test_domains_are_remembered_up_to_a_limit(main_and_branch: Lab) -> None:
    # Each configured site is remembered by itself, as each domain is.
    for number in range(MAX_DOMAINS + 1):
        await main_and_branch.order(site=f"Site-{number}")
    pings = len(main_and_branch.world.pinged)
    await main_and_branch.order(site=f"Site-{MAX_DOMAINS}")
    assert len(main_and_branch.world.pinged) == pings
    await main_and_branch.order(site="Site-0")
    assert len(main_and_branch.world.pinged) == pings + 1
