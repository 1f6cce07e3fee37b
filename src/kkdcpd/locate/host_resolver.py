"""Resolves host names: IP addresses stay as they are, then the hosts file, then DNS.

The system's resolver is not used. It blocks, has no cache, and does not distinguish a failure from a name
without addresses.
"""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest

from kkdcpd.frozen import frozen
from kkdcpd.locate.dns_answers import FOREVER, DnsAnswer, Validity
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.grace_period import gather_with_grace
from kkdcpd.protocol.ip_addresses import parse_address

__all__ = ["HostAddresses", "HostResolver", "interleave", "parse_hosts"]

_FAMILIES = ("AAAA", "A")


@frozen
class HostAddresses:
    """The addresses of a host, in the order to try them. A host may have none."""

    addresses: tuple[str, ...]
    validity: Validity
    is_stale: bool = False


def parse_hosts(text: str) -> Mapping[str, tuple[str, ...]]:
    """Read the text of a hosts file (hosts(5)). Return the addresses of each name (in lower case)."""
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
    """Alternate the address families, IPv6 first, so that a dead family costs one try at most (RFC 8305 4).

    An address that both families name (IPv4 and IPv4-mapped) is returned once.
    """
    ipv6 = [address for address in addresses if ":" in address]
    ipv4 = [address for address in addresses if ":" not in address]
    alternating = chain.from_iterable(zip_longest(ipv6, ipv4))
    return tuple(dict.fromkeys(address for address in alternating if address))


class HostResolver:
    """Resolves names by the text of the hosts file at the start of the process, and by DNS."""

    def __init__(self, dns: DnsCache, *, hosts_file: str) -> None:
        self._dns = dns
        self._hosts = parse_hosts(hosts_file)

    async def addresses(
        self, host: str, *, bypass_cache: bool = False, required: bool = False
    ) -> HostAddresses:
        """Return the addresses of a host. A name is fully qualified: no search list applies.

        `bypass_cache` and `required` are as in `DnsCache`.

        Raises:
            DnsFailedError: no address is known, and DNS failed for at least one family.
        """
        address = _address(host)
        if address is not None:
            return HostAddresses(addresses=(address,), validity=FOREVER)
        listed = self._hosts.get(host.lower().removesuffix("."))
        if listed:
            return HostAddresses(addresses=listed, validity=FOREVER)
        answers = await self._ask(host, bypass_cache=bypass_cache, required=required)
        return _combined([answers.get(family) or self._dns.pending(host) for family in _FAMILIES])

    async def _ask(self, host: str, *, bypass_cache: bool, required: bool) -> Mapping[str, DnsAnswer[str]]:
        """Look up both families. Do not wait for a late family if the other has addresses (RFC 8305 3)."""
        look_ups = {"AAAA": self._dns.ipv6, "A": self._dns.ipv4}
        loop = asyncio.get_running_loop()
        tasks = {
            family: loop.create_task(
                look_up(host, bypass_cache=bypass_cache, required=required), name=f"{family} {host}"
            )
            for family, look_up in look_ups.items()
        }
        return await gather_with_grace(tasks, _has_addresses)


def _has_addresses(answers: Mapping[str, DnsAnswer[str]]) -> bool:
    return any(answer.records for answer in answers.values())


def _combined(answers: Sequence[DnsAnswer[str]]) -> HostAddresses:
    addresses = interleave([address for answer in answers for address in answer.records])
    failure = next((answer.failure for answer in answers if answer.failure), None)
    if failure and not addresses:
        raise failure
    return HostAddresses(
        addresses=addresses,
        validity=FOREVER.earliest(answer.part_validity for answer in answers),
        is_stale=any(answer.is_stale for answer in answers),
    )


def _address(text: str) -> str | None:
    """Return the canonical form of an IP address, or None if the text is no IP address."""
    try:
        return str(parse_address(text))
    except ValueError:
        return None
