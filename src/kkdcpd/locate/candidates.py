"""Finds the endpoints of named servers: looks up their addresses and applies the address filter."""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.dns import requester
from kkdcpd.locate.dns_answers import FOREVER, Validity
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.locate.host_resolver import HostAddresses, HostResolver
from kkdcpd.locate.records import Target
from kkdcpd.values import Candidate, RefusedCandidate

__all__ = ["MAX_REFUSED", "CandidateFinder", "FoundCandidates"]

MAX_ADDRESSES = 8
"""The number of addresses of one host that are used. A DNS answer can hold thousands."""

MAX_HOSTS = 64
"""The number of hosts that are looked up. A DNS answer can name a thousand hosts."""

MAX_WILDCARD_HOSTS = 16
"""The limit for realms under a wildcard: there the owners of domains choose the names of hosts."""

MAX_CANDIDATES = 128
"""The number of candidates of one route. A request tries a small part of them before its deadline."""

MAX_REFUSED = 32
"""The number of refused servers that are kept for the log."""

RETRY_SECONDS = 1.0
"""The pause before a route that lacks the addresses of some hosts is refreshed in the background."""

_LATE = DnsFailedError("DNS gives no address yet")
"""Stands for the address of a late host while other hosts are found."""

STALE = " (expired, DNS is down)"


@frozen
class FoundCandidates:
    """The servers found for a service of a realm: candidates in order, refused servers, and the validity."""

    candidates: tuple[Candidate, ...]
    refused: tuple[RefusedCandidate, ...] = ()
    validity: Validity


class CandidateFinder:
    """Looks up the addresses of all targets at the same time."""

    def __init__(self, hosts: HostResolver, clock: Callable[[], float]) -> None:
        self._hosts = hosts
        self._clock = clock

    async def find(
        self,
        targets: Iterable[Target],
        *,
        validity: Validity = FOREVER,
        address_filter: AddressFilter | None = None,
        bypass_cache: bool = False,
    ) -> FoundCandidates:
        """Return the endpoints of the targets: fallbacks last, then by priority, weight and original order.

        `validity` applies to targets without their own. Without `address_filter` no target is refused.

        Raises:
            DnsFailedError: no candidate is found, and DNS failed for a host.
        """
        refused: list[RefusedCandidate] = []
        in_order = sorted((_with_validity(target, validity) for target in targets), key=_order)
        allowed = list(_with_allowed_name(in_order, address_filter, refused))
        found = await self._look_up(
            _first_hosts(allowed), address_filter, bypass_cache=bypass_cache, required=False
        )
        if _failures(found) and not _is_any_allowed(address_filter, found):
            found = await self._look_up(
                _first_hosts(allowed), address_filter, bypass_cache=bypass_cache, required=True
            )
        known = {host: each for host, each in found.items() if not isinstance(each, DnsFailedError)}
        candidates = self._candidates(allowed, known, address_filter, refused)
        failures = _failures(found)
        if failures and not candidates:
            raise failures[0]
        refused += _without_address(allowed, found)
        bounds = [each.validity for each in known.values()]
        if failures:
            bounds.append(Validity(recheck=self._clock() + RETRY_SECONDS, expires=math.inf))
        return FoundCandidates(
            candidates=candidates, refused=_first_refused(refused), validity=validity.earliest(bounds)
        )

    async def _look_up(
        self,
        hosts: Iterable[str],
        address_filter: AddressFilter | None,
        *,
        bypass_cache: bool,
        required: bool,
    ) -> Mapping[str, HostAddresses | DnsFailedError]:
        """Look up all hosts; do not wait for late hosts once an address is found."""
        loop = asyncio.get_running_loop()
        tasks = {
            host: loop.create_task(
                self._addresses(host, bypass_cache=bypass_cache, required=required),
                name=f"addresses of {host}",
            )
            for host in hosts
        }
        found = await gather_with_grace(tasks, partial(_is_any_allowed, address_filter))
        return {host: found.get(host, _LATE) for host in tasks}

    async def _addresses(
        self, host: str, *, bypass_cache: bool, required: bool
    ) -> HostAddresses | DnsFailedError:
        """Return a failure instead of raising it, so that the look-ups of other hosts continue."""
        try:
            return await self._hosts.addresses(host, bypass_cache=bypass_cache, required=required)
        except DnsFailedError as error:
            return error

    def _candidates(
        self,
        targets: Sequence[Target],
        known: Mapping[str, HostAddresses],
        address_filter: AddressFilter | None,
        refused: list[RefusedCandidate],
    ) -> tuple[Candidate, ...]:
        now = self._clock()
        # Two names may have the same address, and no server may get a message twice.
        candidates: dict[tuple[object, ...], Candidate] = {}
        for target in targets:
            found = known.get(target.host)
            if found is None:
                continue
            if len(candidates) >= MAX_CANDIDATES:
                break
            for address in found.addresses[:MAX_ADDRESSES]:
                reason = address_filter.refusal_of_address(address) if address_filter else None
                if reason:
                    refused.append(RefusedCandidate(source=target.source, target=str(target), reason=reason))
                    continue
                candidate = _candidate(target, address, found, now)
                endpoint = candidate.endpoint
                candidates.setdefault((endpoint.server, endpoint.transport), candidate)
        return tuple(candidates.values())


