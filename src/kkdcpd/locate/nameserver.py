"""Asks one DNS server a question: over UDP, or TCP for long answers; with EDNS if the server supports it.

RFC 1035 4.2 (transports, repeated queries), RFC 7766 (TCP), RFC 6891 6.2.2 and 7 (servers without EDNS).
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from functools import partial

import dns.name

from kkdcpd.config import Nameserver
from kkdcpd.locate.dns_wire import Query, RecordType, Response, build_query, read_response
from kkdcpd.socket_address import socket_address

__all__ = ["RETRY_SECONDS", "NameserverClient"]

RETRY_SECONDS = 0.15
"""The pause before a query is sent again. A query is sent three times; the pauses grow."""

_TRY_SECONDS = (0.0, RETRY_SECONDS, 4 * RETRY_SECONDS)
"""The times of the three transmissions, in seconds from the start."""

PLAIN_SECONDS = 600.0
"""The time for which a server without EDNS gets plain queries. Then it gets a query of each kind at the same
time, and the answer shows whether it supports EDNS now. No client waits for this test."""

UNANSWERED_EDNS_QUERIES = 2
"""If only the plain query is answered this many times, EDNS is dropped. Once may be a lost packet."""

REFUSES_EDNS = frozenset({"FORMERR", "NOTIMP", "BADVERS"})
"""The response codes of a server that does not support EDNS or its version."""

MAX_DATAGRAM_BYTES = 65535
_LENGTH = struct.Struct("!H")


class NameserverClient:
    """Asks one server, and remembers whether it supports EDNS.

    Each question has its own connected socket on a random port. So the kernel drops datagrams from other
    addresses, and a cancelled look-up leaves no state behind.
    """

    def __init__(self, nameserver: Nameserver) -> None:
        self.nameserver = nameserver
        self._plain_until = 0.0
        self._unanswered_edns = 0

    def __str__(self) -> str:
        return f"{self.nameserver.host}@{self.nameserver.port}"

    async def ask(self, name: dns.name.Name, record_type: RecordType, deadline: float) -> Response:
        """Return the server's response.

        Raises:
            TimeoutError: no response comes until `deadline`, a time of the event loop's clock.
            OSError: the server is unreachable.
        """
        async with asyncio.timeout_at(deadline):
            query, response = await self._ask_over_udp(name, record_type)
            if response.is_truncated:
                return await self._ask_over_tcp(query)
            return response

    async def _ask_over_udp(self, name: dns.name.Name, record_type: RecordType) -> tuple[Query, Response]:
        loop = asyncio.get_running_loop()
        with _socket(self.nameserver, socket.SOCK_DGRAM) as sock:
            await loop.sock_connect(sock, socket_address(self.nameserver.host, self.nameserver.port))
            exchange = _Exchange(sock, name, record_type)
            timers = [
                loop.call_later(delay, partial(exchange.send, with_edns=with_edns))
                for delay, with_edns in self._schedule(loop.time())
            ]
            try:
                query, response = await exchange.receive()
                was_refused = _may_lack_edns(query, response)
                if was_refused:
                    # A server that knows RFC 1035 alone understands the plain form of the question.
                    exchange.send(with_edns=False)
                    query, response = await exchange.receive_plain()
            finally:
                for timer in timers:
                    timer.cancel()
            self._learn(query, exchange.sent, response, was_refused=was_refused)
            return query, response

    def _schedule(self, now: float) -> Iterator[tuple[float, bool]]:
        """Yield the delay of each transmission, and whether it has EDNS."""
        first, second, third = _TRY_SECONDS
        if not self._plain_until:
            yield from ((first, True), (second, False), (third, True))
            return
        if now >= self._plain_until:
            self._plain_until = now + PLAIN_SECONDS
            yield first, True
        yield from ((first, False), (second, False), (third, False))

    def _learn(self, query: Query, sent: list[Query], response: Response, *, was_refused: bool) -> None:
        """Remember whether the server supports EDNS, as far as the response shows."""
        if query.edns >= 0:
            self._unanswered_edns, self._plain_until = 0, 0.0
        elif response.found is not None and any(each.edns >= 0 for each in sent):
            self._unanswered_edns = UNANSWERED_EDNS_QUERIES if was_refused else self._unanswered_edns + 1
            if self._unanswered_edns >= UNANSWERED_EDNS_QUERIES:
                self._plain_until = asyncio.get_running_loop().time() + PLAIN_SECONDS

    async def _ask_over_tcp(self, query: Query) -> Response:
        loop = asyncio.get_running_loop()
        with _socket(self.nameserver, socket.SOCK_STREAM) as sock:
            await loop.sock_connect(sock, socket_address(self.nameserver.host, self.nameserver.port))
            wire = query.to_wire()
            await loop.sock_sendall(sock, _LENGTH.pack(len(wire)) + wire)
            (length,) = _LENGTH.unpack(await _read_exactly(sock, _LENGTH.size))
            response = read_response(query, await _read_exactly(sock, length))
        if response is None or response.is_truncated:
            raise OSError("no valid response over TCP")
        return response


def _socket(nameserver: Nameserver, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET6 if ":" in nameserver.host else socket.AF_INET
    return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


class _Exchange:
    """The queries that were sent from one socket for one question, and the responses to these queries."""

    def __init__(self, sock: socket.socket, name: dns.name.Name, record_type: RecordType) -> None:
        self._sock = sock
        self._question = name, record_type
        self.sent: list[Query] = []

    def send(self, *, with_edns: bool) -> None:
        query = build_query(*self._question, with_edns=with_edns)
        self.sent.append(query)
        # The error belongs to the query before, or the buffer is full. The next transmission follows anyway.
        with contextlib.suppress(OSError):
            self._sock.send(query.to_wire())

    async def receive(self) -> tuple[Query, Response]:
        """Return the next response and the query that it answers."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                wire = await loop.sock_recv(self._sock, MAX_DATAGRAM_BYTES)
            except ConnectionRefusedError:
                continue  # a server that is just restarted may answer the next transmission
            for query in self.sent:
                response = read_response(query, wire)
                if response is not None:
                    return query, response

    async def receive_plain(self) -> tuple[Query, Response]:
        """Return the next response to a query without EDNS."""
        while True:
            query, response = await self.receive()
            if query.edns < 0:
                return query, response


def _may_lack_edns(query: Query, response: Response) -> bool:
    """Whether the server may answer the same query without EDNS (RFC 6891 7, RFC 2671 5.3)."""
    if query.edns < 0 or response.found is not None:
        return False
    return response.rcode in REFUSES_EDNS or (response.rcode == "SERVFAIL" and not response.has_opt)


async def _read_exactly(sock: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    received = b""
    while len(received) < count:
        chunk = await loop.sock_recv(sock, count - len(received))
        if not chunk:
            raise OSError("closed the connection")
        received += chunk
    return received
