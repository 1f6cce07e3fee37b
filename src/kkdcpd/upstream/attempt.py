"""What every way out has in common: the events it tells, and how a socket is made and its errors are named.

The ways out call back instead of being awaited: an exchange has one future and one timer, however many
attempts it makes, and closing an attempt is immediate.
"""

import errno
import socket
from collections.abc import Mapping
from typing import Protocol

from kkdcpd.values import Attempt, FailureReason, KdcEndpoint, ProxyRequest

__all__ = ["AttemptEvents", "SourceAddresses", "WayOut", "failure_of", "open_socket", "receive"]

SourceAddresses = Mapping[socket.AddressFamily, str]


MAX_DATAGRAM_BYTES = 65535
"""The largest that UDP can bear; KDCs answer KRB_ERR_RESPONSE_TOO_BIG long before."""

_buffer = memoryview(bytearray(MAX_DATAGRAM_BYTES))


class AttemptEvents(Protocol):
    """Whom an attempt tells what becomes of it.

    After `failed`, `received` or its `close` it is silent; its socket is closed before it tells one of them.
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
        """Send the message; tells `received` or `failed`."""

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
            sock.bind((sources[family], 0))
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
    """Translate an error of connect, send or receive."""
    if isinstance(error, ConnectionRefusedError):
        return FailureReason.REFUSED
    if error.errno == errno.EMSGSIZE:
        return FailureReason.MESSAGE_TOO_BIG
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return FailureReason.RESET
    return FailureReason.UNREACHABLE
