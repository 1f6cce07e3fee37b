"""Locates the servers of a realm: the entry point of this package.

A route is kept until a part of it may have changed, so repeated requests cost no look-up. A kept route is
refreshed in the background while it is still valid.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from kkdcpd.config import Config, LocateConfig, RealmConfig, SystemFiles
from kkdcpd.errors import LocateError, NoKdcKnownError, RealmNotServedError
from kkdcpd.locate.active_directory import ActiveDirectory
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import CandidateFinder, FoundCandidates
from kkdcpd.locate.cldap_ping import CldapPinger
from kkdcpd.locate.discovery import Discoverer, DnsDiscovery
from kkdcpd.locate.dns import DnsClient
from kkdcpd.locate.dns_cache import DnsCache, Query
from kkdcpd.locate.host_resolver import HostResolver
from kkdcpd.locate.questions import proxy_stages
from kkdcpd.locate.realms import NewRealm, RealmTable, ServedRealm, WildcardRealms
from kkdcpd.locate.routes import RouteMaker
from kkdcpd.locate.server_finder import ServerFinder
from kkdcpd.locate.shared_tasks import SharedTasks
from kkdcpd.metrics.columns import LookUp
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, Route

__all__ = ["Locator", "assemble_locator", "build_locator"]

HOLD_SECONDS = 0.25
"""The shortest lifetime of a route, even with shorter TTLs. A refresh takes some hundred microseconds."""

NEW_REALM_WAIT_SECONDS = 1.0
"""The longest wait of a request for a new name under a wildcard for a look-up slot."""

REDISCOVERY_SECONDS = 0.5
"""The longest wait of a request with FORCE_REDISCOVERY for new servers, if a route is known."""

_FORCE = DcLocatorFlags.FORCE_REDISCOVERY.value
_PRIMARY = DcLocatorFlags.PDC_REQUIRED.value
# Active Directory alone knows the properties of each server. Elsewhere all flags but PDC_REQUIRED are
# ignored, so that they do not multiply the routes.
_ACTIVE_DIRECTORY = (
    DcLocatorFlags.PDC_REQUIRED
    | DcLocatorFlags.WRITABLE_REQUIRED
    | DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED
).value
_MEANINGFUL_FLAGS = {"active_directory": _ACTIVE_DIRECTORY}

_RouteKey = tuple[KdcService, int]


@dataclass(slots=True, kw_only=True)
class _KeptRoute:
    """`recheck` is never after `expires`."""

    route: Route
    recheck: float
    expires: float


class Locator:
    """Locates the servers of configured realms. `close` cancels all tasks that it started.

    The callback `on_lookup` gets the source of each route.
    """

    def __init__(
        self,
        realms: Iterable[RealmConfig],
        config: LocateConfig,
        *,
        dns: DnsCache,
        finder: ServerFinder,
        clock: Callable[[], float],
        on_lookup: Callable[[LookUp], None],
    ) -> None:
        self._dns = dns
        self._on_lookup = on_lookup
        realms = tuple(realms)
        self._realms = RealmTable(realms)
        self._wildcards = {
            realm.name: WildcardRealms(config.wildcard_realms) for realm in realms if realm.is_wildcard
        }
        self._config = config
        self._finder = finder
        self._clock = clock
        self._route_maker = RouteMaker()
        self._routes: dict[str, dict[_RouteKey, _KeptRoute]] = {}
        self._rediscovered: dict[str, float] = {}
        self._tasks: SharedTasks[tuple[str, KdcService, int], Route] = SharedTasks("locate")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel all look-ups, and the requests that wait for them."""
        await self._tasks.close()
        await self._finder.close()
        await self._dns.close()

    async def can_be_refilled(self) -> bool:
        """Whether a new locator would find the same servers now, because DNS answers."""
        return await self._dns.can_be_refilled()

    def match(self, target_domain: str, flags: DcLocatorFlags) -> ServedRealm:
        """Return the realm with this name. No name is looked up.

        Raises:
            RealmNotServedError: no configured realm, alias or wildcard has this name.
        """
        realm = self._realms.match(target_domain, flags)
        if realm is None:
            raise RealmNotServedError(
                "no realm in [realms] has this name or alias; add it there if it is yours"
            )
        return realm

    async def locate(self, query: LocateQuery) -> Route:
        """Return the route for a request.

        Raises:
            RealmNotServedError: as `match`, or the wildcard has too many realms already.
            NoKdcKnownError: the realm has no known server for this service.
            DnsFailedError: DNS does not show whether the realm has a server for this service.
        """
        return await self.route(self.match(query.target_domain, query.flags), query.service, query.flags)

    async def route(
        self, realm: ServedRealm, service: KdcService, wish: DcLocatorFlags, *, network: str = ""
    ) -> Route:
        """Return the route for a request with these flags (`wish`) from a client network.

        Raises as `locate`.
        """
        bits = int(wish)
        flags = bits & _MEANINGFUL_FLAGS.get(realm.config.discovery, _PRIMARY)
        if bits & _FORCE and self._may_rediscover(realm):
            return await self._rediscover(realm, service, flags)
        now = self._clock()
        wildcard = self._wildcards.get(realm.config.name)
        is_known = wildcard is None or wildcard.use(realm.name, now)
        kept = self._routes[realm.name].get((service, flags)) if realm.name in self._routes else None
        is_valid = kept is not None and now < kept.expires
        self._on_lookup(LookUp.ROUTE_HIT if is_valid else LookUp.ROUTE_MISS)
        if kept is not None and now < kept.recheck:
            return kept.route
        work = partial(self._refresh, realm, service, flags)
        if kept is not None and now < kept.expires:
            self._tasks.start((realm.name, service, flags), work)
            return kept.route
        if is_known:
            return await self._tasks.run((realm.name, service, flags), work)
        return await self._locate_new_realm(realm, service, flags, network)

    async def _locate_new_realm(
        self, realm: ServedRealm, service: KdcService, flags: int, network: str
    ) -> Route:
        """Look up a name under a wildcard without known servers."""
        key = (realm.name, service, flags)
        wildcard = self._wildcards[realm.config.name]
        if key in self._tasks:
            return await self._tasks.run(key, partial(self._refresh, realm, service, flags))
        new = NewRealm.of(realm, network)
        if not wildcard.has_room(new, self._clock()):
            raise _no_room(realm.config.name)
        wildcard.begin_lookup(new)
        task = self._tasks.start(key, partial(self._look_up_new_realm, wildcard, new, realm, service, flags))
        task.add_done_callback(lambda _: wildcard.end_lookup(new))
        return await asyncio.shield(task)

    async def _look_up_new_realm(
        self, wildcard: WildcardRealms, new: NewRealm, realm: ServedRealm, service: KdcService, flags: int
    ) -> Route:
        """Wait for a slot, look the realm up, and give it an entry of the wildcard."""
        try:
            async with (
                asyncio.timeout(NEW_REALM_WAIT_SECONDS) as timeout,
                wildcard.lookup_slots.hold(new.network),
            ):
                timeout.reschedule(None)
                route = await self._refresh(realm, service, flags)
        except TimeoutError as error:
            raise _no_room(realm.config.name) from error
        evicted = wildcard.keep(new, self._clock())
        if evicted is not None:
            self._forget(evicted)
        return route

    def _forget(self, name: str) -> None:
        for key in self._routes.pop(name, {}):
            self._route_maker.forget(name, key)
        self._rediscovered.pop(name, None)

    async def _refresh(self, realm: ServedRealm, service: KdcService, flags: int) -> Route:
        """Make the route, and keep it while it is valid."""
        routes = self._routes.get(realm.name, {})
        kept = routes.get((service, flags))
        try:
            found = await self._finder.find(realm, service, DcLocatorFlags(flags))
            route = self._make_route(realm, service, flags, found)
        except NoKdcKnownError:
            routes.pop((service, flags), None)
            raise
        except LocateError:
            if kept is not None:
                # A kept route serves on after a failure, and the next request must not try again at once.
                kept.recheck = self._clock() + HOLD_SECONDS
                kept.expires = max(kept.recheck, kept.expires)
            raise
        recheck = max(found.validity.recheck, self._clock() + HOLD_SECONDS)
        self._routes.setdefault(realm.name, {})[service, flags] = _KeptRoute(
            route=route, recheck=recheck, expires=max(recheck, found.validity.expires)
        )
        return route

    def _may_rediscover(self, realm: ServedRealm) -> bool:
        """Grant a rediscovery of a known realm, at most once in `rediscovery_interval`."""
        if not self._is_known(realm):
            return False
        now = self._clock()
        interval = self._config.rediscovery_interval
        if now - self._rediscovered.get(realm.name, -interval) < interval:
            return False
        self._rediscovered[realm.name] = now
        return True

    async def _rediscover(self, realm: ServedRealm, service: KdcService, flags: int) -> Route:
        """Find the servers again for this request alone, because any client can send this flag."""
        self._on_lookup(LookUp.ROUTE_MISS)
        has_route = (service, flags) in self._routes.get(realm.name, {})
        try:
            async with asyncio.timeout(REDISCOVERY_SECONDS if has_route else None):
                found = await self._finder.find(realm, service, DcLocatorFlags(flags | _FORCE))
            return self._make_route(realm, service, flags, found)
        except (LocateError, TimeoutError):
            return await self.route(realm, service, DcLocatorFlags(flags))

    def _make_route(
        self, realm: ServedRealm, service: KdcService, flags: int, found: FoundCandidates
    ) -> Route:
        return self._route_maker.make(realm, (service, flags), found, log_refused=self._is_known(realm))

    def _is_known(self, realm: ServedRealm) -> bool:
        """Whether the realm is configured, or has an entry of its wildcard."""
        wildcard = self._wildcards.get(realm.config.name)
        return wildcard is None or realm.name in wildcard


