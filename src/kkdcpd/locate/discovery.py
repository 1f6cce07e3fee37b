"""Finds the servers of a realm in DNS: looks up the names of `questions` and chooses the answers to use.

URI records come before SRV records (krb5's locate_kdc.c: "the first source that yields anything wins"). All
names are looked up at the same time, because an unused answer costs little.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import MAX_REFUSED, STALE, CandidateFinder, FoundCandidates
from kkdcpd.locate.dns_answers import FOREVER, DnsAnswer
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.locate.questions import Question, Stage, kdc_stages
from kkdcpd.locate.records import (
    RecordTargets,
    SrvRecord,
    Target,
    UriRecord,
    demote_udp_duplicates,
    drop_repeated_servers,
)
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, RefusedCandidate

__all__ = ["Discoverer", "DnsDiscovery", "FoundCandidates"]


class Discoverer(Protocol):
    """A method to find the servers of a realm that has no list in the configuration."""

    async def discover(self, realm: str, query: LocateQuery, site: str) -> FoundCandidates:
        """Find the servers of `realm`, which is a name in DNS, for the service and flags of `query`.

        The flag FORCE_REDISCOVERY bypasses all caches.

        Raises:
            LocateError: it is unknown whether there are servers. No servers are an empty result.
        """

    async def close(self) -> None:
        """Cancel all work in the background."""


_Answer = DnsAnswer[SrvRecord] | DnsAnswer[UriRecord]


class DnsDiscovery:
    """Finds servers by the URI and SRV records of the realm. DNS discovery has no sites.

    `list_names` lists the names to look up: those of KDCs, or those of KDC proxies.
    """

    def __init__(
        self,
        dns: DnsCache,
        finder: CandidateFinder,
        address_filter: AddressFilter,
        list_names: Callable[[str, LocateQuery], Sequence[Stage]] = kdc_stages,
    ) -> None:
        self._dns = dns
        self._finder = finder
        self._list_names = list_names
        self._address_filter = address_filter

    async def discover(self, realm: str, query: LocateQuery, site: str = "") -> FoundCandidates:  # noqa: ARG002 - DNS has no sites
        """Find the servers. The result has no candidates if DNS says that there are none.

        Raises:
            DnsFailedError: no server is found, and DNS failed for at least one name.
        """
        bypass_cache = bool(query.flags & DcLocatorFlags.FORCE_REDISCOVERY)
        stages = self._list_names(realm, query)
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
            return FoundCandidates(candidates=(), refused=chosen.refused, validity=validity)
        found = await self._finder.find(
            chosen.targets, validity=validity, address_filter=self._address_filter, bypass_cache=bypass_cache
        )
        refused = dict.fromkeys(chosen.refused + found.refused)
        return replace(found, refused=tuple(refused)[:MAX_REFUSED])

    async def close(self) -> None:
        """Do nothing: the callers of `discover` and the cache own all tasks."""

    async def _ask(
        self, stages: Sequence[Stage], service: KdcService, *, bypass_cache: bool, required: bool
    ) -> Mapping[Question, _Answer]:
        """Look up all names at the same time. Do not wait for late answers once a server is found."""
        # The URI name appears twice, for primaries and for all servers. The cache makes one query of it.
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

    async def _answer(self, question: Question, *, bypass_cache: bool, required: bool) -> _Answer:
        look_up = self._dns.uri if question.is_uri else self._dns.srv
        return await look_up(question.name, bypass_cache=bypass_cache, required=required)


def _choose(
    stages: Iterable[Stage], answers: Mapping[Question, _Answer], service: KdcService
) -> RecordTargets:
    """Take the first stage that names a server, or says that there is no service (RFC 2782)."""
    refused: dict[RefusedCandidate, None] = {}
    for stage in stages:
        named = [
            _record_targets(question, answers[question], service) for question in stage if question in answers
        ]
        refused |= dict.fromkeys(refusal for each in named for refusal in each.refused)
        found = (target for each in named for target in each.targets)
        targets = demote_udp_duplicates(drop_repeated_servers(found))
        if targets or any(each.is_declined for each in named):
            return RecordTargets(targets=targets, refused=tuple(refused), is_declined=not targets)
    return RecordTargets(refused=tuple(refused))


def _record_targets(question: Question, answer: _Answer, service: KdcService) -> RecordTargets:
    named = question.read(answer.records, service)
    return replace(named, targets=tuple(_with_origin(target, answer) for target in named.targets))


def _with_origin(target: Target, answer: _Answer) -> Target:
    source = target.source + STALE if answer.is_stale else target.source
    return replace(target, source=source, expires=answer.validity.expires)


def _failure(answers: Mapping[Question, _Answer]) -> DnsFailedError | None:
    """Return why "no server" is not certain. It is certain only if DNS answers all names now."""
    for answer in answers.values():
        if answer.failure:
            return answer.failure
        if answer.is_stale:
            return DnsFailedError("DNS gives no answer; its last answer had no servers and has expired")
    return None
