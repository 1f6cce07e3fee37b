"""Finds a realm's servers by DNS: which names are asked for, and which of the answers count.

URI records come before SRV (krb5's locate_kdc.c, "the first source that yields anything wins"), RFC 4120
7.2.3.2 and RFC 3244 have the names. All are asked for at once: an answer that isn't needed costs nothing.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import MAX_REFUSED, STALE, CandidateFinder, Discovery
from kkdcpd.locate.dns_answers import FOREVER, DnsAnswer
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.locate.records import (
    RecordTargets,
    SrvRecord,
    Target,
    UriRecord,
    demote_udp_duplicates,
    read_srv,
    read_uri,
)
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, RefusedCandidate, Transport

__all__ = ["Discoverer", "Discovery", "DnsDiscovery"]


class Discoverer(Protocol):
    """A way of finding a realm's servers that aren't listed."""

    async def discover(self, realm: str, query: LocateQuery, site: str) -> Discovery:
        """Find the servers of `realm`, the name it has in DNS; `query` says for what and for whom.

        FORCE_REDISCOVERY among its flags asks for an answer that comes from no memory.

        Raises:
            LocateError: nothing can be said, as against that there is nobody.
        """

    async def close(self) -> None:
        """End what is under way in the background."""


@frozen
class _Question:
    """One name to ask for. `port` takes the place of the records', `primaries_only` is for primary KDCs."""

    name: str
    is_uri: bool = False
    transports: tuple[Transport, ...] = ()
    port: int | None = None
    primaries_only: bool = False


_Answer = DnsAnswer[SrvRecord] | DnsAnswer[UriRecord]
_Stage = tuple[_Question, ...]
_TCP, _UDP = (Transport.TCP,), (Transport.UDP,)


class DnsDiscovery:
    """Asks for URI and SRV records of the realm. It knows no sites."""

    def __init__(
        self,
        dns: DnsCache,
        finder: CandidateFinder,
        admission: AddressFilter,
    ) -> None:
        self._dns = dns
        self._finder = finder
        self._admission = admission

    async def discover(self, realm: str, query: LocateQuery, site: str = "") -> Discovery:  # noqa: ARG002 - DNS has no sites
        """Find the servers; none if DNS says that there are none.

        Raises:
            DnsFailedError: nobody was found, and DNS failed for one of the names at least.
        """
        bypass_cache = bool(query.flags & DcLocatorFlags.FORCE_REDISCOVERY)
        stages = _stages(realm, query.service, query.flags)
        answers = await self._ask(stages, query.service, bypass_cache=bypass_cache, required=False)
        chosen = _choose(stages, answers, query.service)
        if not chosen.targets and not chosen.is_declined and _failure(answers):
            answers = await self._ask(stages, query.service, bypass_cache=bypass_cache, required=True)
            chosen = _choose(stages, answers, query.service)
        validity = FOREVER.earliest(answer.part_validity for answer in answers.values())
        if not chosen.targets:
            failure = _failure(answers)
            if failure and not chosen.is_declined:
                raise failure
            return Discovery(candidates=(), refused=chosen.refused, validity=validity)
        found = await self._finder.find(
            chosen.targets, validity=validity, admission=self._admission, bypass_cache=bypass_cache
        )
        refused = dict.fromkeys(chosen.refused + found.refused)
        return replace(found, refused=tuple(refused)[:MAX_REFUSED])

    async def close(self) -> None:
        """Do nothing: all that is under way is `discover`'s caller's, or the cache's."""

    async def _ask(
        self, stages: Sequence[_Stage], service: KdcService, *, bypass_cache: bool, required: bool
    ) -> Mapping[_Question, _Answer]:
        """Ask for all names at once, and go by what there is once it names a server."""
        # URI records that are asked for twice, for their primaries and for all, are one look-up.
        loop = asyncio.get_running_loop()
        tasks = {
            question: loop.create_task(
                self._answer(question, bypass_cache=bypass_cache, required=required), name=question.name
            )
            for stage in stages
            for question in stage
        }
        found = await gather_with_grace(
            tasks, lambda answers: bool(_choose(stages, answers, service).targets)
        )
        return {question: found.get(question) or self._dns.pending(question.name) for question in tasks}

    async def _answer(self, question: _Question, *, bypass_cache: bool, required: bool) -> _Answer:
        look_up = self._dns.uri if question.is_uri else self._dns.srv
        return await look_up(question.name, bypass_cache=bypass_cache, required=required)


def _stages(realm: str, service: KdcService, flags: DcLocatorFlags) -> tuple[_Stage, ...]:
    """List what to ask for, in the order in which answers count; a primary need not exist."""
    if service is KdcService.KPASSWD:
        return (
            (_Question(name=f"_kpasswd.{realm}", is_uri=True),),
            _srv("_kpasswd", realm),
            # Whoever has kadmind only, has its kpasswd service at the same host (krb5's changepw.c).
            (
                _Question(
                    name=f"_kerberos-adm._tcp.{realm}", transports=_TCP + _UDP, port=service.default_port
                ),
            ),
        )
    everybody = (_Question(name=f"_kerberos.{realm}", is_uri=True),), _srv("_kerberos", realm)
    if not flags & DcLocatorFlags.PDC_REQUIRED:
        return everybody
    primary_uri = _Question(name=f"_kerberos.{realm}", is_uri=True, primaries_only=True)
    return (primary_uri,), _srv("_kerberos-master", realm, primaries_only=True), *everybody


def _srv(service: str, realm: str, *, primaries_only: bool = False) -> _Stage:
    return (
        _Question(name=f"{service}._tcp.{realm}", transports=_TCP, primaries_only=primaries_only),
        _Question(name=f"{service}._udp.{realm}", transports=_UDP, primaries_only=primaries_only),
    )


def _choose(
    stages: Iterable[_Stage], answers: Mapping[_Question, _Answer], service: KdcService
) -> RecordTargets:
    """Take the first stage that names anybody, or says that there is nobody to name (RFC 2782)."""
    refused: dict[RefusedCandidate, None] = {}
    for stage in stages:
        offers = [_offers(question, answers[question], service) for question in stage if question in answers]
        refused |= dict.fromkeys(each for offer in offers for each in offer.refused)
        targets = demote_udp_duplicates(target for offer in offers for target in offer.targets)
        if targets or any(offer.is_declined for offer in offers):
            return RecordTargets(targets=targets, refused=tuple(refused), is_declined=not targets)
    return RecordTargets(refused=tuple(refused))


def _offers(question: _Question, answer: _Answer, service: KdcService) -> RecordTargets:
    offers = _read(question, answer, service)
    if question.primaries_only:
        # No primary is no reason to ask nobody, even if the domain says so itself.
        offers = replace(offers, is_declined=False)
    return replace(offers, targets=tuple(_dated(target, answer) for target in offers.targets))


def _read(question: _Question, answer: _Answer, service: KdcService) -> RecordTargets:
    if not question.is_uri:
        records = [record for record in answer.records if isinstance(record, SrvRecord)]
        return read_srv(records, name=question.name, transports=question.transports, port=question.port)
    uris = [record for record in answer.records if isinstance(record, UriRecord)]
    offers = read_uri(uris, name=question.name, service=service)
    return replace(offers, targets=offers.primary_targets) if question.primaries_only else offers


def _dated(target: Target, answer: _Answer) -> Target:
    source = target.source + STALE if answer.is_stale else target.source
    return replace(target, source=source, expires=answer.validity.expires)


def _failure(answers: Mapping[_Question, _Answer]) -> DnsFailedError | None:
    """Return why it can't be said that there is no server: that takes all answers, and none an old one."""
    for answer in answers.values():
        if answer.failure:
            return answer.failure
        if answer.is_stale:
            return DnsFailedError("DNS gives no answer, and what it said last was that there is nobody")
    return None
