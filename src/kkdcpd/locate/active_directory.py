"""Finds a domain's controllers as Windows does: by site, by what they say of themselves, by what is required.

The names are those of [MS-ADTS] 6.3.2 and 6.3.6, the requirements those of DsrGetDcNameEx2 ([MS-NRPC]
3.5.4.3.1), as far as they matter to who relays Kerberos: the account names, the forest and the global catalog
don't. We stand for our clients, so the site is ours, not theirs. Sockets are `cldap_ping`'s.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from functools import partial

from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import MAX_REFUSED, STALE, CandidateFinder, FoundCandidates
from kkdcpd.locate.dns_answers import FOREVER, DnsAnswer, Validity
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.locate.records import SrvRecord, Target, read_srv
from kkdcpd.locate.shared_tasks import SharedTasks
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.cldap import DomainControllerFacts, DomainControllerFlags
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import Candidate, DcLocatorFlags, KdcService, LocateQuery, RefusedCandidate, Transport

__all__ = ["ActiveDirectory"]

logger = EventLogger(__name__)

PING_SECONDS = 1.0
"""For all pings of a domain. Controllers answer within a round trip."""

FIRST_WAIT_SECONDS = 0.3
"""How long the first request of a domain waits for our site in it and for the pings. Then it goes by DNS
alone: where UDP 389 is filtered, or the site's records are not answered, nothing better will come."""

REFRESH_SECONDS = 300.0
"""After how long a domain in use is pinged again. Netlogon keeps its choice for 12 hours; what changes more
often, whether a KDC serves, we learn by asking it (upstream.health)."""

RETRY_SECONDS = 5.0
"""After how long a domain is looked up again of which no controller was found."""

MAX_DOMAINS = 1024
"""Domains that are remembered: ten times the largest forests. A wildcard has a limit of its own."""

_DS_8_OR_LATER = DomainControllerFlags.DS_8 | DomainControllerFlags.DS_9 | DomainControllerFlags.DS_10

_SITE_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
"""A site's name is one label of names in DNS ([MS-ADTS] 6.1.1.2.2.1). Datagrams are easy to forge, so nothing
that would be special in a name gets there."""

_TIER = 1 << 16
"""More than any SRV record's priority (RFC 2782)."""

_TCP = (Transport.TCP,)
"""What the records are of. Every domain controller has it, and no ticket is too big for it."""

_Ping = Callable[[Iterable[str], str, float], Awaitable[Mapping[str, DomainControllerFacts]]]


@frozen
class _Domain:
    """What is known of a domain: our site in it, "" if unknown, and what its controllers say, by address."""

    site: str = ""
    facts: Mapping[str, DomainControllerFacts] = field(default_factory=dict)
    recheck: float = 0.0
    has_controllers: bool = False


_UNKNOWN = _Domain()


@frozen
class _Found:
    """The servers that a name stands for. `part_validity` is for how long a result holds that is made of it.

    `failure` is why DNS can't say.
    """

    targets: tuple[Target, ...] = ()
    refused: tuple[RefusedCandidate, ...] = ()
    part_validity: Validity
    failure: DnsFailedError | None = None


