"""Whom DNS may send us to, and whom not: nobody gets to steer us at our own services (CVE-2025-59088).

A record is refused for its port or its address. What the operator configured is never refused. Pure.
"""

import ipaddress

from kkdcpd.config import Network
from kkdcpd.frozen import frozen

__all__ = ["Admission"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")  # RFC 1122 3.2.1.3: this host on this network
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 2.1: an IPv4 address in its last 32 bits


@frozen
class Admission:
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
        address = ipaddress.ip_address(text)
        if self.networks:
            if any(address in network for network in self.networks):
                return None
            return f"{text} is outside locate.allowed_networks"
        kind = _special_kind(address)
        return f"{text} is {kind}" if kind else None


def _special_kind(address: _Address) -> str | None:
    inner = _embedded(address)
    if inner is not None:
        kind = _special_kind(inner)
        return kind and f"{kind}, as {inner} inside"
    kinds = (
        (address.is_unspecified or address in _THIS_NETWORK, "unspecified"),
        (address.is_loopback, "loopback"),
        (address.is_link_local, "link-local"),
        (address.is_multicast, "multicast"),
        (address.is_reserved, "reserved"),
    )
    return next((kind for applies, kind in kinds if applies), None)


def _embedded(address: _Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that packets to an IPv6 address end up at: mapped, 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
