"""Learns the site of this host in a domain, and the facts of the domain's controllers, by LDAP pings.

`cldap_ping` has the sockets. This module decides which controllers get a ping, and keeps the answers.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import field, replace
from functools import partial

from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import CandidateFinder
from kkdcpd.locate.domain_records import DomainRecords, domain_name, site_name
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.locate.shared_tasks import SharedTasks
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.cldap import DomainControllerFacts
from kkdcpd.values import KdcService

__all__ = ["DomainFacts", "DomainFactsFinder", "Ping"]

logger = EventLogger(__name__)

PING_SECONDS = 1.0
"""The time limit for all pings of a domain. Controllers answer within a round trip."""

FIRST_WAIT_SECONDS = 0.3
"""The longest wait of the first request of a domain for the site and the pings. Then the request uses DNS
alone: UDP 389 may be filtered, or DNS may not answer for the site."""

REFRESH_SECONDS = 300.0
"""The interval of the pings of a domain in use. Netlogon keeps its choice for 12 hours. The health of a KDC
changes faster, but `upstream.health` learns it from requests."""

RETRY_SECONDS = 5.0
"""The pause before a domain without a known controller is looked up again."""

MAX_DOMAINS = 1024
"""The number of domains that are kept: ten times the largest forests. A wildcard has its own limit."""

_SITE_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
"""A site name is one label of a DNS name ([MS-ADTS] 6.1.1.2.2.1). Datagrams are easy to forge, so a site name
with other characters is ignored."""

Ping = Callable[[Iterable[str], str, float], Awaitable[Mapping[str, DomainControllerFacts]]]

_Key = tuple[str, str]
"""The domain and the configured site, which may be ""."""


@frozen
class DomainFacts:
    """The site of this host in a domain ("" if unknown), and the facts of its controllers by address."""

    site: str = ""
    facts: Mapping[str, DomainControllerFacts] = field(default_factory=dict)
    recheck: float = 0.0
    has_controllers: bool = False


_UNKNOWN = DomainFacts()


class DomainFactsFinder:
    """Pings the domain controllers, and keeps the facts while they are silent later."""

    def __init__(
        self,
        records: DomainRecords,
        finder: CandidateFinder,
        address_filter: AddressFilter,
        ping: Ping,
        clock: Callable[[], float],
    ) -> None:
        self._records = records
        self._finder = finder
        self._address_filter = address_filter
        self._ping = ping
        self._clock = clock
        self._domains: OrderedDict[_Key, DomainFacts] = OrderedDict()
        self._tasks: SharedTasks[_Key, DomainFacts] = SharedTasks("domain controllers of")

    async def find(self, name: str, site: str, *, bypass_cache: bool) -> DomainFacts:
        """Return the known facts. Only the first request of a domain waits, for FIRST_WAIT_SECONDS."""
        key = (name, site)
        known = self._domains.get(key)
        now = self._clock()
        if known is not None and not bypass_cache:
            self._domains.move_to_end(key)
            if now < known.recheck:
                return known
        task = self._tasks.start(key, partial(self._learn, key, bypass_cache=bypass_cache))
        if known is None or bypass_cache:
            await asyncio.wait([task], timeout=FIRST_WAIT_SECONDS)
        if task.done():
            return task.result()
        return replace(known or DomainFacts(site=site), recheck=now)

    async def close(self) -> None:
        """Cancel all pings."""
        await self._tasks.close()

    async def _learn(self, key: _Key, *, bypass_cache: bool) -> DomainFacts:
        """Ping the controllers and store their facts. Silent controllers keep their earlier facts."""
        before = self._domains.get(key, _UNKNOWN)
        found = await self._explore(*key, bypass_cache=bypass_cache)
        domain = replace(found, site=found.site or before.site, facts=found.facts or before.facts)
        if not key[1] and domain.site != before.site:
            logger.info("site_found", domain=key[0], site=domain.site)
        # A client may have invented a name without controllers, so the name gets no entry.
        if found.has_controllers or key in self._domains:
            self._domains[key] = domain
        if len(self._domains) > MAX_DOMAINS:
            self._domains.popitem(last=False)
        return domain

    async def _explore(self, name: str, site: str, *, bypass_cache: bool) -> DomainFacts:
        """Ping the controllers of a known site first, and the controllers of an unknown site afterwards."""
        names = (*((site_name(name, site),) if site else ()), domain_name(name))
        loop = asyncio.get_running_loop()
        tasks = {
            each: loop.create_task(self._addresses(each, bypass_cache=bypass_cache), name=each)
            for each in names
        }
        known = await gather_with_grace(tasks, lambda found: any(found.values()))
        addresses = tuple(address for each in names for address in known.get(each, ()))
        if not addresses:
            return DomainFacts(site=site, recheck=self._clock() + RETRY_SECONDS)
        deadline = asyncio.get_running_loop().time() + PING_SECONDS
        facts = dict(await self._ping(addresses, name, deadline))
        found_site = site or _site_of(facts.values())
        if found_site and not site:
            near = await self._addresses(site_name(name, found_site), bypass_cache=bypass_cache)
            facts |= await self._ping([each for each in near if each not in addresses], name, deadline)
        recheck = self._clock() + (REFRESH_SECONDS if len(known) == len(names) else RETRY_SECONDS)
        return DomainFacts(site=found_site, facts=facts, recheck=recheck, has_controllers=True)

    async def _addresses(self, name: str, *, bypass_cache: bool) -> tuple[str, ...]:
        """Return the allowed addresses of the controllers in the records of a name."""
        named = await self._records.look_up(name, KdcService.KDC, bypass_cache=bypass_cache)
        try:
            found = await self._finder.find(
                named.targets, address_filter=self._address_filter, bypass_cache=bypass_cache
            )
        except DnsFailedError:
            return ()
        return tuple(candidate.endpoint.address for candidate in found.candidates)


def _site_of(facts: Iterable[DomainControllerFacts]) -> str:
    """Return the first valid site that a controller reports for this host, or ""."""
    return next((each.client_site for each in facts if _SITE_NAME.fullmatch(each.client_site)), "")
