"""The section [connections]: connection limits, and the proxies that name their clients."""

from typing import Annotated, Literal

from kkdcpd.config.addresses import Network, parse_trusted_network
from kkdcpd.config.kinds import Items, Range, Text, seconds
from kkdcpd.config.problems import items_differ
from kkdcpd.frozen import frozen

__all__ = ["ConnectionsConfig", "ForwardedHeader"]

ForwardedHeader = Literal["none", "x-forwarded-for", "forwarded"]
ProxyNetwork = Annotated[
    Network,
    Text(parse=parse_trusted_network, remedy='write a network such as "192.0.2.0/24" or "2001:db8::/32"'),
]


@frozen
class ConnectionsConfig:
    """Limits for connections."""

    maximum: Annotated[int, Range(16, 1048576, "connections")] = 8192
    """The most open connections in all worker processes.

    A connection with TLS takes some 50 KiB: the default is 400 MiB at most, and 13 MiB for each worker's
    handshakes. Each connection needs two file descriptors, and UDP ports need some more: the default needs a
    limit of 20,000 (LimitNOFILE= of systemd). When this limit or one of the next two is reached, kkdcpd
    closes idle connections of the largest network to make room for new ones.
    """

    per_client: Annotated[int, Range(1, 1048576, "connections")] = 1024
    """The most open connections of one client. A client is an IPv4 address or an IPv6 /64.

    An office behind one address has one or two connections for each log-on, for a minute each: 1024 are some
    500 people that log on within one minute.
    """

    per_network: Annotated[int, Range(1, 1048576, "connections")] = 4096
    """The most open connections of the clients of one IPv4 /24 or IPv6 /48 together; an IPv6 /56 may have
    half of them.

    One site or one attacker has such a network, but so do thousands of customers of a mobile carrier. So the
    default is half of all connections. The limit is never less than per_client.
    """

    handshake_rate: Annotated[float, Range(0.1, 1000000, "handshakes per second")] = 100.0
    """The average rate at which one client may begin TLS handshakes.

    The clients of one IPv4 /24 or IPv6 /48 together may begin four times as many. MIT's clients make a
    handshake for each request, so the default is twice guard.rates.client_rate. Trusted proxies have no such
    limit.
    """

    handshake_burst: Annotated[int, Range(1, 10000000, "handshakes")] = 1000
    """The number of handshakes in a burst of one client.

    1000 are 100 people that log on in the same second, as with guard.rates.client_burst.
    """

    write_timeout: Annotated[float, seconds(120)] = 10.0
    """The time that a client may leave its response unread. MIT's clients leave after 10 seconds."""

    trusted_proxies: Annotated[
        tuple[ProxyNetwork, ...],
        Items(remedy='write a list of networks, such as ["192.0.2.1", "2001:db8::/64"]', rule=items_differ),
    ] = ()
    """The addresses or networks of trusted proxies, as in ["192.0.2.1", "2001:db8::/64"].

    kkdcpd takes the client's address from them, and from every program that can connect to a UNIX socket. It
    ignores client addresses from other clients. Without this setting, all clients behind a proxy count as
    one. An IPv4 network wider than /8, or an IPv6 network wider than /16, is not valid, because it contains a
    large part of the Internet. The default is none.
    """

    forwarded: ForwardedHeader = "none"
    """The HTTP header in which these proxies name the client; "forwarded" is RFC 7239.

    The last address that is not a trusted proxy's is the client's. The proxy must add to the header or
    replace it; it must never pass on a client's own header.
    """
