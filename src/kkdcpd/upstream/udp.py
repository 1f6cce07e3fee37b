"""One datagram and its answer over a fresh connected UDP socket (RFC 4120 7.2.1).

Connected, so that the kernel drops what comes from elsewhere and reports a closed port; fresh, so that no
reply to another request can arrive on it.
"""

import socket

from kkdcpd.upstream.attempt import AttemptEvents, SourceAddresses, failure_of, open_socket, receive
from kkdcpd.upstream.readiness import READABLE, Readiness
from kkdcpd.values import Attempt, ProxyRequest

__all__ = ["UdpAttempt"]


class UdpAttempt:
    """Sends one datagram and waits for one. A `WayOut`."""

    def __init__(
        self, attempt: Attempt, events: AttemptEvents, *, readiness: Readiness, sources: SourceAddresses
    ) -> None:
        self._attempt = attempt
        self._events = events
        self._sources = sources
        self._readiness = readiness
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Name the peer to the kernel: UDP has no connect to wait for."""
        endpoint = self._attempt.endpoint
        try:
            self._socket = open_socket(endpoint, socket.SOCK_DGRAM, self._sources)
            self._socket.connect((endpoint.address, endpoint.port))
        except OSError as error:
            self._fail(error)
            return
        self._events.connected(self._attempt)

    def send(self, request: ProxyRequest) -> None:
        """Send the payload, once."""
        assert self._socket
        try:
            self._socket.send(request.payload)
        except OSError as error:
            self._fail(error)
            return
        self._readiness.call_once(self._socket, READABLE, self._read)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._socket:
            self._readiness.close_socket(self._socket)
            self._socket = None

    def _fail(self, error: OSError) -> None:
        self.close()
        self._events.failed(self._attempt, failure_of(error))

    def _read(self) -> None:
        assert self._socket
        try:
            payload = receive(self._socket)
        except BlockingIOError:
            self._readiness.call_once(self._socket, READABLE, self._read)
            return
        except OSError as error:
            self._fail(error)
            return
        self.close()
        self._events.received(self._attempt, payload)