class ActiveDirectory:
    """Finds domain controllers by DNS and LDAP ping. Without any answer to a ping it goes by DNS alone."""

    def __init__(
        self,
        dns: DnsCache,
        finder: CandidateFinder,
        address_filter: AddressFilter,
        ping: _Ping,
        clock: Callable[[], float],
    ) -> None:
        self._dns = dns
        self._finder = finder
        self._address_filter = address_filter
        self._ping = ping
        self._clock = clock
        self._domains: OrderedDict[tuple[str, str], _Domain] = OrderedDict()
        self._tasks: SharedTasks[tuple[str, str], _Domain] = SharedTasks("domain controllers of")

    async def discover(self, realm: str, query: LocateQuery, site: str) -> FoundCandidates:
        """Find who serves the domain: near before far, who answers a ping before who doesn't.

        Without a `site` a controller is asked for ours.

        Raises:
            DnsFailedError: nobody was found, and DNS failed for one of the names at least.
        """
        name = fold_realm(realm)
        bypass_cache = bool(query.flags & DcLocatorFlags.FORCE_REDISCOVERY)
        domain = await self._domain(name, site, bypass_cache=bypass_cache)
        names = _names(name, query, domain.site)
        answers = await self._look_up(names, query.service, bypass_cache=bypass_cache, required=False)
        if not _in_tiers(answers) and _failure(answers):
            answers = await self._look_up(names, query.service, bypass_cache=bypass_cache, required=True)
        targets = _in_tiers(answers)
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
        fit, unfit = _sift(found.candidates, domain.facts, query)
        return FoundCandidates(
            candidates=_ranked(fit, domain),
            refused=tuple(dict.fromkeys((*refused, *found.refused, *unfit)))[:MAX_REFUSED],
            validity=found.validity,
        )

    async def close(self) -> None:
        """End the pings under way."""
        await self._tasks.close()

    async def _domain(self, name: str, site: str, *, bypass_cache: bool) -> _Domain:
        """Return what is known of the domain; only its first request waits, and for FIRST_WAIT_SECONDS."""
        key = (name, site)
        known = self._domains.get(key)
        now = self._clock()
        if known is not None and not bypass_cache:
            self._domains.move_to_end(key)
            if now < known.recheck:
                return known
        flight = self._tasks.start(key, partial(self._learn, key, bypass_cache=bypass_cache))
        if known is None or bypass_cache:
            await asyncio.wait([flight], timeout=FIRST_WAIT_SECONDS)
        if flight.done():
            return flight.result()
        return replace(known or _Domain(site=site), recheck=now)

    async def _learn(self, key: tuple[str, str], *, bypass_cache: bool) -> _Domain:
        """Ping the domain's controllers and remember what they say; while they are silent, what they said."""
        before = self._domains.get(key, _UNKNOWN)
        found = await self._explore(*key, bypass_cache=bypass_cache)
        domain = replace(found, site=found.site or before.site, facts=found.facts or before.facts)
        if not key[1] and domain.site != before.site:
            logger.info("site_found", domain=key[0], site=domain.site)
        # A name without controllers may be made up by a stranger, and takes nobody's place.
        if found.has_controllers or key in self._domains:
            self._domains[key] = domain
        if len(self._domains) > MAX_DOMAINS:
            self._domains.popitem(last=False)
        return domain

    async def _explore(self, name: str, site: str, *, bypass_cache: bool) -> _Domain:
        """Ping those of the site first, or, where that has to be found out, afterwards."""
        names = (*((_site_name(name, site),) if site else ()), _domain_name(name))
        loop = asyncio.get_running_loop()
        tasks = {
            each: loop.create_task(self._addresses(each, bypass_cache=bypass_cache), name=each)
            for each in names
        }
        known = await gather_with_grace(tasks, lambda found: any(found.values()))
        addresses = tuple(address for each in names for address in known.get(each, ()))
        if not addresses:
            return _Domain(site=site, recheck=self._clock() + RETRY_SECONDS)
        deadline = asyncio.get_running_loop().time() + PING_SECONDS
        facts = dict(await self._ping(addresses, name, deadline))
        found_site = site or _site_of(facts.values())
        if found_site and not site:
            near = await self._addresses(_site_name(name, found_site), bypass_cache=bypass_cache)
            facts |= await self._ping([each for each in near if each not in addresses], name, deadline)
        recheck = self._clock() + (REFRESH_SECONDS if len(known) == len(names) else RETRY_SECONDS)
        return _Domain(site=found_site, facts=facts, recheck=recheck, has_controllers=True)

    async def _addresses(self, name: str, *, bypass_cache: bool) -> tuple[str, ...]:
        """Return where the controllers are that a name stands for, as far as we may send anything there."""
        answer = await self._found(name, KdcService.KDC, bypass_cache=bypass_cache, required=False)
        try:
            found = await self._finder.find(
                answer.targets, address_filter=self._address_filter, bypass_cache=bypass_cache
            )
        except DnsFailedError:
            return ()
        return tuple(candidate.endpoint.address for candidate in found.candidates)

    async def _look_up(
        self, names: Iterable[str], service: KdcService, *, bypass_cache: bool, required: bool
    ) -> Sequence[_Found]:
        """Ask for all names at once, and go by what there is once it names a server."""
        loop = asyncio.get_running_loop()
        tasks = {
            name: loop.create_task(
                self._found(name, service, bypass_cache=bypass_cache, required=required), name=f"SRV {name}"
            )
            for name in names
        }
        found = await gather_with_grace(tasks, lambda answers: any(each.targets for each in answers.values()))
        return [found.get(name) or _found(self._dns.pending(name), name, service) for name in tasks]

    async def _found(self, name: str, service: KdcService, *, bypass_cache: bool, required: bool) -> _Found:
        return _found(await self._dns.srv(name, bypass_cache=bypass_cache, required=required), name, service)


def _found(answer: DnsAnswer[SrvRecord], name: str, service: KdcService) -> _Found:
    # Records of LDAP bear its port; where they stand for a controller, they stand for its KDC.
    port = service.default_port if name.startswith("_ldap.") else None
    offers = read_srv(answer.records, name=name, transports=_TCP, port=port)
    targets = offers.targets
    failure = answer.failure
    if answer.is_stale:
        targets = tuple(replace(target, source=target.source + STALE) for target in targets)
        failure = DnsFailedError(f"DNS gives no answer for {name}, and what it said last holds no more")
    return _Found(
        targets=targets, refused=offers.refused, part_validity=answer.part_validity, failure=failure
    )


