"""Addresses of host names."""

import pytest

from kkdcpd.config import LocateConfig
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns_answers import FOREVER
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.dns_cache_entries import FAILURE_SECONDS_LEAST
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.host_resolver import HostResolver, interleave, parse_hosts
from tests.locate.support import ManualClock, MemoryDns

HOSTS_FILE = """
# a comment
127.0.0.1\tlocalhost
192.0.2.9  Kdc9.example.com kdc9 # another
2001:db8::9 kdc9.example.com.
not-an-address kdc9
192.0.2.10
"""


class Hosts(HostResolver):
    """A resolver with an in-memory DNS."""

    def __init__(self, hosts_file: str = "") -> None:
        self.clock = ManualClock()
        self.dns = MemoryDns()
        self.cache = DnsCache(self.dns.query, LocateConfig(), self.clock, lambda _: None)
        super().__init__(self.cache, hosts_file=hosts_file)


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(HOSTS_FILE)


def test_hosts_file_is_read_as_hosts_5_describes() -> None:
    assert parse_hosts(HOSTS_FILE) == {
        "localhost": ("127.0.0.1",),
        "kdc9.example.com": ("2001:db8::9", "192.0.2.9"),
        "kdc9": ("192.0.2.9",),
    }


def test_ipv4_mapped_address_of_a_host_is_its_ipv4_address() -> None:
    text = "::ffff:192.0.2.1 kdc1\n192.0.2.1 kdc1\n::FFFF:c000:202 kdc1\n"
    assert parse_hosts(text) == {"kdc1": ("192.0.2.1", "192.0.2.2")}


def test_families_alternate_ipv6_first() -> None:
    assert interleave(["192.0.2.1", "192.0.2.2", "192.0.2.3", "::a", "::b"]) == (
        "::a",
        "192.0.2.1",
        "::b",
        "192.0.2.2",
        "192.0.2.3",
    )


@pytest.mark.parametrize(
    ("host", "addresses"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("2001:db8::1", ("2001:db8::1",)),
        ("::ffff:192.0.2.1", ("192.0.2.1",)),
        ("fe80::1%eth0", ("fe80::1%eth0",)),
        ("KDC9.example.com.", ("2001:db8::9", "192.0.2.9")),
    ],
)
async def test_addresses_and_listed_names_cost_no_query(
    hosts: Hosts, host: str, addresses: tuple[str, ...]
) -> None:
    found = await hosts.addresses(host)
    assert (found.addresses, found.validity) == (addresses, FOREVER)
    assert hosts.dns.count == 0


async def test_both_families_are_looked_up(hosts: Hosts) -> None:
    hosts.dns.put("kdc1.example.com", "A", "192.0.2.1", "192.0.2.2", ttl=50)
    hosts.dns.put("kdc1.example.com", "AAAA", "2001:db8::1", ttl=60)
    found = await hosts.addresses("kdc1.example.com")
    assert found.addresses == ("2001:db8::1", "192.0.2.1", "192.0.2.2")
    assert found.validity.expires == 1050


@pytest.mark.parametrize("broken", [RecordType.A, RecordType.AAAA])
async def test_failure_for_one_family_keeps_the_other(hosts: Hosts, broken: RecordType) -> None:
    hosts.dns.put("kdc1.example.com", "A", "192.0.2.1")
    hosts.dns.put("kdc1.example.com", "AAAA", "2001:db8::1")
    hosts.dns.broken = {broken}
    found = await hosts.addresses("kdc1.example.com")
    assert found.addresses == (("2001:db8::1",) if broken is RecordType.A else ("192.0.2.1",))
    assert found.validity.recheck == 1000 + FAILURE_SECONDS_LEAST
    assert found.validity.expires == 1600


async def test_host_has_no_address_only_if_both_families_are_answered(hosts: Hosts) -> None:
    assert (await hosts.addresses("unknown.example.com")).addresses == ()
    hosts.dns.broken = {RecordType.AAAA}
    with pytest.raises(DnsFailedError):
        await hosts.addresses("other.example.com")


async def test_expired_address_is_marked(hosts: Hosts) -> None:
    hosts.dns.put("kdc1.example.com", "A", "192.0.2.1", ttl=50)
    await hosts.addresses("kdc1.example.com")
    hosts.dns.is_down = True
    hosts.clock.advance(51)
    found = await hosts.addresses("kdc1.example.com")
    assert (found.addresses, found.is_stale) == (("192.0.2.1",), True)
