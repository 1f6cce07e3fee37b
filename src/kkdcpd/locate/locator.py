"""From a realm's name to where its servers are: the way in to this package.

A route is kept until something in it may have changed, so a request that comes often costs no look-up of any
kind; and it is made anew while the old one still serves.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

from kkdcpd.config import Config, LocateConfig, RealmConfig, SystemFiles
from kkdcpd.errors import LocateError, NoKdcKnownError, RealmNotServedError
from kkdcpd.locate.active_directory import ActiveDirectory
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import CandidateFinder
from kkdcpd.locate.cldap_ping import CldapPinger
from kkdcpd.locate.discovery import Discoverer, DnsDiscovery, FoundCandidates
from kkdcpd.locate.dns import DnsClient, Requester, requester
from kkdcpd.locate.dns_cache import DnsCache, Query
from kkdcpd.locate.host_resolver import HostResolver
from kkdcpd.locate.realms import NewRealm, RealmTable, ServedRealm, WildcardRealms
from kkdcpd.locate.shared_tasks import SharedTasks
from kkdcpd.locate.static import listed_targets
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.columns import LookUp
from kkdcpd.values import Candidate, DcLocatorFlags, KdcService, LocateQuery, RefusedCandidate, Route

__all__ = ["Locator", "assemble_locator", "build_locator"]

logger = EventLogger(__name__)

HOLD_SECONDS = 0.25
"""A route is made anew no more often than this, whatever TTLs say: it takes some hundred microseconds."""

TRIAL_WAIT_SECONDS = 1.0
"""How long a request for a new name under a wildcard waits for its turn to be looked up."""

REDISCOVERY_SECONDS = 0.5
"""How long a request that wishes for rediscovery waits for it, where a route is known."""

MAX_REASONS = 4
"""So many servers that are refused are named in the log line of a request."""

_FORCE = DcLocatorFlags.FORCE_REDISCOVERY.value
_PRIMARY = DcLocatorFlags.PDC_REQUIRED.value
# WRITABLE_REQUIRED and the like mean something where discovery knows what each server is; elsewhere they, and
# all unknown bits, are ignored, so they don't make for more routes either.
_ACTIVE_DIRECTORY = (
    DcLocatorFlags.PDC_REQUIRED
    | DcLocatorFlags.WRITABLE_REQUIRED
    | DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED
).value
_MEANINGFUL_FLAGS = {"active_directory": _ACTIVE_DIRECTORY}

_RouteKey = tuple[KdcService, int]


@dataclass(slots=True, kw_only=True)
class _HeldRoute:
    """`recheck` is never after `expires`."""

    route: Route
    recheck: float
    expires: float


class Locator:
    """Locates the servers of configured realms. What it started, `close` ends.

    `tell` hears how each route was come by.
    """

    def __init__(
        self,
        realms: Iterable[RealmConfig],
        config: LocateConfig,
        *,
        dns: DnsCache,
        finder: CandidateFinder,
        discoverers: Mapping[str, Discoverer],
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
        self._discoverers = discoverers
        self._clock = clock
        self._routes: dict[str, dict[_RouteKey, _HeldRoute]] = {}
        self._rediscovered: dict[str, float] = {}
        self._told: dict[tuple[str, _RouteKey], frozenset[RefusedCandidate]] = {}
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
        """End all look-ups; who waits for one is cancelled."""
        await self._tasks.close()
        for discoverer in self._discoverers.values():
            await discoverer.close()
        await self._dns.close()

    async def can_be_refilled(self) -> bool:
        """Whether one that knows nothing yet would find what this one knows: DNS answers."""
        return await self._dns.can_be_refilled()

    def match(self, target_domain: str, flags: DcLocatorFlags) -> ServedRealm:
        """Return the realm that is asked for. This looks nothing up.

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
        """Return where the request may go.

        Raises:
            RealmNotServedError: as `match`, or there are too many under its wildcard already.
            NoKdcKnownError: nobody serves this, as far as is known.
            DnsFailedError: that can't be known at the moment.
        """
        return await self.route(self.match(query.target_domain, query.flags), query.service, query.flags)

    async def route(
        self, realm: ServedRealm, service: KdcService, wish: DcLocatorFlags, *, network: str = ""
    ) -> Route:
        """Return where a request of a client network may go that wishes for such a server.

        Raises as `locate`.
        """
        bits = int(wish)
        flags = bits & _MEANINGFUL_FLAGS.get(realm.config.discovery, _PRIMARY)
        if bits & _FORCE and self._may_rediscover(realm):
            return await self._rediscover(realm, service, flags)
        now = self._clock()
        # All realms are known to be ones but those under a wildcard.
        places = self._wildcards.get(realm.config.name)
        has_place = places is None or places.use(realm.name, now)
        held = self._routes[realm.name].get((service, flags)) if realm.name in self._routes else None
        is_held = held is not None and now < held.expires
        self._on_lookup(LookUp.ROUTE_HIT if is_held else LookUp.ROUTE_MISS)
        if held is not None and now < held.recheck:
            return held.route
        work = partial(self._renew, realm, service, flags)
        if held is not None and now < held.expires:
            self._tasks.start((realm.name, service, flags), work)
            return held.route
        if has_place:
            return await self._tasks.run((realm.name, service, flags), work)
        return await self._try(realm, service, flags, network)

    async def _try(self, realm: ServedRealm, service: KdcService, flags: int, network: str) -> Route:
        """Look up a name under a wildcard that no request named before, or not with success."""
        key = (realm.name, service, flags)
        places = self._wildcards[realm.config.name]
        if key in self._tasks:
            return await self._tasks.run(key, partial(self._renew, realm, service, flags))
        newcomer = NewRealm.of(realm, network)
        if not places.has_room(newcomer, self._clock()):
            raise _no_room(realm.config.name)
        places.begin_trial(newcomer)
        trial = self._tasks.start(key, partial(self._renew_on_trial, places, newcomer, realm, service, flags))
        trial.add_done_callback(lambda _: places.end_trial(newcomer))
        return await asyncio.shield(trial)

    async def _renew_on_trial(
        self, places: WildcardRealms, newcomer: NewRealm, realm: ServedRealm, service: KdcService, flags: int
    ) -> Route:
        try:
            async with asyncio.timeout(TRIAL_WAIT_SECONDS) as turn, places.trials.hold(newcomer.network):
                turn.reschedule(None)
                route = await self._renew(realm, service, flags)
        except TimeoutError as error:
            raise _no_room(realm.config.name) from error
        without_place = places.keep(newcomer, self._clock())
        if without_place is not None:
            self._forget(without_place)
        return route

    def _forget(self, name: str) -> None:
        for service, flags in self._routes.pop(name, {}):
            self._told.pop((name, (service, flags)), None)
        self._rediscovered.pop(name, None)

    async def _renew(self, realm: ServedRealm, service: KdcService, flags: int) -> Route:
        """Make the route, and keep it for as long as it holds."""
        routes = self._routes.get(realm.name, {})
        held = routes.get((service, flags))
        try:
            found = await self._find(realm, service, flags)
            route = self._route(realm, service, flags, found)
        except NoKdcKnownError:
            routes.pop((service, flags), None)
            raise
        except LocateError:
            if held is not None:
                # It serves for as long as it holds, and needs no new try at every request.
                held.recheck = self._clock() + HOLD_SECONDS
                held.expires = max(held.recheck, held.expires)
            raise
        recheck = max(found.validity.recheck, self._clock() + HOLD_SECONDS)
        self._routes.setdefault(realm.name, {})[service, flags] = _HeldRoute(
            route=route, recheck=recheck, expires=max(recheck, found.validity.expires)
        )
        return route

    def _may_rediscover(self, realm: ServedRealm) -> bool:
        """Tell whether the wish is granted: of each realm that is known, once in a while."""
        now = self._clock()
        places = self._wildcards.get(realm.config.name)
        if places is not None and realm.name not in places:
            return False
        if now - self._rediscovered.get(realm.name, -self._config.rediscovery_interval) < (
            self._config.rediscovery_interval
        ):
            return False
        self._rediscovered[realm.name] = now
        return True

    async def _rediscover(self, realm: ServedRealm, service: KdcService, flags: int) -> Route:
        """Find the servers anew for this request alone: a stranger wishes it, so nobody else is touched."""
        self._on_lookup(LookUp.ROUTE_MISS)
        is_known = (service, flags) in self._routes.get(realm.name, {})
        try:
            async with asyncio.timeout(REDISCOVERY_SECONDS if is_known else None):
                found = await self._find(realm, service, flags | _FORCE)
            return self._route(realm, service, flags, found)
        except (LocateError, TimeoutError):
            return await self.route(realm, service, DcLocatorFlags(flags))

    async def _find(self, realm: ServedRealm, service: KdcService, flags: int) -> FoundCandidates:
        """Take the realm's list if it has one for the service, else discover."""
        requester.set(Requester(name=realm.branch or realm.name, is_wildcard=realm.config.is_wildcard))
        locator_flags = DcLocatorFlags(flags)
        targets = listed_targets(realm.config, service, locator_flags)
        if targets:
            return await self._finder.find(targets, bypass_cache=bool(flags & _FORCE))
        discoverer = self._discoverers.get(realm.config.discovery)
        if discoverer is None:
            raise NoKdcKnownError(
                f'realms."{realm.config.name}" has neither {service.value} nor discovery; add one of them'
            )
        query = LocateQuery(target_domain=realm.name, service=service, flags=locator_flags)
        return await discoverer.discover(realm.name, query, realm.config.site)

    def _route(self, realm: ServedRealm, service: KdcService, flags: int, found: FoundCandidates) -> Route:
        """Make a route of what was found, and tell the operator who was refused, once per change."""
        self._tell(realm, (service, flags), found.refused)
        if not found.candidates:
            raise NoKdcKnownError(
                _reasons(found.refused) or f"DNS names no server for {service.value} of {realm.name}"
            )
        # Realms are in capitals by custom, and what a client wrote is no guide.
        kerberos_realm = realm.name.upper() if realm.config.is_wildcard else realm.config.name
        return Route(
            realm=realm.config.name,
            kerberos_realm=kerberos_realm,
            candidates=_of_branch(found.candidates, realm.branch),
            refused=found.refused,
        )

    def _tell(self, realm: ServedRealm, key: _RouteKey, refused: tuple[RefusedCandidate, ...]) -> None:
        places = self._wildcards.get(realm.config.name)
        if places is not None and realm.name not in places:
            return  # whoever asks for a name that is made up gets it all in his own log line
        now_refused = frozenset(refused)
        before = self._told.get((realm.name, key), frozenset())
        for each in refused if now_refused != before else ():
            if each not in before:
                logger.warning(
                    "server_refused",
                    realm=realm.name,
                    source=each.source,
                    target=each.target,
                    reason=each.reason,
                )
        if now_refused:
            self._told[realm.name, key] = now_refused
        else:
            self._told.pop((realm.name, key), None)


