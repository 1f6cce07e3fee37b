"""Endpoints of named servers."""

import math

import pytest

from kkdcpd.config import LocateConfig
from kkdcpd.endpoints import Transport
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import MAX_HOSTS, CandidateFinder, FoundCandidates
from kkdcpd.locate.dns_answers import Validity
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.host_resolver import HostResolver
from kkdcpd.locate.records import Target
from tests.locate.support import ManualClock, MemoryDns


class Finder(CandidateFinder):
    """A finder with an in-memory DNS."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.dns = MemoryDns()
        cache = DnsCache(self.dns.query, LocateConfig(), self.clock, lambda _: None)
        super().__init__(HostResolver(cache, hosts_file=""), self.clock)


def _target(
    host: str,
    *,
    port: int = 88,
    transport: Transport = Transport.TCP,
    priority: int = 0,
    weight: int = 0,
    expires: float = math.inf,
    is_fallback: bool = False,
) -> Target:
    return Target(
        host=host,
        port=port,
        transport=transport,
        priority=priority,
        weight=weight,
        source="test",
        expires=expires,
        is_fallback=is_fallback,
    )


def _addresses(found: FoundCandidates) -> list[str]:
    return [candidate.endpoint.address for candidate in found.candidates]


async def test_candidates_are_ordered_by_fallback_priority_and_weight() -> None:
    found = await Finder().find(
        [
            _target("192.0.2.1", is_fallback=True, transport=Transport.UDP),
            _target("192.0.2.2", priority=2),
            _target("192.0.2.3", priority=1, weight=1),
            _target("192.0.2.4", priority=1, weight=9),
        ]
    )
    assert _addresses(found) == ["192.0.2.4", "192.0.2.3", "192.0.2.2", "192.0.2.1"]


async def test_each_endpoint_appears_once() -> None:
    finder = Finder()
    for host in ("a", "b"):
        finder.dns.put(host, "A", "192.0.2.1")
    found = await finder.find([_target("a"), _target("b"), _target("a", transport=Transport.UDP)])
    assert [(each.endpoint.name, each.endpoint.transport) for each in found.candidates] == [
        ("a", Transport.TCP),
        ("a", Transport.UDP),
    ]


async def test_candidate_expires_with_its_record_or_its_address() -> None:
    finder = Finder()
    finder.dns.put("a", "A", "192.0.2.1", ttl=60)
    found = await finder.find([_target("a", expires=1030), _target("a", port=89), _target("192.0.2.9")])
    assert [candidate.ttl for candidate in found.candidates] == [30, 60, None]
    all_of_them = Validity(recheck=1000, expires=1020)
    found = await finder.find([_target("a", expires=1030), _target("a", port=89)], validity=all_of_them)
    assert [candidate.ttl for candidate in found.candidates] == [30, 20]


async def test_address_filter_refuses_ports_and_addresses() -> None:
    finder = Finder()
    finder.dns.put("a", "A", "192.0.2.1", "127.0.0.1")
    targets = [_target("a"), _target("b", port=22)]
    found = await finder.find(targets, address_filter=AddressFilter(ports=(88,)))
    assert _addresses(found) == ["192.0.2.1"]
    assert [(each.target, each.reason) for each in found.refused] == [
        ("tcp://b:22", "port 22 is not in locate.allowed_ports"),
        ("tcp://a:88", "127.0.0.1 is loopback"),
    ]
    assert finder.dns.queries["b", "A"] == 0
    assert len((await finder.find(targets)).candidates) == 2


async def test_hosts_without_address_are_reported() -> None:
    finder = Finder()
    finder.dns.put("a", "A", "192.0.2.1")
    found = await finder.find([_target("a"), _target("gone")])
    assert _addresses(found) == ["192.0.2.1"]
    assert [(each.target, each.reason) for each in found.refused] == [
        ("tcp://gone:88", "the host has no address")
    ]


async def test_failure_for_one_host_is_reported_and_for_all_hosts_is_an_error() -> None:
    finder = Finder()
    finder.dns.is_down = True
    found = await finder.find([_target("192.0.2.1"), _target("a")])
    assert _addresses(found) == ["192.0.2.1"]
    assert "down" in found.refused[0].reason
    with pytest.raises(DnsFailedError):
        await finder.find([_target("a")])


async def test_number_of_hosts_is_limited() -> None:
    finder = Finder()
    hosts = [f"host-{number}" for number in range(MAX_HOSTS + 10)]
    for host in hosts:
        finder.dns.put(host, "A", f"192.0.2.{hosts.index(host)}")
    found = await finder.find(map(_target, hosts))
    assert len(found.candidates) == MAX_HOSTS
    assert finder.dns.count == 2 * MAX_HOSTS
    assert len(found.refused) == 10
