"""Asks one DNS server one question: over UDP, for long answers over TCP, with EDNS where the server takes it.

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

__all__ = ["RETRY_SECONDS", "NameserverClient"]

RETRY_SECONDS = 0.15
"""After how long a query is sent again. It is sent three times; the pauses grow."""

_TRY_SECONDS = (0.0, RETRY_SECONDS, 4 * RETRY_SECONDS)
"""After how many seconds the tries are sent."""

PLAIN_SECONDS = 600.0
"""For how long a server is asked without EDNS after it turned out not to take it. Then both kinds are sent
at the same time, and the answer tells: no client waits for that."""

SILENCES_OF_EDNS = 2
"""So many answers without EDNS, each while a query with EDNS is unanswered, show that those are dropped. One
may be a lost packet."""

REFUSES_EDNS = frozenset({"FORMERR", "NOTIMP", "BADVERS"})
"""What a server says that does not know EDNS, or not our version of it."""

MAX_DATAGRAM_BYTES = 65535
_LENGTH = struct.Struct("!H")


class NameserverClient:
    """Asks one server, and remembers whether it takes queries with EDNS.

    Each question has a socket of its own, connected and on a random port: the kernel drops what comes from
    elsewhere, and a look-up that is cancelled leaves nothing behind.
    """

    def __init__(self, nameserver: Nameserver) -> None:
        self.nameserver = nameserver
        self._plain_until = 0.0
        self._silences = 0

    def __str__(self) -> str:
        return f"{self.nameserver.host}@{self.nameserver.port}"

    async def ask(self, name: dns.name.Name, record_type: RecordType, deadline: float) -> Response:
        """Return the server's response.

        Raises:
            TimeoutError: there is none until the deadline of the loop's clock.
            OSError: the server can't be reached.
        """
        async with asyncio.timeout_at(deadline):
            query, response = await self._ask_over_udp(name, record_type)
            if response.is_truncated:
                return await self._ask_over_tcp(query)
            return response

    async def _ask_over_udp(self, name: dns.name.Name, record_type: RecordType) -> tuple[Query, Response]:
        loop = asyncio.get_running_loop()
        with _socket(self.nameserver, socket.SOCK_DGRAM) as sock:
            await loop.sock_connect(sock, _place(self.nameserver))
            exchange = _Exchange(sock, name, record_type)
            tries = [
                loop.call_later(delay, partial(exchange.send, with_edns=with_edns))
                for delay, with_edns in self._tries(loop.time())
            ]
            try:
                query, response = await exchange.receive()
                was_refused = _may_lack_edns(query, response)
                if was_refused:
                    # The same question, as a server reads it that knows RFC 1035 alone.
                    exchange.send(with_edns=False)
                    query, response = await exchange.receive_plain()
            finally:
                for each in tries:
                    each.cancel()
            self._learn(query, exchange.sent, response, was_refused=was_refused)
            return query, response

    def _tries(self, now: float) -> Iterator[tuple[float, bool]]:
        """Yield after how many seconds each try is sent, and whether it has EDNS."""
        first, second, third = _TRY_SECONDS
        if not self._plain_until:
            yield from ((first, True), (second, False), (third, True))
            return
        if now >= self._plain_until:
            self._plain_until = now + PLAIN_SECONDS
            yield first, True
        yield from ((first, False), (second, False), (third, False))

    def _learn(self, query: Query, sent: list[Query], response: Response, *, was_refused: bool) -> None:
        """Note whether the server takes EDNS, as far as its answer tells."""
        if query.edns >= 0:
            self._silences, self._plain_until = 0, 0.0
        elif response.found is not None and any(each.edns >= 0 for each in sent):
            self._silences = SILENCES_OF_EDNS if was_refused else self._silences + 1
            if self._silences >= SILENCES_OF_EDNS:
                self._plain_until = asyncio.get_running_loop().time() + PLAIN_SECONDS

    async def _ask_over_tcp(self, query: Query) -> Response:
        loop = asyncio.get_running_loop()
        with _socket(self.nameserver, socket.SOCK_STREAM) as sock:
            await loop.sock_connect(sock, _place(self.nameserver))
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


def _place(nameserver: Nameserver) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the socket address; a link-local server's has the number of the interface (RFC 4007 11)."""
    host, _, zone = nameserver.host.partition("%")
    if not zone:
        return host, nameserver.port
    return host, nameserver.port, 0, int(zone) if zone.isdecimal() else socket.if_nametoindex(zone)


class _Exchange:
    """The queries of one question that were sent from one socket, and the responses to any of them."""

    def __init__(self, sock: socket.socket, name: dns.name.Name, record_type: RecordType) -> None:
        self._sock = sock
        self._question = name, record_type
        self.sent: list[Query] = []

    def send(self, *, with_edns: bool) -> None:
        query = build_query(*self._question, with_edns=with_edns)
        self.sent.append(query)
        # An error tells of the query before, or of a full buffer: the next try follows.
        with contextlib.suppress(OSError):
            self._sock.send(query.to_wire())

    async def receive(self) -> tuple[Query, Response]:
        """Return the next response, with the query that it answers."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                wire = await loop.sock_recv(self._sock, MAX_DATAGRAM_BYTES)
            except ConnectionRefusedError:
                continue  # a server that is restarted hears the next try
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
    """Whether the server may have an answer to the same query without EDNS (RFC 6891 7, RFC 2671 5.3)."""
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