def _is_any_allowed(
    address_filter: AddressFilter | None, found: Mapping[str, HostAddresses | DnsFailedError]
) -> bool:
    return any(
        address_filter is None or address_filter.refusal_of_address(address) is None
        for each in found.values()
        if not isinstance(each, DnsFailedError)
        for address in each.addresses[:MAX_ADDRESSES]
    )


def _failures(found: Mapping[str, HostAddresses | DnsFailedError]) -> Sequence[DnsFailedError]:
    return [each for each in found.values() if isinstance(each, DnsFailedError)]


def _first_refused(refused: Iterable[RefusedCandidate]) -> tuple[RefusedCandidate, ...]:
    return tuple(islice(dict.fromkeys(refused), MAX_REFUSED))


def _order(target: Target) -> tuple[bool, int, int]:
    return target.is_fallback, target.priority, -target.weight


def _with_validity(target: Target, validity: Validity) -> Target:
    return replace(target, expires=validity.expires) if target.expires == math.inf else target


def _with_allowed_name(
    targets: Iterable[Target], address_filter: AddressFilter | None, refused: list[RefusedCandidate]
) -> Iterator[Target]:
    """Yield the targets with an allowed port and domain. The hosts of the other targets are not looked up."""
    for target in targets:
        reason = address_filter.refusal_of_server(target.host, target.port) if address_filter else None
        if reason:
            refused.append(RefusedCandidate(source=target.source, target=str(target), reason=reason))
        else:
            yield target


def _max_hosts() -> int:
    return MAX_WILDCARD_HOSTS if requester.get().is_wildcard else MAX_HOSTS


def _first_hosts(targets: Iterable[Target]) -> Iterable[str]:
    return islice(dict.fromkeys(target.host for target in targets), _max_hosts())


def _candidate(target: Target, address: str, found: HostAddresses, now: float) -> Candidate:
    expires = min(target.expires, found.validity.expires)
    is_newly_stale = found.is_stale and STALE not in target.source
    return Candidate(
        endpoint=KdcEndpoint(
            name=target.host,
            address=address,
            port=target.port,
            transport=target.transport,
            path=target.path,
        ),
        priority=target.priority,
        weight=target.weight,
        source=target.source + STALE if is_newly_stale else target.source,
        ttl=None if expires == math.inf else max(expires - now, 0.0),
        is_fallback=target.is_fallback,
    )


def _without_address(
    targets: Iterable[Target], found: Mapping[str, HostAddresses | DnsFailedError]
) -> Iterator[RefusedCandidate]:
    for target in targets:
        answer = found.get(target.host)
        if answer is None:
            reason = f"only the first {_max_hosts()} hosts are looked up"
        elif answer is _LATE:
            continue
        elif isinstance(answer, DnsFailedError):
            reason = str(answer)
        elif not answer.addresses:
            reason = "the host has no address"
        else:
            continue
        yield RefusedCandidate(source=target.source, target=str(target), reason=reason)