def _names(domain: str, query: LocateQuery, site: str) -> tuple[str, ...]:
    """List what to ask for, in the order in which it counts; the last only if the others name nobody."""
    if query.flags & DcLocatorFlags.PDC_REQUIRED:
        return (f"_ldap._tcp.pdc._msdcs.{domain}",)
    if query.service is KdcService.KPASSWD:
        return (f"_kpasswd._tcp.{domain}",)
    near = (_site_name(domain, site),) if site else ()
    return (*near, _domain_name(domain), f"_kerberos._tcp.{domain}")


def _site_name(domain: str, site: str) -> str:
    return f"_kerberos._tcp.{site}._sites.dc._msdcs.{domain}"


def _domain_name(domain: str) -> str:
    return f"_kerberos._tcp.dc._msdcs.{domain}"


def _site_of(facts: Iterable[DomainControllerFacts]) -> str:
    """Return the site that a controller says we are in: the first one's that names one which DNS can have."""
    return next((each.client_site for each in facts if _SITE_NAME.fullmatch(each.client_site)), "")


def _in_tiers(answers: Sequence[_Found]) -> tuple[Target, ...]:
    """Put each name's servers after those of the name before, with a priority that says so.

    A controller of our site stands under two names: the finder takes it where it comes first.
    """
    *tiers, last = (answer.targets for answer in answers)
    if not any(tiers):
        tiers = [last]
    return tuple(
        replace(target, priority=number * _TIER + target.priority)
        for number, tier in enumerate(tiers)
        for target in tier
    )


def _sift(
    candidates: Iterable[Candidate], facts: Mapping[str, DomainControllerFacts], query: LocateQuery
) -> tuple[list[Candidate], list[RefusedCandidate]]:
    """Leave out who says himself that he isn't what is required. Who says nothing may be."""
    required = _required(query)
    fit: list[Candidate] = []
    unfit: list[RefusedCandidate] = []
    for candidate in candidates:
        known = facts.get(candidate.endpoint.address)
        lacks = [reason for flag, reason in required if known is not None and not known.flags & flag]
        if lacks:
            unfit.append(_refusal(candidate, lacks[0]))
        else:
            fit.append(candidate)
    if query.flags & DcLocatorFlags.DIRECTORY_SERVICE_8_REQUIRED:
        fit, too_old = _sift_by_age(fit, facts)
        unfit += too_old
    return fit, unfit


def _required(query: LocateQuery) -> list[tuple[DomainControllerFlags, str]]:
    required = [(DomainControllerFlags.KDC, "says that it runs no KDC")]
    # A read-only controller can't change a password: it would have to ask another one.
    if query.service is KdcService.KPASSWD or query.flags & DcLocatorFlags.WRITABLE_REQUIRED:
        required.append((DomainControllerFlags.WRITABLE, "says that it is read-only"))
    return required


def _sift_by_age(
    candidates: list[Candidate], facts: Mapping[str, DomainControllerFacts]
) -> tuple[list[Candidate], list[RefusedCandidate]]:
    """Leave out who is older than Windows Server 2012 (which brought FAST), if anybody isn't.

    Where all are, the request is theirs: Samba 4.17 knows FAST, but doesn't set the flag at its default
    functional level, 2008 R2.
    """
    known = [facts[each.endpoint.address] for each in candidates if each.endpoint.address in facts]
    if not any(each.flags & _DS_8_OR_LATER for each in known):
        return candidates, []
    fit: list[Candidate] = []
    too_old: list[RefusedCandidate] = []
    for candidate in candidates:
        its = facts.get(candidate.endpoint.address)
        if its is None or its.flags & _DS_8_OR_LATER:
            fit.append(candidate)
        else:
            too_old.append(_refusal(candidate, "says that it is older than Windows Server 2012"))
    return fit, too_old


def _refusal(candidate: Candidate, reason: str) -> RefusedCandidate:
    return RefusedCandidate(source=candidate.source, target=str(candidate.endpoint), reason=reason)


def _ranked(candidates: Iterable[Candidate], domain: _Domain) -> tuple[Candidate, ...]:
    """Order by name, nearness, liveness and the records' priority, and number that as the new priority."""
    keys = {candidate: _rank_key(candidate, domain) for candidate in candidates}
    ranks = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    return tuple(
        replace(candidate, priority=ranks[keys[candidate]])
        for candidate in sorted(keys, key=lambda each: keys[each])
    )


def _rank_key(candidate: Candidate, domain: _Domain) -> tuple[int, bool, bool, int]:
    tier, priority = divmod(candidate.priority, _TIER)
    facts = domain.facts.get(candidate.endpoint.address)
    is_far = facts is None or fold_realm(facts.site) != fold_realm(domain.site)
    return tier, is_far, facts is None, priority


def _failure(answers: Iterable[_Found]) -> DnsFailedError | None:
    """Return why it can't be said that there is no server: DNS has to say so just now, of all the names."""
    return next((answer.failure for answer in answers if answer.failure), None)
