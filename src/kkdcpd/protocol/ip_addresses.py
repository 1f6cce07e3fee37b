"""Reads IP addresses and networks as text, and names the networks to which limits apply.

A dual-stack socket shows an IPv4 client as an IPv4-mapped IPv6 address (RFC 4291 2.5.5.2). Both spellings are
one address, so every text from outside is read here, and the rest of the code sees the IPv4 form only. Pure.
"""

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = [
    "Address",
    "Network",
    "limited_networks",
    "network_of",
    "networks_of",
    "parse_address",
    "parse_network",
]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")

_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052 2.1. Translators in front of an IPv6-only host give IPv4 clients these addresses (RFC 7755)."""

_IPV6_BITS = (64, 56, 48)
"""RFC 4291 2.5.1: one link, and so one host, has a /64. RFC 6177 2: a home has a /56, a site a /48.

An IPv4 /24 is the smallest network that the Internet's routers carry: one site has it, as a /48.
"""

_MOST_REMEMBERED = 1024


def parse_address(text: str) -> Address:
    """Read an address; an IPv4-mapped one is the IPv4 address.

    Raises:
        ValueError: the text is no address.
    """
    address = ip_address(text)
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def parse_network(text: str) -> Network:
    """Read a network in CIDR notation (RFC 4632 3.1, RFC 4291 2.3); bits beyond the prefix are dropped.

    A network of IPv4-mapped addresses is the IPv4 network.

    Raises:
        ValueError: the text is no network.
    """
    network = ip_network(text, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        first, bits = int(network.network_address) & 0xFFFFFFFF, network.prefixlen - _MAPPED.prefixlen
        return IPv4Network((first, bits))
    return network


def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address itself, of an IPv6 address its /64."""
    return networks_of(address)[0]


@lru_cache(_MOST_REMEMBERED)
def networks_of(client: str) -> tuple[str, ...]:
    """Return the client's network and the wider networks around it, the narrowest first.

    `client` is its address, or its network as `network_of` returns it. IPv4 has the address and its /24, IPv6
    the /64, the /56 and the /48. A translated IPv4 address counts as the IPv4 address, because otherwise all
    IPv4 clients would be one client. The name of a UNIX socket is a network, too.
    """
    # Texts of addresses come from `parse_address` or the kernel, so a name of this form is an IPv4 address. A
    # new client's request would need a percent of its CPU time to parse it again.
    before, _, last = client.rpartition(".")
    if last.isdigit() and ":" not in client:
        return client, f"{before}.0/24"
    try:
        parsed = parse_address(client.partition("/")[0])
    except ValueError:
        return (client,)
    if isinstance(parsed, IPv6Address) and parsed in _NAT64:
        parsed = IPv4Address(int(parsed) & 0xFFFFFFFF)
    if isinstance(parsed, IPv4Address):
        return networks_of(str(parsed))
    return tuple(str(IPv6Network((int(parsed), bits), strict=False)) for bits in _IPV6_BITS)


def limited_networks(client: str) -> tuple[str, ...]:
    """Return the networks that limits on requests apply to, the narrowest first.

    IPv6 has all networks of `networks_of`. IPv4 has the address only: its neighbours are other customers.
    """
    if ":" not in client:
        return (client,)
    networks = networks_of(client)
    return networks if ":" in networks[0] else networks[:1]