def _no_room(wildcard: str) -> RealmNotServedError:
    return RealmNotServedError(
        f'"{wildcard}" has as many realms as locate.wildcard_realms allows, '
        "or too many new names are looked up at the moment; try again later, or raise the limit"
    )


def _ignore(_: LookUp) -> None:
    """Do not count look-ups."""


def build_locator(
    config: Config,
    system: SystemFiles,
    *,
    clock: Callable[[], float] = time.monotonic,
    on_lookup: Callable[[LookUp], None] = _ignore,
) -> Locator:
    """Build a locator that asks the configured DNS servers, or else the system's."""
    nameservers = config.locate.nameservers or system.resolver().nameservers
    client = DnsClient(nameservers, timeout=config.locate.dns_timeout)
    return assemble_locator(
        config.realms,
        config.locate,
        query=client.query,
        hosts_file=system.hosts,
        clock=clock,
        on_lookup=on_lookup,
    )


def assemble_locator(
    realms: Iterable[RealmConfig],
    config: LocateConfig,
    *,
    query: Query,
    hosts_file: str = "",
    clock: Callable[[], float] = time.monotonic,
    on_lookup: Callable[[LookUp], None] = _ignore,
) -> Locator:
    """Build a locator that asks DNS by `query`."""
    dns = DnsCache(query, config, clock, on_lookup)
    candidates = CandidateFinder(HostResolver(dns, hosts_file=hosts_file), clock)
    address_filter = AddressFilter(ports=config.allowed_ports, networks=config.allowed_networks)
    proxy_filter = AddressFilter(
        ports=config.proxy_ports,
        networks=config.proxy_networks,
        domains=config.proxy_domains,
        settings="locate.proxy",
    )
    discoverers: Mapping[str, Discoverer] = {
        "dns": DnsDiscovery(dns, candidates, address_filter),
        "proxies": DnsDiscovery(dns, candidates, proxy_filter, proxy_stages),
        "active_directory": ActiveDirectory(dns, candidates, address_filter, CldapPinger().ping, clock),
    }
    finder = ServerFinder(candidates, discoverers)
    return Locator(realms, config, dns=dns, finder=finder, clock=clock, on_lookup=on_lookup)
