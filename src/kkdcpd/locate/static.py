"""Who serves a realm as the configuration lists it. Pure: its order is the order of preference."""

from collections.abc import Iterable, Iterator

from kkdcpd.config import EndpointSpec, RealmConfig
from kkdcpd.locate.records import Target
from kkdcpd.values import DcLocatorFlags, KdcService

__all__ = ["listed_targets"]


def listed_targets(realm: RealmConfig, service: KdcService, flags: DcLocatorFlags) -> tuple[Target, ...]:
    """Return whom the realm's lists name for a service, none if it has no list for it.

    A bare host is asked over TCP, and over UDP only when nobody is left: a reply of any size passes, and no
    datagram is repeated that must not be.
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
