"""Looks up the domain controllers that the SRV records of an Active Directory domain name.

[MS-ADTS] 6.3.2 and 6.3.6 define the names.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kkdcpd.endpoints import Transport
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.candidates import STALE
from kkdcpd.locate.dns_answers import DnsAnswer, Validity
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.locate.records import SrvRecord, Target, read_srv
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, RefusedCandidate

__all__ = ["DomainRecords", "NamedControllers", "domain_name", "names_for", "site_name"]

_TCP = (Transport.TCP,)
"""The transport of the records. Every domain controller supports TCP, and no ticket is too big for it."""


@frozen
class NamedControllers:
    """The domain controllers in the records of a name, or the `failure` of DNS.

    `part_validity` is the validity that these controllers give to a result made of several names.
    """

    targets: tuple[Target, ...] = ()
    refused: tuple[RefusedCandidate, ...] = ()
    part_validity: Validity
    failure: DnsFailedError | None = None


class DomainRecords:
    """Looks up the SRV names of domains. `bypass_cache` and `required` are as in `DnsCache`."""

    def __init__(self, dns: DnsCache) -> None:
        self._dns = dns

    async def look_up(
        self, name: str, service: KdcService, *, bypass_cache: bool, required: bool = False
    ) -> NamedControllers:
        """Look up one name."""
        answer = await self._dns.srv(name, bypass_cache=bypass_cache, required=required)
        return _read(answer, name, service)

    async def look_up_all(
        self, names: Iterable[str], service: KdcService, *, bypass_cache: bool, required: bool
    ) -> Sequence[NamedControllers]:
        """Look up all names at the same time. Do not wait for late answers once a controller is found."""
        loop = asyncio.get_running_loop()
        tasks = {
            name: loop.create_task(
                self.look_up(name, service, bypass_cache=bypass_cache, required=required), name=f"SRV {name}"
            )
            for name in names
        }
        found = await gather_with_grace(tasks, lambda answers: any(each.targets for each in answers.values()))
        return [found.get(name) or _read(self._dns.pending(name), name, service) for name in tasks]


def names_for(domain: str, query: LocateQuery, site: str) -> tuple[str, ...]:
    """List the names to look up, by precedence. The last counts only if the others have no controller."""
    if query.flags & DcLocatorFlags.PDC_REQUIRED:
        return (f"_ldap._tcp.pdc._msdcs.{domain}",)
    if query.service is KdcService.KPASSWD:
        return (f"_kpasswd._tcp.{domain}",)
    near = (site_name(domain, site),) if site else ()
    return (*near, domain_name(domain), f"_kerberos._tcp.{domain}")


def site_name(domain: str, site: str) -> str:
    """Return the name of the domain controllers of a site."""
    return f"_kerberos._tcp.{site}._sites.dc._msdcs.{domain}"


def domain_name(domain: str) -> str:
    """Return the name of all domain controllers."""
    return f"_kerberos._tcp.dc._msdcs.{domain}"


def _read(answer: DnsAnswer[SrvRecord], name: str, service: KdcService) -> NamedControllers:
    # LDAP records have the port of LDAP. The same controllers serve Kerberos at its default port.
    port = service.default_port if name.startswith("_ldap.") else None
    named = read_srv(answer.records, name=name, transports=_TCP, port=port)
    targets = named.targets
    failure = answer.failure
    if answer.is_stale:
        targets = tuple(replace(target, source=target.source + STALE) for target in targets)
        failure = DnsFailedError(f"DNS gives no answer for {name}, and its last answer has expired")
    return NamedControllers(
        targets=targets, refused=named.refused, part_validity=answer.part_validity, failure=failure
    )
