"""The common part of all ways out: their events, and how sockets are opened and their errors are named.

The ways out call back instead of being awaited: an exchange has one future and one timer, however many
attempts it makes, and closing an attempt is immediate.
"""

import errno
import socket
from collections.abc import Mapping
from typing import Protocol

from kkdcpd.log.events import EventLogger
from kkdcpd.socket_address import socket_address
from kkdcpd.values import Attempt, FailureReason, KdcEndpoint, ProxyRequest

__all__ = [
    "AttemptEvents",
    "SourceAddresses",
    "WayOut",
    "failure_of",
    "log_local_error",
    "open_socket",
    "receive",
]

logger = EventLogger(__name__)

SourceAddresses = Mapping[socket.AddressFamily, str]


MAX_DATAGRAM_BYTES = 65535
"""The largest that UDP can bear; KDCs answer KRB_ERR_RESPONSE_TOO_BIG long before."""

_buffer = memoryview(bytearray(MAX_DATAGRAM_BYTES))


IP_BIND_ADDRESS_NO_PORT = 24  # ip(7); Python has it from 3.12 on

_NO_PORT = "no local port is free: widen net.ipv4.ip_local_port_range, or lower guard.rates.realm_rate"
_NO_DESCRIPTOR = "file descriptors are short: raise LimitNOFILE= of kkdcpd.service, or fs.file-max"
_NO_MEMORY = "the kernel has no memory for sockets: give the host more, or raise net.core.wmem_max"
_FORBIDDEN = "this host forbids it: let its firewall and its security policy allow kkdcpd to reach the KDC"

_LOCAL_ERRORS = {
    errno.EADDRINUSE: _NO_PORT,
    errno.EADDRNOTAVAIL: _NO_PORT,
    errno.EAGAIN: _NO_PORT,
    errno.EMFILE: _NO_DESCRIPTOR,
    errno.ENFILE: _NO_DESCRIPTOR,
    errno.ENOBUFS: _NO_MEMORY,
    errno.ENOMEM: _NO_MEMORY,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}
"""Errors of this host, which say nothing about the KDC, and what to do about each."""


class AttemptEvents(Protocol):
    """The receiver of an attempt's events.

    There is no event after `failed`, `received` or a call of `close`, and the socket is closed before.
    """

    def connected(self, attempt: Attempt) -> None:
        """Learn that the message can be sent."""

    def received(self, attempt: Attempt, payload: bytes) -> None:
        """Take a whole reply, without its length."""

    def failed(self, attempt: Attempt, reason: FailureReason) -> None:
        """Learn that it is over without a reply."""


class WayOut(Protocol):
    """One attempt at one endpoint."""

    def start(self) -> None:
        """Get ready to send; tells `connected` or `failed`, perhaps before it returns."""

    def send(self, request: ProxyRequest) -> None:
        """Send the message; tells `received` or `failed`. Over UDP it may be sent again."""

    def close(self) -> None:
        """Let go of the socket, in whatever state. Idempotent."""


def open_socket(endpoint: KdcEndpoint, kind: socket.SocketKind, sources: SourceAddresses) -> socket.socket:
    """Open a non-blocking socket for the endpoint, bound to our source address if one is configured.

    Raises:
        OSError: descriptors are short, or the source address isn't ours.
    """
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    if family in sources:
        try:
            # The kernel chooses the port when it knows the peer: other peers may then have the same port.
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(socket_address(sources[family], 0))
        except OSError:
            sock.close()
            raise
    return sock


def receive(sock: socket.socket) -> bytes:
    """Receive what is there, a datagram whole; nothing is the end of a connection.

    All sockets share one buffer: to have a new one of this size, and to give it back, takes four system calls
    and a page fault.

    Raises:
        OSError: nothing is there yet, or the system has something against it.
    """
    return bytes(_buffer[: sock.recv_into(_buffer)])


def failure_of(error: OSError) -> FailureReason:
    """Translate an error of socket, bind, connect, send or receive."""
    if error.errno in _LOCAL_ERRORS:
        return FailureReason.LOCAL_ERROR
    if isinstance(error, ConnectionRefusedError):
        return FailureReason.REFUSED
    if error.errno == errno.EMSGSIZE:
        return FailureReason.MESSAGE_TOO_BIG
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return FailureReason.RESET
    return FailureReason.UNREACHABLE


def log_local_error(endpoint: KdcEndpoint, error: OSError | None, sources: SourceAddresses) -> None:
    """Tell the operator what this host lacks. Without an error it is a free place for a UDP port."""
    number = error.errno or 0 if error else errno.EADDRNOTAVAIL
    advice = _LOCAL_ERRORS[number]
    if error and number == errno.EADDRNOTAVAIL and sources:
        advice += "; or correct upstream.source_addresses, if this host has no such address"
    logger.warning(
        "local_error",
        sum_by=("local_error", number),
        kdc=str(endpoint),
        address=endpoint.address,
        error=errno.errorcode[number],
        advice=advice,
    )
