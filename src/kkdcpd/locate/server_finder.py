"""Finds the servers of a realm: by the realm's list in the configuration, else by its discovery method."""

from collections.abc import Iterable, Iterator, Mapping

from kkdcpd.config import EndpointSpec, RealmConfig
from kkdcpd.errors import NoKdcKnownError
from kkdcpd.locate.candidates import CandidateFinder, FoundCandidates
from kkdcpd.locate.discovery import Discoverer
from kkdcpd.locate.dns import Requester, requester
from kkdcpd.locate.realms import ServedRealm
from kkdcpd.locate.records import Target
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery

__all__ = ["ServerFinder", "listed_targets"]


class ServerFinder:
    """Finds servers by the realm's list or its discovery method. `discoverers` maps method names."""

    def __init__(self, candidates: CandidateFinder, discoverers: Mapping[str, Discoverer]) -> None:
        self._candidates = candidates
        self._discoverers = discoverers

    async def find(self, realm: ServedRealm, service: KdcService, flags: DcLocatorFlags) -> FoundCandidates:
        """Find the servers. The flag FORCE_REDISCOVERY bypasses all caches.

        Raises:
            LocateError: the servers are unknown, or the configuration has no way to find them.
        """
        requester.set(Requester(name=realm.branch or realm.name, is_wildcard=realm.config.is_wildcard))
        targets = listed_targets(realm.config, service, flags)
        if targets:
            bypass_cache = bool(flags & DcLocatorFlags.FORCE_REDISCOVERY)
            return await self._candidates.find(targets, bypass_cache=bypass_cache)
        discoverer = self._discoverers.get(realm.config.discovery)
        if discoverer is None:
            raise NoKdcKnownError(
                f'realms."{realm.config.name}" has neither {service.value} nor discovery; add one of them'
            )
        query = LocateQuery(target_domain=realm.name, service=service, flags=flags)
        return await discoverer.discover(realm.name, query, realm.config.site)

    async def close(self) -> None:
        """Cancel all work in the background."""
        for discoverer in self._discoverers.values():
            await discoverer.close()


def listed_targets(realm: RealmConfig, service: KdcService, flags: DcLocatorFlags) -> tuple[Target, ...]:
    """Return the servers in the realm's list for a service, or none if it has no list for the service.

    The order of the list is the order of preference. A host without a transport is asked over TCP, and over
    UDP as a fallback: TCP takes replies of any size, and never repeats a message.
    """
    return tuple(_targets(_specs(realm, service, flags), realm.source))


def _specs(realm: RealmConfig, service: KdcService, flags: DcLocatorFlags) -> tuple[EndpointSpec, ...]:
    if service is KdcService.KPASSWD:
        return realm.kpasswd
    if flags & DcLocatorFlags.PDC_REQUIRED and realm.primary_kdc:
        return realm.primary_kdc
    return realm.kdc


def _targets(specs: Iterable[EndpointSpec], source: str) -> Iterator[Target]:
    for priority, spec in enumerate(specs):
        for position, transport in enumerate(spec.transports):
            yield Target(
                host=spec.host,
                port=spec.port,
                transport=transport,
                priority=priority,
                weight=0,
                source=source,
                is_fallback=position > 0,
                path=spec.path,
            )
