"""From servers as they were named to endpoints that may be asked: their addresses, less what is refused."""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.dns import requester
from kkdcpd.locate.dns_answers import FOREVER, Validity
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.locate.host_resolver import HostAddresses, HostResolver
from kkdcpd.locate.records import Target
from kkdcpd.values import Candidate, KdcEndpoint, RefusedCandidate

__all__ = ["MAX_REFUSED", "CandidateFinder", "Discovery"]

MAX_ADDRESSES = 8
"""Of one host, both families together. One answer of DNS can hold thousands."""

MAX_HOSTS = 64
"""Of how many hosts the addresses are looked up: more than anyone tries, and who owns a child domain of a
wildcard's can't have us ask for the thousand that fit into one answer."""

MAX_WILDCARD_HOSTS = 16
"""The same of a realm under a wildcard: strangers name ever new ones there, and each look-up costs."""

MAX_CANDIDATES = 128
"""Of one route. A request reaches a small part of them before its deadline."""

MAX_REFUSED = 32
"""So many servers that are refused are named; they are for the operator to read."""

RETRY_SECONDS = 1.0
"""After how long a route without the addresses of some hosts is made again, in the background."""

_LATE = DnsFailedError("DNS gives no address yet")
"""Of a host that nobody waits for, as others are found."""

STALE = " (expired, DNS is down)"


@frozen
class Discovery:
    """What was found for one service of one realm: candidates in order, who is refused, how long it holds."""

    candidates: tuple[Candidate, ...]
    refused: tuple[RefusedCandidate, ...] = ()
    validity: Validity


class CandidateFinder:
    """Finds the addresses of all targets at once."""

    def __init__(self, hosts: HostResolver, clock: Callable[[], float]) -> None:
        self._hosts = hosts
        self._clock = clock

    async def find(
        self,
        targets: Iterable[Target],
        *,
        validity: Validity = FOREVER,
        admission: AddressFilter | None = None,
        bypass_cache: bool = False,
    ) -> Discovery:
        """Return the targets' endpoints in order: fallbacks last, then by priority, then as they came.

        `validity` is that of the targets, where they bear none themselves. Without `admission` nobody is
        refused.

        Raises:
            DnsFailedError: there is no candidate, and DNS failed for a host.
        """
        refused: list[RefusedCandidate] = []
        dated = (_dated(target, validity) for target in targets)
        in_order = sorted(dated, key=lambda target: (target.is_fallback, target.priority, -target.weight))
        admitted = list(_admitted(in_order, admission, refused))
        found = await self._look_up(
            _first_hosts(admitted), admission, bypass_cache=bypass_cache, required=False
        )
        if _failures(found) and not _is_any_admitted(admission, found):
            found = await self._look_up(
                _first_hosts(admitted), admission, bypass_cache=bypass_cache, required=True
            )
        known = {host: each for host, each in found.items() if not isinstance(each, DnsFailedError)}
        candidates = self._candidates(admitted, known, admission, refused)
        failures = _failures(found)
        if failures and not candidates:
            raise failures[0]
        refused += _without_address(admitted, found)
        bounds = [each.validity for each in known.values()]
        if failures:
            bounds.append(Validity(recheck=self._clock() + RETRY_SECONDS, expires=math.inf))
        return Discovery(
            candidates=candidates, refused=_first_refused(refused), validity=validity.earliest(bounds)
        )

    async def _look_up(
        self, hosts: Iterable[str], admission: AddressFilter | None, *, bypass_cache: bool, required: bool
    ) -> Mapping[str, HostAddresses | DnsFailedError]:
        """Look up all hosts, and go by those that are found if the others are late."""
        loop = asyncio.get_running_loop()
        tasks = {
            host: loop.create_task(
                self._addresses(host, bypass_cache=bypass_cache, required=required),
                name=f"addresses of {host}",
            )
            for host in hosts
        }
        found = await gather_with_grace(tasks, partial(_is_any_admitted, admission))
        return {host: found.get(host, _LATE) for host in tasks}

    async def _addresses(
        self, host: str, *, bypass_cache: bool, required: bool
    ) -> HostAddresses | DnsFailedError:
        """Turn a failure into a value: in a task group, one host's would end the others' look-ups."""
        try:
            return await self._hosts.addresses(host, bypass_cache=bypass_cache, required=required)
        except DnsFailedError as error:
            return error

    def _candidates(
        self,
        targets: Sequence[Target],
        known: Mapping[str, HostAddresses],
        admission: AddressFilter | None,
        refused: list[RefusedCandidate],
    ) -> tuple[Candidate, ...]:
        now = self._clock()
        # Two names may have one address, and nobody may get a message twice.
        candidates: dict[tuple[object, ...], Candidate] = {}
        for target in targets:
            found = known.get(target.host)
            if found is None:
                continue
            if len(candidates) >= MAX_CANDIDATES:
                break
            for address in found.addresses[:MAX_ADDRESSES]:
                reason = admission.refusal_of_address(address) if admission else None
                if reason:
                    refused.append(RefusedCandidate(source=target.source, target=str(target), reason=reason))
                    continue
                candidate = _candidate(target, address, found, now)
                endpoint = candidate.endpoint
                candidates.setdefault((address, endpoint.port, endpoint.transport), candidate)
        return tuple(candidates.values())


def _is_any_admitted(
    admission: AddressFilter | None, found: Mapping[str, HostAddresses | DnsFailedError]
) -> bool:
    return any(
        admission is None or admission.refusal_of_address(address) is None
        for each in found.values()
        if not isinstance(each, DnsFailedError)
        for address in each.addresses[:MAX_ADDRESSES]
    )


def _failures(found: Mapping[str, HostAddresses | DnsFailedError]) -> Sequence[DnsFailedError]:
    return [each for each in found.values() if isinstance(each, DnsFailedError)]


def _first_refused(refused: Iterable[RefusedCandidate]) -> tuple[RefusedCandidate, ...]:
    return tuple(islice(dict.fromkeys(refused), MAX_REFUSED))


def _dated(target: Target, validity: Validity) -> Target:
    return replace(target, expires=validity.expires) if target.expires == math.inf else target


def _admitted(
    targets: Iterable[Target], admission: AddressFilter | None, refused: list[RefusedCandidate]
) -> Iterator[Target]:
    """Leave out whose port is refused: nothing more is asked about them."""
    for target in targets:
        reason = admission.refusal_of_port(target.port) if admission else None
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
        endpoint=KdcEndpoint(name=target.host, address=address, port=target.port, transport=target.transport),
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
            reason = f"{_max_hosts()} hosts come before it, and no more are looked up"
        elif answer is _LATE:
            continue
        elif isinstance(answer, DnsFailedError):
            reason = str(answer)
        elif not answer.addresses:
            reason = "the host has no address"
        else:
            continue
        yield RefusedCandidate(source=target.source, target=str(target), reason=reason)
