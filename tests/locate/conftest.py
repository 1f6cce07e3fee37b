"""Fixtures of a simulated Active Directory domain."""

from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from kkdcpd.config import LocateConfig
from kkdcpd.locate.active_directory import ActiveDirectory
from kkdcpd.locate.address_filter import AddressFilter
from kkdcpd.locate.candidates import CandidateFinder
from kkdcpd.locate.dns_cache import DnsCache
from kkdcpd.locate.host_resolver import HostResolver
from tests.locate.directory import (
    DC_NAME,
    KPASSWD_NAME,
    PDC_NAME,
    PLAIN_NAME,
    Directory,
    World,
    site_name,
    srv,
)


@pytest.fixture
async def directory() -> AsyncIterator[Directory]:
    world = World()
    clock = lambda: world.now  # noqa: E731
    dns = DnsCache(world.query, LocateConfig(negative_ttl=1000), clock, lambda _: None)
    finder = CandidateFinder(HostResolver(dns, hosts_file=""), clock)
    address_filter = AddressFilter(ports=(88, 464), networks=(ip_network("10.0.0.0/24"),))
    locator = ActiveDirectory(dns, finder, address_filter, world.ping, clock)
    yield Directory(world, locator)
    await locator.close()
    await dns.close()


@pytest.fixture
def main_and_branch(directory: Directory) -> Directory:
    """A domain with dc1 and dc2 in Main, the site of this host, and dc3 and dc4 in Branch. All are alive."""
    directory.world.zone = {
        DC_NAME: [srv(4), srv(3), srv(2), srv(1)],
        site_name("Main"): [srv(1), srv(2)],
        site_name("Branch"): [srv(3), srv(4)],
        PLAIN_NAME: [srv(9)],
        PDC_NAME: [srv(3, port=389)],
        KPASSWD_NAME: [srv(number, port=464) for number in (4, 3, 2, 1)],
    }
    directory.world.controllers(1, 2)
    directory.world.controllers(3, 4, site="Branch")
    return directory
