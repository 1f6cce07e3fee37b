"""Chooses the way out of an attempt by its transport."""

import ipaddress
import socket

from kkdcpd.config import UpstreamConfig
from kkdcpd.upstream.attempt import AttemptEvents, SourceAddresses, WayOut
from kkdcpd.upstream.ports import KdcPorts
from kkdcpd.upstream.readiness import Readiness
from kkdcpd.upstream.tcp import TcpAttempt
from kkdcpd.upstream.udp import UdpAttempt
from kkdcpd.values import Attempt, Transport

__all__ = ["WaysOut"]

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class WaysOut:
    """Opens ways out, from our source addresses where some are configured. For one event loop, that runs."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._readiness = Readiness()
        self._ports = KdcPorts(self._readiness)
        self._max_reply_bytes = config.max_reply_bytes
        self._sources: SourceAddresses = {
            _FAMILIES[ipaddress.ip_address(address).version]: str(address)
            for address in config.source_addresses
        }

    def close(self) -> None:
        """Close what outlives its attempt: the process is about to end."""
        self._ports.close()

    def open(self, attempt: Attempt, events: AttemptEvents, *, network: str) -> WayOut:
        """Make the way out for the attempt's transport; it is not started. `network` is the client's."""
        match attempt.endpoint.transport:
            case Transport.UDP:
                return UdpAttempt(
                    attempt,
                    events,
                    network=network,
                    readiness=self._readiness,
                    ports=self._ports,
                    sources=self._sources,
                )
            case Transport.TCP:
                return TcpAttempt(
                    attempt,
                    events,
                    readiness=self._readiness,
                    sources=self._sources,
                    max_reply_bytes=self._max_reply_bytes,
                )
