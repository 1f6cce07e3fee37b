"""Sends one datagram and receives its answer over a connected UDP socket of its own (RFC 4120 7.2.1).

The socket is connected, so that the kernel drops datagrams of other peers and reports a closed port. No late
answer to another request can reach its port, see `upstream.ports`.
"""

import fcntl
import socket
import termios
from collections.abc import Sequence

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.messages import is_reply_to_another_kind
from kkdcpd.socket_address import socket_address
from kkdcpd.upstream.ports import KdcPorts
from kkdcpd.upstream.sockets import (
    READABLE,
    AttemptEvents,
    Readiness,
    SourceAddresses,
    failure_of,
    log_local_error,
    open_socket,
    receive,
)
from kkdcpd.values import Attempt, FailureReason, ProxyRequest

__all__ = ["UdpAttempt"]

logger = EventLogger(__name__)

MAX_EARLY_DATAGRAMS = 16
"""The most datagrams that are dropped before the message is sent. Only a port that was just freed has any."""

_ADVICE = "unanswered datagrams hold the local UDP ports: let kkdcpd reach the KDC by TCP (tcp://)"

_NOTHING_WAITS = bytes(4)
"""An int of C: no bytes wait."""


class UdpAttempt:
    """Sends a datagram, perhaps several times, and waits for an answer. A `WayOut`."""

    def __init__(
        self,
        attempt: Attempt,
        events: AttemptEvents,
        *,
        networks: Sequence[str],
        readiness: Readiness,
        ports: KdcPorts,
        sources: SourceAddresses,
    ) -> None:
        self._attempt = attempt
        self._events = events
        self._sources = sources
        self._readiness = readiness
        self._ports = ports
        self._networks = networks
        self._pool = ports.pool(attempt.endpoint)
        self._socket: socket.socket | None = None
        self._request: ProxyRequest | None = None
        self._awaited = 0
        self._is_answered = False

    def start(self) -> None:
        """Connect the socket. UDP has no connection to wait for."""
        endpoint = self._attempt.endpoint
        if not self._pool.take(self, self._networks):
            _log_port_limit(endpoint)
            self._events.failed(self._attempt, FailureReason.PORT_LIMIT)
            return
        try:
            self._socket = open_socket(endpoint, socket.SOCK_DGRAM, self._sources)
            self._socket.connect(socket_address(endpoint.address, endpoint.port))
        except OSError as error:
            self._fail(error)
            return
        self._events.connected(self._attempt)

    def send(self, request: ProxyRequest) -> None:
        """Send the payload."""
        assert self._socket
        try:
            # Asking for the number of waiting bytes costs a third of a receive call that fails.
            if self._request is None and _waiting_bytes(self._socket) != _NOTHING_WAITS:
                self._drop_early_datagrams(self._socket)
            self._socket.send(request.payload)
        except OSError as error:
            self._fail(error)
            return
        self._request = request
        self._awaited += 1
        self._readiness.call_once(self._socket, READABLE, self._read)

    def close(self) -> None:
        """Give up the socket, if there is one. It stays open while an answer may come to it."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        if self._awaited:
            self._pool.keep(self)
            self._ports.keep(
                sock, self._pool, self._networks, answers=self._awaited, is_answered=self._is_answered
            )
        else:
            self._readiness.close_socket(sock)
            self._pool.give_back(self)

    def _fail(self, error: OSError) -> None:
        reason = failure_of(error)
        if reason is FailureReason.LOCAL_ERROR:
            log_local_error(self._attempt.endpoint, error, self._sources)
        elif reason is FailureReason.REFUSED:
            self._awaited = 0  # no answer comes from a closed port
        if self._socket is None:
            self._pool.give_back(self)
        self.close()
        self._events.failed(self._attempt, reason)

    @staticmethod
    def _drop_early_datagrams(sock: socket.socket) -> None:
        """Drop the datagrams that came before the message was sent: none of them is its answer."""
        try:
            for _ in range(MAX_EARLY_DATAGRAMS):
                sock.recv(1)
        except BlockingIOError:
            pass

    def _read(self) -> None:
        assert self._socket
        assert self._request
        try:
            payload = receive(self._socket)
        except BlockingIOError:
            payload = None
        except OSError as error:
            self._fail(error)
            return
        if payload is None or is_reply_to_another_kind(self._request.kind, payload):
            self._readiness.call_once(self._socket, READABLE, self._read)
            return
        self._awaited -= 1
        self._is_answered = True
        self._pool.note_answer(self._networks)
        self.close()
        self._events.received(self._attempt, payload)


def _waiting_bytes(sock: socket.socket) -> bytes:
    return fcntl.ioctl(sock.fileno(), termios.FIONREAD, _NOTHING_WAITS)


def _log_port_limit(endpoint: KdcEndpoint) -> None:
    """Log that the client's network has its share of the local UDP ports, or that no port is left."""
    logger.warning(
        "port_limit",
        sum_by=("port_limit", endpoint),
        kdc=str(endpoint),
        address=endpoint.address,
        advice=_ADVICE,
    )
