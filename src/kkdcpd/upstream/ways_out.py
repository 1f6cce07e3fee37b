"""Opens the way out of an attempt, by the attempt's transport.

A new way out is a new method of `WaysOut` and its row in `_openers`.
"""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from kkdcpd.config import UpstreamConfig
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.upstream.https.attempt import HttpsAttempt, make_pool
from kkdcpd.upstream.https.client_tls import build_client_context, has_pinned_key
from kkdcpd.upstream.ports import KdcPorts
from kkdcpd.upstream.sockets import AttemptEvents, Readiness, SourceAddresses, WayOut
from kkdcpd.upstream.tcp import TcpAttempt
from kkdcpd.upstream.udp import UdpAttempt
from kkdcpd.upstream.wss import TlsClient, Tunnels, WssAttempt, WssOptions
from kkdcpd.values import Attempt

__all__ = ["WaysOut"]

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Opener(Protocol):
    """Makes the way out of an attempt."""

    def __call__(
        self, attempt: Attempt, events: AttemptEvents, *, networks: Sequence[str], may_repeat: bool
    ) -> WayOut: ...


class WaysOut:
    """Opens ways out, from the configured source addresses, if any. Make it in a running event loop."""

    def __init__(self, config: UpstreamConfig, wss: WssOptions | None = None) -> None:
        self._readiness = Readiness()
        self._ports = KdcPorts(self._readiness)
        self._max_reply_bytes = config.max_reply_bytes
        self._sources: SourceAddresses = {
            _FAMILIES[ipaddress.ip_address(address).version]: str(address)
            for address in config.source_addresses
        }
        https = config.https
        self._https = make_pool(
            https,
            readiness=self._readiness,
            sources=self._sources,
            max_reply_bytes=self._max_reply_bytes,
        )
        self._tunnels = Tunnels(
            wss or WssOptions(),
            TlsClient(
                make_context=partial(build_client_context, https),
                has_pinned_key=partial(has_pinned_key, pins=https.pinned_keys),
            ),
            sources=self._sources,
            max_reply_bytes=self._max_reply_bytes,
        )
        self._openers: Mapping[Transport, _Opener] = {
            Transport.TCP: self._open_tcp,
            Transport.UDP: self._open_udp,
            Transport.HTTPS: self._open_https,
            Transport.WSS: self._open_wss,
        }

    def close(self) -> None:
        """Close the sockets that outlive their attempt: the process is about to end."""
        self._ports.close()
        self._https.close()
        self._tunnels.close()

    def open(
        self, attempt: Attempt, events: AttemptEvents, *, networks: Sequence[str], may_repeat: bool
    ) -> WayOut:
        """Return the way out for the attempt's transport. It is not started. `networks` are the client's.

        `may_repeat`: two KDCs may get the message.
        """
        return self._openers[attempt.endpoint.transport](
            attempt, events, networks=networks, may_repeat=may_repeat
        )

    def has_port(self, endpoint: KdcEndpoint, networks: Sequence[str]) -> bool:
        """Whether a client of these networks may have a local port for the endpoint. TCP has enough ports."""
        return endpoint.transport is not Transport.UDP or self._ports.pool(endpoint).has_room(networks)

    def _open_tcp(
        self, attempt: Attempt, events: AttemptEvents, *, networks: Sequence[str], may_repeat: bool
    ) -> WayOut:
        del networks, may_repeat
        return TcpAttempt(
            attempt,
            events,
            readiness=self._readiness,
            sources=self._sources,
            max_reply_bytes=self._max_reply_bytes,
        )

    def _open_https(
        self, attempt: Attempt, events: AttemptEvents, *, networks: Sequence[str], may_repeat: bool
    ) -> WayOut:
        del networks
        return HttpsAttempt(attempt, events, pool=self._https, sources=self._sources, may_repeat=may_repeat)

    def _open_wss(
        self, attempt: Attempt, events: AttemptEvents, *, networks: Sequence[str], may_repeat: bool
    ) -> WayOut:
        del networks, may_repeat
        return WssAttempt(attempt, events, self._tunnels)

    def _open_udp(
        self, attempt: Attempt, events: AttemptEvents, *, networks: Sequence[str], may_repeat: bool
    ) -> WayOut:
        del may_repeat
        return UdpAttempt(
            attempt,
            events,
            networks=networks,
            readiness=self._readiness,
            ports=self._ports,
            sources=self._sources,
        )
