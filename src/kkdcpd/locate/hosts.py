"""Addresses of host names: IP addresses as they are, the hosts file, DNS. Never the system's resolver.

That one blocks, holds nothing back for later, and can't tell a failure from a name without addresses.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.dns_cache import DnsAnswer, DnsCache
from kkdcpd.locate.validity import FOREVER, Validity
from kkdcpd.protocol.ip_addresses import parse_address

__all__ = ["HostAddresses", "HostResolver", "interleave", "parse_hosts"]

RETRY_SECONDS = 5.0
"""After how long DNS is asked again for what failed, while something else serves."""


@frozen
class HostAddresses:
    """A host's addresses in the order to try them; none if it has none.

    They hold until `expires`; that there are no others, a family's without records, may hold for less.
    """

    addresses: tuple[str, ...]
    validity: Validity
    expires: float = math.inf
    is_stale: bool = False


def parse_hosts(text: str) -> Mapping[str, tuple[str, ...]]:
    """Read the text of a hosts file (hosts(5)): names, folded, to their addresses in order."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        text, *names = line.partition("#")[0].split() or [""]
        address = _address(text)
        if address is None:
            continue
        for name in names:
            found.setdefault(name.lower().removesuffix("."), []).append(address)
    return {name: tuple(interleave(addresses)) for name, addresses in found.items()}


def interleave(addresses: Sequence[str]) -> tuple[str, ...]:
    """Alternate families, IPv6 first, so that a dead family costs one try at most (RFC 8305 4).

    An address that both families name, in one as an IPv4-mapped address, stands there once.
    """
    ipv6 = [address for address in addresses if ":" in address]
    ipv4 = [address for address in addresses if ":" not in address]
    in_turns = chain.from_iterable(zip_longest(ipv6, ipv4))
    return tuple(dict.fromkeys(address for address in in_turns if address))


class HostResolver:
    """`hosts_file` is its text as it was when we started."""

    def __init__(self, dns: DnsCache, *, hosts_file: str, clock: Callable[[], float]) -> None:
        self._dns = dns
        self._hosts = parse_hosts(hosts_file)
        self._clock = clock

    async def addresses(self, host: str, *, afresh: bool = False) -> HostAddresses:
        """Return the host's addresses; a name is taken as a full one, without any search list.

        Raises:
            DnsFailedError: none is known, and DNS failed for one family at least.
        """
        address = _address(host)
        if address is not None:
            return HostAddresses(addresses=(address,), validity=FOREVER)
        listed = self._hosts.get(host.lower().removesuffix("."))
        if listed:
            return HostAddresses(addresses=listed, validity=FOREVER)
        async with asyncio.TaskGroup() as families:
            ipv6 = families.create_task(_attempt(self._dns.ipv6(host, afresh=afresh)), name=f"AAAA {host}")
            ipv4 = families.create_task(_attempt(self._dns.ipv4(host, afresh=afresh)), name=f"A {host}")
        return self._combine(ipv6.result(), ipv4.result())

    def _combine(self, *families: DnsAnswer[str] | DnsFailedError) -> HostAddresses:
        answers = [family for family in families if not isinstance(family, DnsFailedError)]
        failures = [family for family in families if isinstance(family, DnsFailedError)]
        addresses = interleave([address for answer in answers for address in answer.records])
        if failures and not addresses:
            raise failures[0]
        validities = [answer.validity for answer in answers]
        if failures:
            soon = self._clock() + RETRY_SECONDS
            validities.append(Validity(recheck=soon, expires=soon))
        return HostAddresses(
            addresses=addresses,
            validity=FOREVER.earliest(validities),
            expires=FOREVER.earliest(answer.validity for answer in answers if answer.records).expires,
            is_stale=any(answer.is_stale for answer in answers),
        )


async def _attempt(look_up: Coroutine[Any, Any, DnsAnswer[str]]) -> DnsAnswer[str] | DnsFailedError:
    """Turn a failure into a value: in a task group, one family's would end the other's look-up."""
    try:
        return await look_up
    except DnsFailedError as error:
        return error


def _address(text: str) -> str | None:
    """Return the IP address in its canonical form, if the text is one."""
    try:
        return str(parse_address(text))
    except ValueError:
        return None
