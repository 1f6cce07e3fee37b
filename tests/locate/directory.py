"""A simulated Active Directory domain: DNS, domain controllers that answer pings, and a clock."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.active_directory import ActiveDirectory
from kkdcpd.locate.candidates import FoundCandidates
from kkdcpd.locate.dns_wire import FoundRecords, RecordType
from kkdcpd.locate.records import Record, SrvRecord
from kkdcpd.protocol.cldap import DomainControllerFacts, DomainControllerFlags
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery

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
    """An in-memory DNS, domain controllers and a clock. The host dcN has the address 10.0.0.N."""

    zone: dict[str, list[Record]] = field(default_factory=dict)
    alive: dict[str, DomainControllerFacts] = field(default_factory=dict)
    is_dns_down: bool = False
    ping_delay: float = 0.0
    now: float = 1000.0
    queries: list[str] = field(default_factory=list)
    pinged: list[tuple[str, ...]] = field(default_factory=list)

    async def query(self, name: str, record_type: RecordType) -> FoundRecords:
        if self.is_dns_down:
            raise DnsFailedError("no answer")
        if record_type is RecordType.SRV:
            self.queries.append(name)
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
        """Let these controllers answer pings."""
        self.alive |= {f"10.0.0.{number}": replace(FACTS, **changes) for number in numbers}  # type: ignore[arg-type]


@dataclass
class Directory:
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
        """Return the hosts in order, with their priority."""
        found = await self.discover(flags, service=service, site=site)
        return [(each.endpoint.name.partition(".")[0], each.priority) for each in found.candidates]
