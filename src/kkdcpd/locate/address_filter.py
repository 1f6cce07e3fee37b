"""Filters ports, names and addresses learnt from DNS (SSRF, CVE-2025-59088).

A record is refused because of its port, its host's domain or its address. Configured endpoints are never
refused. Pure.
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
        ("2001::/32", "a Teredo address"),  # RFC 4380: contains the IPv4 address of a host behind NAT
        ("2001::/23", "reserved for protocols"),  # RFC 2928
        ("fec0::/10", "site-local"),  # RFC 3879: deprecated, but some networks still route them
    )
)
"""Special-purpose networks of IANA's registries that `ipaddress` does not report.

Private networks (RFC 1918, RFC 4193, RFC 6598) are allowed, because KDCs are there. Documentation networks
are allowed too, because no host has an address of this kind.
"""


@frozen
class AddressFilter:
    """The ports, domains and networks that DNS may name; the settings that list them begin with `settings`.

    Without `domains`, all names are allowed. Without `networks`, all but special addresses are allowed. A
    listed network may contain special addresses: 127.0.0.0/8 in the list allows loopback addresses.
    """

    ports: tuple[int, ...]
    networks: tuple[Network, ...] = ()
    domains: tuple[str, ...] = ()
    settings: str = "locate.allowed"

    def refusal_of_server(self, host: str, port: int) -> str | None:
        """Return why a server with this name or address and port is refused, or None."""
        if port not in self.ports:
            return f"port {port} is not in {self.settings}_ports"
        if self.domains and not any(_is_within(host, domain) for domain in self.domains):
            return f"{host} is outside {self.settings}_domains"
        return None

    def refusal_of_address(self, text: str) -> str | None:
        """Return why the address is refused, or None."""
        address = parse_address(text)
        if self.networks:
            if any(address in network for network in self.networks):
                return None
            return f"{text} is outside {self.settings}_networks"
        kind = _special_kind(address)
        return f"{text} is {kind}" if kind else None


def _is_within(host: str, domain: str) -> bool:
    return f".{host.lower().removesuffix('.')}".endswith(f".{domain.lower().removesuffix('.')}")


def _special_kind(address: Address) -> str | None:
    inner = _embedded(address)
    if inner is not None:
        kind = _special_kind(inner)
        return kind and f"{kind}, because it contains {inner}"
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
    """Return the IPv4 address that an IPv6 address leads to by 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour
