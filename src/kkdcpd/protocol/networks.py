"""Names the wider networks that a client's network belongs to.

A client's network is what `forwarded.network_of` returns: an IPv4 address, an IPv6 /64, or the name of a UNIX
socket. The answers are cached, because each request needs them.
"""

from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network

__all__ = ["surrounding_networks", "wider_networks"]

SITE_BITS = (56, 48)
"""One customer has a /56 or a /48, and with it 256 or 65,536 networks of 64 bits (RFC 6177 2, RIPE-690 4.2).
A mobile carrier gives each phone a /64 of such a network: then thousands of strangers are in it."""

IPV4_BITS = 24
"""The longest prefix that is commonly routed, so the smallest block of addresses that is let as a whole."""

MOST_KNOWN = 1024


@lru_cache(MOST_KNOWN)
def wider_networks(network: str) -> tuple[str, ...]:
    """Return the /56 and the /48 of an IPv6 /64; nothing for any other network."""
    parsed = _parse(network)
    if not isinstance(parsed, IPv6Network):
        return ()
    return tuple(str(parsed.supernet(new_prefix=bits)) for bits in SITE_BITS if bits < parsed.prefixlen)


@lru_cache(MOST_KNOWN)
def surrounding_networks(network: str) -> tuple[str, ...]:
    """Return the wider networks, the narrowest first, and for an IPv4 address its /24."""
    parsed = _parse(network)
    if isinstance(parsed, IPv4Network):
        return (str(parsed.supernet(new_prefix=IPV4_BITS)),)
    return wider_networks(network)


def _parse(network: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(network)
    except ValueError:
        return None
