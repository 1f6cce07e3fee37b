"""One datagram and its answer over a connected UDP socket of its own (RFC 4120 7.2.1).

The socket is connected, so that the kernel drops what comes from other peers and reports a closed port. Its
port is one that no late answer to another request can reach, see `upstream.ports`.
"""

import socket

from kkdcpd.protocol.messages import is_reply_to_another_kind
from kkdcpd.socket_address import socket_address
from kkdcpd.upstream.attempt import (
    AttemptEvents,
    SourceAddresses,
    failure_of,
    log_local_error,
    open_socket,
    receive,
)
from kkdcpd.upstream.ports import KdcPorts
from kkdcpd.upstream.readiness import READABLE, Readiness
from kkdcpd.values import Attempt, FailureReason, ProxyRequest

__all__ = ["UdpAttempt"]

MAX_EARLY_DATAGRAMS = 16
"""How many datagrams are dropped before ours is sent. There is none, unless the port was young."""


class UdpAttempt:
    """Sends a datagram, perhaps several times, and waits for one. A `WayOut`."""

    def __init__(
        self,
        attempt: Attempt,
        events: AttemptEvents,
        *,
        network: str,
        readiness: Readiness,
        ports: KdcPorts,
        sources: SourceAddresses,
    ) -> None:
        self._attempt = attempt
        self._events = events
        self._sources = sources
        self._readiness = readiness
        self._ports = ports
        self._network = network
        self._socket: socket.socket | None = None
        self._request: ProxyRequest | None = None
        self._awaited = 0
        self._is_answered = False

    def start(self) -> None:
        """Name the peer to the kernel: UDP has no connect to wait for."""
        endpoint = self._attempt.endpoint
        if not self._ports.take(endpoint, self._network):
            log_local_error(endpoint, None, self._sources)
            self._events.failed(self._attempt, FailureReason.LOCAL_ERROR)
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
            if self._request is None:
                self._drop_early_datagrams(self._socket)
            self._socket.send(request.payload)
        except OSError as error:
            self._fail(error)
            return
        self._request = request
        self._awaited += 1
        self._readiness.call_once(self._socket, READABLE, self._read)

    def close(self) -> None:
        """Let go of the socket, if there is one. It stays open while an answer may come to it."""
        sock, self._socket = self._socket, None
        if sock is None:
            return
        if self._awaited:
            self._ports.keep(
                sock,
                self._attempt.endpoint,
                self._network,
                answers=self._awaited,
                is_answered=self._is_answered,
            )
        else:
            self._readiness.close_socket(sock)
            self._ports.give_back(self._attempt.endpoint, self._network)

    def _fail(self, error: OSError) -> None:
        reason = failure_of(error)
        if reason is FailureReason.LOCAL_ERROR:
            log_local_error(self._attempt.endpoint, error, self._sources)
        elif reason is FailureReason.REFUSED:
            self._awaited = 0  # no answer comes from a closed port
        if self._socket is None:
            self._ports.give_back(self._attempt.endpoint, self._network)
        self.close()
        self._events.failed(self._attempt, reason)

    @staticmethod
    def _drop_early_datagrams(sock: socket.socket) -> None:
        """Drop what came before our message: it is no answer to it."""
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
        self.close()
        self._events.received(self._attempt, payload)
