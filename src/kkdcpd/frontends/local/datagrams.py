"""Receives requests of local programs in datagrams, and sends the answers (RFC 4120 7.2.1).

Each answer leaves from the address that the program has sent to, also on a socket that is bound to all
addresses of the host: programs drop an answer from another address.
"""

import asyncio
import contextlib
import socket
from collections.abc import Hashable, Sequence
from dataclasses import field

from kkdcpd.frontends.local.options import LocalListener, LocalOptions
from kkdcpd.frontends.local.requests import LocalRequest
from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger
from kkdcpd.pipeline.joining import Answer, Joiner
from kkdcpd.protocol.framing import add_prefix
from kkdcpd.protocol.ip_addresses import network_of, parse_address
from kkdcpd.socket_address import SocketAddress
from kkdcpd.values import ClientConnection

__all__ = ["Datagrams"]

logger = EventLogger(__name__)

MAX_PAYLOAD_BYTES = 65535
ANCILLARY_BYTES = 64

DATAGRAMS_AT_ONCE = 32
"""Datagrams that are read before other events are handled."""

IP_PKTINFO = 8
"""The option of ip(7) that Python 3.11 does not name."""

_ADDRESS_OPTIONS = {
    socket.AF_INET: (socket.IPPROTO_IP, IP_PKTINFO),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO),
}

Ancillary = tuple[tuple[int, int, bytes], ...]


class Datagrams:
    """Receives on one socket until `close`."""

    def __init__(self, listener: LocalListener, options: LocalOptions, joiner: Joiner) -> None:
        self._socket = listener.socket
        self._options = options
        self._joiner = joiner
        level, option = _ADDRESS_OPTIONS[socket.AddressFamily(self._socket.family)]
        self._socket.setsockopt(level, option, 1)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def close(self) -> None:
        """Read the datagrams that have arrived, and receive no more. Answers are still sent."""
        self._receive()
        asyncio.get_running_loop().remove_reader(self._socket)

    def send(self, payload: bytes, ancillary: Ancillary, peer: SocketAddress) -> None:
        """Send an answer. A program that gets none sends its request again."""
        try:
            self._socket.sendmsg([payload], ancillary, 0, peer)
        except OSError as error:
            logger.debug("datagram_not_sent", client=peer[0], port=peer[1], reason=str(error))

    def limit(self, payload: bytes, request: LocalRequest) -> bytes:
        """Return the payload, or in place of a longer one than allowed the error that demands TCP."""
        return payload if len(payload) <= self._options.max_datagram_bytes else request.too_big()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):  # no datagram is left, or an ICMP error has come for an answer
            for _ in range(DATAGRAMS_AT_ONCE):
                payload, ancillary, _flags, peer = self._socket.recvmsg(MAX_PAYLOAD_BYTES, ANCILLARY_BYTES)
                request = LocalRequest(
                    _client_at(peer), add_prefix(payload), has_next_kdc=self._options.has_next_kdc
                )
                sender = _Datagram(
                    datagrams=self, request=request, peer=peer, ancillary=_reply_from(ancillary)
                )
                self._joiner.submit(request, sender)


@frozen
class _Datagram:
    """The sender of a datagram. Datagrams with equal addresses have equal senders."""

    datagrams: Datagrams
    peer: SocketAddress
    ancillary: Ancillary
    request: LocalRequest = field(compare=False)

    @property
    def origin(self) -> Hashable:
        """The client's socket."""
        return self.datagrams, self.peer

    def deliver(self, answer: Answer) -> None:
        """Send the answer, if it answers a request."""
        # Two programs that answered each other's errors would never end, so only requests are answered.
        if self.request.parsed:
            payload = self.datagrams.limit(answer.payload, self.request)
            self.datagrams.send(payload, self.ancillary, self.peer)

    def dismiss(self) -> None:
        """Do nothing: a program without an answer sends its request again."""


def _reply_from(ancillary: Sequence[tuple[int, int, bytes]]) -> Ancillary:
    """Return the data by which the kernel sends from the address that a datagram was sent to.

    struct in_pktinfo of ip(7) has the interface, the address to send from, and the destination of the
    datagram. The kernel fills the second with the usual address of the interface. struct in6_pktinfo of
    ipv6(7) has the destination only.
    """
    return tuple(
        (level, kind, data[:4] + data[8:12] + data[8:12] if level == socket.IPPROTO_IP else data)
        for level, kind, data in ancillary
    )


def _client_at(peer: SocketAddress) -> ClientConnection:
    address = peer[0] if len(peer) == 2 else str(parse_address(peer[0]))
    return ClientConnection(address=address, port=peer[1], network=network_of(address))
