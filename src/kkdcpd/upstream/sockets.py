"""The common part of all ways out: their interface, and sockets to KDCs.

Ways out call back instead of being awaited: an exchange has one future and one alarm for all its attempts,
and closing an attempt is immediate.

All sockets are in one epoll of this module, and the event loop watches the epoll. An event loop is made for
connections that live long: uvloop registers a socket in six system calls. Each request has a socket of its
own, for which one call is enough: closing the socket is the end.
"""

import asyncio
import errno
import select
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.resending import NO_FACTS
from kkdcpd.socket_address import socket_address
from kkdcpd.values import Attempt, FailureFacts, FailureReason, ProxyRequest

__all__ = [
    "READABLE",
    "WRITABLE",
    "AttemptEvents",
    "Readiness",
    "SourceAddresses",
    "WayOut",
    "failure_of",
    "log_local_error",
    "open_socket",
    "receive",
]

logger = EventLogger(__name__)

SourceAddresses = Mapping[socket.AddressFamily, str]

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT

MAX_EVENTS = 64
"""Sockets that are served before other callbacks of the event loop have their turn."""

MAX_DATAGRAM_BYTES = 65535
"""The largest datagram of UDP. KDCs answer KRB_ERR_RESPONSE_TOO_BIG long before."""

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
"""Errors of this host, which say nothing about the KDC, and the advice for each."""


class AttemptEvents(Protocol):
    """The receiver of an attempt's events.

    No event follows `failed`, `received` or a call of `close`, and the socket is closed before these events.
    """

    def connected(self, attempt: Attempt) -> None:
        """Handle the event that the message can be sent."""

    def received(self, attempt: Attempt, payload: bytes) -> None:
        """Take a whole reply, without its length prefix."""

    def failed(self, attempt: Attempt, reason: FailureReason, facts: FailureFacts = NO_FACTS) -> None:
        """Handle the end of the attempt without a reply."""


class WayOut(Protocol):
    """One attempt at one endpoint."""

    def start(self) -> None:
        """Get ready to send. The event `connected` or `failed` follows, perhaps before the return."""

    def send(self, request: ProxyRequest) -> None:
        """Send the message. The event `received` or `failed` follows. A datagram may be sent again."""

    def close(self) -> None:
        """Close the socket in any state. Idempotent."""


class Readiness:
    """Calls a function once when a socket is ready or has an error. Make it in a running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        # Each callback, and the number of the round in which it was registered.
        self._callbacks: dict[int, tuple[Callable[[], None], int]] = {}
        self._round = 0
        self._loop.add_reader(self._epoll.fileno(), self._dispatch)

    def call_once(self, sock: socket.socket, events: int, callback: Callable[[], None]) -> None:
        """Call `callback` when one of `events` is true of the socket. It replaces an earlier callback."""
        descriptor = sock.fileno()
        if descriptor in self._callbacks:
            self._epoll.modify(descriptor, events | select.EPOLLONESHOT)
        else:
            self._epoll.register(descriptor, events | select.EPOLLONESHOT)
        self._callbacks[descriptor] = callback, self._round

    def close_socket(self, sock: socket.socket) -> None:
        """Close the socket and drop its callback. With its last descriptor it leaves the epoll (epoll(7))."""
        self._callbacks.pop(sock.fileno(), None)
        sock.close()

    def _dispatch(self) -> None:
        self._round += 1
        for descriptor, _events in self._epoll.poll(0, MAX_EVENTS):
            registered = self._callbacks.get(descriptor)
            # A callback of this round may have closed this socket, and opened another of the same number.
            if registered and registered[1] < self._round:
                try:
                    registered[0]()
                except Exception as error:  # noqa: BLE001 - as in the event loop: other callbacks come next
                    message = "bug in what was called when a socket was ready"
                    self._loop.call_exception_handler({"message": message, "exception": error})


def open_socket(endpoint: KdcEndpoint, kind: socket.SocketKind, sources: SourceAddresses) -> socket.socket:
    """Open a non-blocking socket for the endpoint, bound to the configured source address, if any.

    Raises:
        OSError: descriptors are short, or this host does not have the source address.
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
    """Receive the waiting bytes, a datagram whole. No bytes are the end of a connection.

    All sockets share one buffer. A new buffer of this size for each call would cost four system calls and a
    page fault.

    Raises:
        OSError: no bytes have arrived yet, or the socket has an error.
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


def log_local_error(endpoint: KdcEndpoint, error: OSError, sources: SourceAddresses) -> None:
    """Log what this host lacks. `failure_of` has found that the error is a local one."""
    number = error.errno or 0
    advice = _LOCAL_ERRORS[number]
    if number == errno.EADDRNOTAVAIL and sources:
        advice += "; or correct upstream.source_addresses, if this host has no such address"
    logger.warning(
        "local_error",
        sum_by=("local_error", number),
        kdc=str(endpoint),
        address=endpoint.address,
        error=errno.errorcode[number],
        advice=advice,
    )
