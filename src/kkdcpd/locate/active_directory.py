"""Finds the controllers of an Active Directory domain by site, LDAP ping and requirements, as Windows does.

The site is the site of this host, because this host connects to the controllers, and not the client.
"""

from collections.abc import Callable, Iterable

from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import MAX_REFUSED, CandidateFinder, FoundCandidates
from kkdcpd.locate.controller_ranking import filter_controllers, in_tiers, rank_controllers
from kkdcpd.locate.dns_answers import FOREVER, Validity
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.domain_facts import DomainFactsFinder, Ping
from kkdcpd.locate.domain_records import DomainRecords, NamedControllers, names_for
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import DcLocatorFlags, LocateQuery

__all__ = ["ActiveDirectory"]


class ActiveDirectory:
    """Finds domain controllers by DNS and LDAP ping. If no controller answers a ping, DNS alone decides."""

    def __init__(
        self,
        dns: DnsCache,
        finder: CandidateFinder,
        address_filter: AddressFilter,
        ping: Ping,
        clock: Callable[[], float],
    ) -> None:
        self._records = DomainRecords(dns)
        self._finder = finder
        self._address_filter = address_filter
        self._facts = DomainFactsFinder(self._records, finder, address_filter, ping, clock)

    async def discover(self, realm: str, query: LocateQuery, site: str) -> FoundCandidates:
        """Find the controllers: controllers of our site first, and silent controllers last.

        Without a configured `site`, a domain controller reports the site of this host.

        Raises:
            DnsFailedError: no controller is found, and DNS failed for at least one name.
        """
        name = fold_realm(realm)
        bypass_cache = bool(query.flags & DcLocatorFlags.FORCE_REDISCOVERY)
        domain = await self._facts.find(name, site, bypass_cache=bypass_cache)
        answers = await self._look_up(names_for(name, query, domain.site), query, bypass_cache=bypass_cache)
        targets = in_tiers([answer.targets for answer in answers])
        validity = Validity(recheck=domain.recheck, expires=FOREVER.expires).earliest(
            answer.part_validity for answer in answers
        )
        refused = tuple(each for answer in answers for each in answer.refused)
        if not targets:
            failure = _failure(answers)
            if failure:
                raise failure
            return FoundCandidates(candidates=(), refused=refused, validity=validity)
        found = await self._finder.find(
            targets, validity=validity, address_filter=self._address_filter, bypass_cache=bypass_cache
        )
        fit, unfit = filter_controllers(found.candidates, domain.facts, query)
        return FoundCandidates(
            candidates=rank_controllers(fit, domain.facts, domain.site),
            refused=tuple(dict.fromkeys((*refused, *found.refused, *unfit)))[:MAX_REFUSED],
            validity=found.validity,
        )

    async def close(self) -> None:
        """Cancel all pings."""
        await self._facts.close()

    async def _look_up(
        self, names: Iterable[str], query: LocateQuery, *, bypass_cache: bool
    ) -> list[NamedControllers]:
        """Look up the names. If no controller is found and DNS failed, wait for DNS."""
        names = tuple(names)
        for required in (False, True):
            answers = await self._records.look_up_all(
                names, query.service, bypass_cache=bypass_cache, required=required
            )
            if any(answer.targets for answer in answers) or not _failure(answers):
                break
        return list(answers)


def _failure(answers: Iterable[NamedControllers]) -> DnsFailedError | None:
    """Return why "no controller" is not certain. It is certain only if DNS answers all names now."""
    return next((answer.failure for answer in answers if answer.failure), None)
