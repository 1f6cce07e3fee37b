"""Realms and KDCs as the configuration lists them. A realm that isn't listed causes no look-up at all."""

import asyncio
import ipaddress
from collections.abc import Iterable

from kkdcpd.config import EndpointSpec, RealmConfig
from kkdcpd.errors import NoKdcKnownError, RealmNotServedError
from kkdcpd.locate.hosts import HostResolver
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import KdcEndpoint, KdcService, Route, Transport

__all__ = ["StaticLocator"]


class StaticLocator:
    """Finds endpoints in the configured lists. Aliases serve to locate; the message goes out as it came."""

    def __init__(self, realms: Iterable[RealmConfig], hosts: HostResolver) -> None:
        self._hosts = hosts
        self._realms = {fold_realm(name): realm for realm in realms for name in (realm.name, *realm.aliases)}

    async def locate(self, target_domain: str, service: KdcService) -> Route:
        """Return the realm's endpoints in order, those of TCP first: over it no reply is too big.

        Raises:
            RealmNotServedError: no configured realm or alias is called so.
            NoKdcKnownError: nobody is listed for the service, or no listed name has an address.
        """
        realm = self._realms.get(fold_realm(target_domain))
        if realm is None:
            raise RealmNotServedError("neither in [realms] nor an alias there")
        specs = realm.kpasswd if service is KdcService.KPASSWD else realm.kdc
        if not specs:
            raise NoKdcKnownError(f'realms."{realm.name}".{service.value} is empty')
        addresses = await self._addresses(specs)
        if not any(addresses):
            raise NoKdcKnownError(f"no address found for {', '.join(spec.host for spec in specs)}")
        return Route(realm=realm.name, endpoints=tuple(_endpoints(specs, addresses)))

    async def _addresses(self, specs: tuple[EndpointSpec, ...]) -> list[tuple[str, ...]]:
        if all(map(_is_address, specs)):
            return [(spec.host,) for spec in specs]
        return await asyncio.gather(*[self._hosts.addresses(spec.host) for spec in specs])


def _is_address(spec: EndpointSpec) -> bool:
    try:
        ipaddress.ip_address(spec.host)
    except ValueError:
        return False
    return True


def _endpoints(specs: tuple[EndpointSpec, ...], addresses: list[tuple[str, ...]]) -> Iterable[KdcEndpoint]:
    for transport in (Transport.TCP, Transport.UDP):
        for spec, found in zip(specs, addresses, strict=True):
            for address in found if transport in spec.transports else ():
                yield KdcEndpoint(name=spec.host, address=address, port=spec.port, transport=transport)