def _of_branch(candidates: tuple[Candidate, ...], branch: str) -> tuple[Candidate, ...]:
    if not branch:
        return candidates
    return tuple(
        replace(candidate, endpoint=replace(candidate.endpoint, branch=branch)) for candidate in candidates
    )


def _no_room(wildcard: str) -> RealmNotServedError:
    return RealmNotServedError(
        f'"{wildcard}" stands for as many realms as locate.wildcard_realms allows already, '
        "or too many new names are looked up at the moment"
    )


def _reasons(refused: Sequence[RefusedCandidate]) -> str:
    """Name the first servers that are refused: the text ends up in a log line."""
    reasons = [f"{each.source}: {each.target}: {each.reason}" for each in refused[:MAX_REASONS]]
    more = [f"and {len(refused) - MAX_REASONS} more"] if len(refused) > MAX_REASONS else []
    return "; ".join(reasons + more)


def _ignore(_: LookUp) -> None:
    """Let it go untold how it was come by."""


def build_locator(
    config: Config,
    system: SystemFiles,
    *,
    clock: Callable[[], float] = time.monotonic,
    on_lookup: Callable[[LookUp], None] = _ignore,
) -> Locator:
    """Put a locator together that asks the configured nameservers, or else the system's."""
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
    """Put a locator together that asks DNS by `query`."""
    dns = DnsCache(query, config, clock, on_lookup)
    finder = CandidateFinder(HostResolver(dns, hosts_file=hosts_file), clock)
    address_filter = AddressFilter(ports=config.allowed_ports, networks=config.allowed_networks)
    discoverers: Mapping[str, Discoverer] = {
        "dns": DnsDiscovery(dns, finder, address_filter),
        "active_directory": ActiveDirectory(dns, finder, address_filter, CldapPinger().ping, clock),
    }
    return Locator(
        realms, config, dns=dns, finder=finder, discoverers=discoverers, clock=clock, on_lookup=on_lookup
    )
