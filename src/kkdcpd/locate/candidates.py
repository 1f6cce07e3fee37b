"""From servers as they were named to endpoints that may be asked: their addresses, less what is refused."""

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.admission import Admission
from kkdcpd.locate.hosts import HostAddresses, HostResolver
from kkdcpd.locate.records import Target
from kkdcpd.locate.validity import FOREVER, Validity
from kkdcpd.values import Candidate, KdcEndpoint, RefusedCandidate

__all__ = ["CandidateFinder", "Discovery"]

MAX_ADDRESSES = 8
"""Of one host, both families together. One answer of DNS can hold thousands."""

MAX_HOSTS = 64
"""Of how many hosts the addresses are looked up: more than anyone tries, and who owns a child domain of a
wildcard's can't have us ask for the thousand that fit into one answer."""

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
        admission: Admission | None = None,
        afresh: bool = False,
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
        found = await self._look_up(_first_hosts(admitted), afresh=afresh)
        known = {host: each for host, each in found.items() if not isinstance(each, DnsFailedError)}
        candidates = self._candidates(admitted, known, admission, refused)
        failures = [each for each in found.values() if isinstance(each, DnsFailedError)]
        if failures and not candidates:
            raise failures[0]
        refused += _without_address(admitted, found)
        return Discovery(
            candidates=candidates,
            refused=tuple(dict.fromkeys(refused)),
            validity=validity.earliest(each.validity for each in known.values()),
        )

    async def _look_up(
        self, hosts: Iterable[str], *, afresh: bool
    ) -> Mapping[str, HostAddresses | DnsFailedError]:
        async with asyncio.TaskGroup() as look_ups:
            tasks = {
                host: look_ups.create_task(self._addresses(host, afresh=afresh), name=f"addresses of {host}")
                for host in hosts
            }
        return {host: task.result() for host, task in tasks.items()}

    async def _addresses(self, host: str, *, afresh: bool) -> HostAddresses | DnsFailedError:
        """Turn a failure into a value: in a task group, one host's would end the others' look-ups."""
        try:
            return await self._hosts.addresses(host, afresh=afresh)
        except DnsFailedError as error:
            return error

    def _candidates(
        self,
        targets: Sequence[Target],
        known: Mapping[str, HostAddresses],
        admission: Admission | None,
        refused: list[RefusedCandidate],
    ) -> tuple[Candidate, ...]:
        now = self._clock()
        # Two names may have one address, and nobody may get a message twice.
        candidates: dict[tuple[object, ...], Candidate] = {}
        for target in targets:
            found = known.get(target.host)
            if found is None:
                continue
            for address in found.addresses[:MAX_ADDRESSES]:
                reason = admission.refusal_of_address(address) if admission else None
                if reason:
                    refused.append(RefusedCandidate(source=target.source, target=str(target), reason=reason))
                    continue
                candidate = _candidate(target, address, found, now)
                endpoint = candidate.endpoint
                candidates.setdefault((address, endpoint.port, endpoint.transport), candidate)
        return tuple(candidates.values())


def _dated(target: Target, validity: Validity) -> Target:
    return replace(target, expires=validity.expires) if target.expires == math.inf else target


def _admitted(
    targets: Iterable[Target], admission: Admission | None, refused: list[RefusedCandidate]
) -> Iterator[Target]:
    """Leave out whose port is refused: nothing more is asked about them."""
    for target in targets:
        reason = admission.refusal_of_port(target.port) if admission else None
        if reason:
            refused.append(RefusedCandidate(source=target.source, target=str(target), reason=reason))
        else:
            yield target


def _first_hosts(targets: Iterable[Target]) -> Iterable[str]:
    return islice(dict.fromkeys(target.host for target in targets), MAX_HOSTS)


def _candidate(target: Target, address: str, found: HostAddresses, now: float) -> Candidate:
    expires = min(target.expires, found.expires)
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
            reason = f"{MAX_HOSTS} hosts come before it, and no more are looked up"
        elif isinstance(answer, DnsFailedError):
            reason = str(answer)
        elif not answer.addresses:
            reason = "the host has no address"
        else:
            continue
        yield RefusedCandidate(source=target.source, target=str(target), reason=reason)
