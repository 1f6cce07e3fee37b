"""Filters ports and addresses learnt from DNS, so that DNS can't steer us at other services (CVE-2025-59088).

A record is refused for its port or its address. Configured endpoints are never refused. Pure.
"""

import ipaddress

from kkdcpd.config import Network
from kkdcpd.frozen import frozen
from kkdcpd.protocol.ip_addresses import Address, parse_address

__all__ = ["AddressFilter"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 2.1: an IPv4 address in its last 32 bits

_SPECIAL_NETWORKS: tuple[tuple[Network, str], ...] = tuple(
    (ipaddress.ip_network(text), kind)
    for text, kind in (
        ("0.0.0.0/8", "unspecified"),  # RFC 1122 3.2.1.3: this host on this network
        ("192.0.0.0/24", "reserved for protocols"),  # RFC 6890 2.1: DS-Lite, discovery of NAT64
        ("192.88.99.0/24", "a 6to4 relay"),  # RFC 7526
        ("198.18.0.0/15", "for benchmarks"),  # RFC 2544
        ("2001::/32", "a Teredo address"),  # RFC 4380: tells hosts behind NAT by their IPv4 address
        ("2001::/23", "reserved for protocols"),  # RFC 2928
        ("fec0::/10", "site-local"),  # RFC 3879: deprecated, yet stacks of some networks route them
    )
)
"""What IANA's registries of special-purpose addresses have beyond that which `ipaddress` tells.

Private networks (RFC 1918, RFC 4193, RFC 6598) are not among them, as KDCs are there; nor are those of
documentation, which lead nowhere.
"""


@frozen
class AddressFilter:
    """Which ports and networks may be named. Without networks all are, but for special addresses.

    A network that is listed may hold special addresses: who lists 127.0.0.0/8 means it.
    """

    ports: tuple[int, ...]
    networks: tuple[Network, ...] = ()

    def refusal_of_port(self, port: int) -> str | None:
        """Return why the port is refused, or None."""
        if port in self.ports:
            return None
        return f"port {port} is not in locate.allowed_ports"

    def refusal_of_address(self, text: str) -> str | None:
        """Return why the address is refused, or None."""
        address = parse_address(text)
        if self.networks:
            if any(address in network for network in self.networks):
                return None
            return f"{text} is outside locate.allowed_networks"
        kind = _special_kind(address)
        return f"{text} is {kind}" if kind else None


def _special_kind(address: Address) -> str | None:
    inner = _embedded(address)
    if inner is not None:
        kind = _special_kind(inner)
        return kind and f"{kind}, as {inner} inside"
    kinds = (
        (address.is_unspecified, "unspecified"),
        (address.is_loopback, "loopback"),
        (address.is_link_local, "link-local"),
        (address.is_multicast, "multicast"),
        *((address in network, kind) for network, kind in _SPECIAL_NETWORKS),
        (address.is_reserved, "reserved"),
    )
    return next((kind for applies, kind in kinds if applies), None)


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that packets to an IPv6 address end up at: by 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour
