"""The section [tunnel]: WebSocket tunnels of clients and of other kkdcpd."""

from typing import Annotated

from kkdcpd.config.kinds import Items, Range, seconds
from kkdcpd.config.sections.http import HttpPath, paths_differ
from kkdcpd.frozen import frozen

__all__ = ["TunnelConfig"]


@frozen
class TunnelConfig:
    """WebSocket tunnels: one connection that carries the requests of many programs (docs/tunnel.md).

    The agent uses a tunnel if its URL begins with wss://, and so do scripts in web pages. Each request in a
    tunnel has the limits of a POST. Tunnels are off by default.
    """

    paths: Annotated[
        tuple[HttpPath, ...],
        Items(remedy='write a list of paths, such as ["/KdcTunnel"]', rule=paths_differ),
    ] = ()
    """The paths of tunnels, as in ["/KdcTunnel"], on all [[listen]] addresses. The default, [], is none."""

    idle_timeout: Annotated[float, seconds(3600, minimum=1)] = 300.0
    """The time that a tunnel without requests stays open.

    Each open tunnel takes a connection. A new one costs a TLS handshake.
    """

    max_exchanges: Annotated[int, Range(1, 65536, "requests")] = 1024
    """The limit of requests in flight in one tunnel. A client that sends more loses the tunnel.

    docs/tunnel.md lets clients send 1024, so a lower limit is for clients that know it.
    """
