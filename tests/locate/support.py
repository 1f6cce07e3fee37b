"""An in-memory DNS, a clock that tests set, and locators with both."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from kkdcpd.config import LocateConfig, RealmConfig
from kkdcpd.config.addresses import parse_endpoint
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns import Requester, requester
from kkdcpd.locate.dns_wire import FoundRecords, RecordType
from kkdcpd.locate.locator import Locator, assemble_locator
from kkdcpd.locate.records import Record, SrvRecord, UriRecord
from kkdcpd.metrics.columns import LookUp
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, Route

NO_FLAGS = DcLocatorFlags(0)
NEGATIVE_TTL = 300.0


class ManualClock:
    """Stands still until `advance` is called."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class MemoryDns:
    """Answers from `zone`, counts queries, and fails or delays answers as set.

    `requesters` has the last requester of each name. Questions in `silent` are never answered.
    """

    def __init__(self) -> None:
        self.zone: dict[tuple[str, RecordType], FoundRecords] = {}
        self.queries: Counter[tuple[str, str]] = Counter()
        self.requesters: dict[str, Requester] = {}
        self.silent: set[RecordType | str] = set()
        self.is_down = False
        self.broken: set[RecordType] = set()
        self.gate: asyncio.Event | None = None

    def put(self, name: str, record_type: str, *data: str, ttl: float = 600) -> None:
        kind = RecordType(record_type)
        records = tuple(_record(kind, text) for text in data)
        self.zone[name, kind] = FoundRecords(records=records, ttl=ttl)

    async def query(self, name: str, record_type: RecordType) -> FoundRecords:
        self.queries[name, record_type.value] += 1
        self.requesters[name] = requester.get()
        if self.gate is not None:
            await self.gate.wait()
        if record_type in self.silent or name in self.silent:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if self.is_down or record_type in self.broken:
            raise DnsFailedError(f"DNS look-up of {record_type.value} {name}: down")
        return self.zone.get((name, record_type), FoundRecords(records=(), ttl=NEGATIVE_TTL))

    @property
    def count(self) -> int:
        return self.queries.total()


def _record(kind: RecordType, text: str) -> Record:
    words = text.split()
    if kind is RecordType.SRV:
        return SrvRecord(priority=int(words[0]), weight=int(words[1]), port=int(words[2]), target=words[3])
    if kind is RecordType.URI:
        return UriRecord(priority=int(words[0]), weight=int(words[1]), target=words[2])
    return text


def realm(
    name: str,
    *,
    kdc: Sequence[str] = (),
    primary: Sequence[str] = (),
    kpasswd: Sequence[str] = (),
    **rest: Any,
) -> RealmConfig:
    lists = {
        key: tuple(parse_endpoint(text, service=service) for text in texts)
        for key, texts, service in (
            ("kdc", kdc, KdcService.KDC),
            ("primary_kdc", primary, KdcService.KDC),
            ("kpasswd", kpasswd, KdcService.KPASSWD),
        )
    }
    return RealmConfig(name=name, **{"discovery": "none" if kdc else "dns", **lists, **rest})


class LocatorWithDns:
    """A locator with an in-memory DNS. Use it as a context manager."""

    def __init__(
        self,
        *realms: RealmConfig,
        hosts_file: str = "",
        **settings: Any,
    ) -> None:
        self.dns = MemoryDns()
        self.clock = ManualClock()
        self.lookups: list[LookUp] = []
        self.locator: Locator = assemble_locator(
            realms,
            LocateConfig(**settings),
            query=self.dns.query,
            hosts_file=hosts_file,
            clock=self.clock,
            on_lookup=self.lookups.append,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.locator.close()

    async def locate(
        self,
        name: str = "EXAMPLE.COM",
        service: KdcService = KdcService.KDC,
        flags: DcLocatorFlags = NO_FLAGS,
    ) -> Route:
        return await self.locator.locate(LocateQuery(target_domain=name, service=service, flags=flags))

    async def settle(self) -> None:
        """Let the tasks in the background end: the in-memory DNS takes a few turns of the event loop."""
        for _ in range(20):
            await asyncio.sleep(0)


def endpoints(route: Route) -> list[str]:
    """Return each candidate as TRANSPORT://ADDRESS:PORT, fallbacks with a star."""
    return [
        f"{each.endpoint.transport.value}://{each.endpoint.address}:{each.endpoint.port}"
        + ("*" if each.is_fallback else "")
        for each in route.candidates
    ]
