"""Filters and orders the domain controllers of a domain by the facts that they report. Pure.

[MS-NRPC] 3.5.4.3.1 (DsrGetDcNameEx2) defines the requirements. The requirements for account names, the forest
and the global catalog do not matter for Kerberos.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from kkdcpd.locate.records import Target
from kkdcpd.protocol.cldap import DomainControllerFacts, DomainControllerFlags
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import Candidate, DcLocatorFlags, KdcService, LocateQuery, RefusedCandidate

__all__ = ["filter_controllers", "in_tiers", "rank_controllers"]

_Facts = Mapping[str, DomainControllerFacts]
"""The reported facts of domain controllers, by address."""

_DS_8_OR_LATER = DomainControllerFlags.DS_8 | DomainControllerFlags.DS_9 | DomainControllerFlags.DS_10

_TIER = 1 << 16
"""More than the priority of any SRV record (RFC 2782)."""


def in_tiers(names: Sequence[Sequence[Target]]) -> tuple[Target, ...]:
    """Order the controllers of several names by name, and put the position of the name into their priority.

    A controller of our site has two names; the candidate finder uses its first appearance. The last name
    counts only if the others have no controller.
    """
    *tiers, last = names
    if not any(tiers):
        tiers = [last]
    return tuple(
        replace(target, priority=number * _TIER + target.priority)
        for number, tier in enumerate(tiers)
        for target in tier
    )


def filter_controllers(
    candidates: Iterable[Candidate], facts: _Facts, query: LocateQuery
) -> tuple[list[Candidate], list[RefusedCandidate]]:
    """Refuse controllers that report that they do not fit the request. Silent controllers may fit."""
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
        fit, too_old = _filter_by_age(fit, facts)
        unfit += too_old
    return fit, unfit


def rank_controllers(candidates: Iterable[Candidate], facts: _Facts, site: str) -> tuple[Candidate, ...]:
    """Order by name, site, response to the ping, and priority of the record. Renumber the priorities."""
    keys = {candidate: _rank_key(candidate, facts, site) for candidate in candidates}
    ranks = {key: number for number, key in enumerate(sorted(set(keys.values())))}
    return tuple(
        replace(candidate, priority=ranks[keys[candidate]])
        for candidate in sorted(keys, key=lambda each: keys[each])
    )


def _required(query: LocateQuery) -> list[tuple[DomainControllerFlags, str]]:
    required = [(DomainControllerFlags.KDC, "reports that it runs no KDC")]
    # A read-only controller cannot change a password itself.
    if query.service is KdcService.KPASSWD or query.flags & DcLocatorFlags.WRITABLE_REQUIRED:
        required.append((DomainControllerFlags.WRITABLE, "reports that it is read-only"))
    return required


def _filter_by_age(
    candidates: list[Candidate], facts: _Facts
) -> tuple[list[Candidate], list[RefusedCandidate]]:
    """Refuse controllers older than Windows Server 2012, the first with FAST, unless all are older.

    Samba 4.17 supports FAST, but does not set the flag at its default functional level, 2008 R2.
    """
    known = [facts[each.endpoint.address] for each in candidates if each.endpoint.address in facts]
    if not any(each.flags & _DS_8_OR_LATER for each in known):
        return candidates, []
    fit: list[Candidate] = []
    too_old: list[RefusedCandidate] = []
    for candidate in candidates:
        reported = facts.get(candidate.endpoint.address)
        if reported is None or reported.flags & _DS_8_OR_LATER:
            fit.append(candidate)
        else:
            too_old.append(_refusal(candidate, "reports that it is older than Windows Server 2012"))
    return fit, too_old


def _refusal(candidate: Candidate, reason: str) -> RefusedCandidate:
    return RefusedCandidate(source=candidate.source, target=str(candidate.endpoint), reason=reason)


def _rank_key(candidate: Candidate, facts: _Facts, site: str) -> tuple[int, bool, bool, int]:
    tier, priority = divmod(candidate.priority, _TIER)
    known = facts.get(candidate.endpoint.address)
    is_far = known is None or fold_realm(known.site) != fold_realm(site)
    return tier, is_far, known is None, priority
