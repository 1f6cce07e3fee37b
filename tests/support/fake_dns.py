"""A DNS server with faults that no real server produces on demand."""

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

__all__ = ["FakeDns", "Habits", "serving"]

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """The faults of the server. A question is a record type, a name, or both with a space between.

    The server never answers `dropped` questions. It answers `slow` questions after a number of seconds and
    `failing` questions with an RCODE. It answers queries with EDNS by the RCODE `edns`, or not if that is
    "drop".
    """

    dropped: Collection[str] = ()
    slow: Mapping[str, float] = field(default_factory=dict)
    failing: Mapping[str, str] = field(default_factory=dict)
    edns: str = ""


class FakeDns:
    """Serves the records of `zone` over UDP and TCP while its context lasts.

    `zone` has a record in each line, as a zone file does, with full names. `asked` counts the queries by
    name, type and the presence of EDNS.
    """

    def __init__(
        self, zone: str, habits: Habits | None = None, *, address: str = LOOPBACK, port: int = 0
    ) -> None:
        self.asked: Counter[tuple[str, str, bool]] = Counter()
        self.habits = habits or Habits()
        self._records = [line.split(None, 3) for line in zone.splitlines() if line.strip()]
        self._udp, self._tcp = _sockets(address, port)
        self.address, self.port = self._udp.getsockname()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve, self._accept)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sock in (self._udp, self._tcp):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._udp.close()
        self._tcp.close()

    @property
    def endpoint(self) -> str:
        """HOST:PORT, as in `locate.nameservers`."""
        return f"{self.address}:{self.port}"

    def count(self, record_type: str) -> int:
        """Return the number of queries of a type."""
        return sum(number for (_, kind, _), number in self.asked.items() if kind == record_type)

    def _serve(self) -> None:
        while True:
            try:
                wire, client = self._udp.recvfrom(65535)
            except OSError:
                return
            if not wire:
                return  # the socket has been shut down
            query = dns.message.from_wire(wire)
            delay, response = self._answer(query)
            if response is None:
                continue
            limit = max(query.payload, 512) if query.edns >= 0 else 512
            try:
                reply = response.to_wire(max_size=limit)
            except dns.exception.TooBig:
                short = dns.message.make_response(query)
                short.flags |= dns.flags.TC
                reply = short.to_wire()
            if delay:
                threading.Timer(delay, self._send, (reply, client)).start()
            else:
                self._send(reply, client)

    def _send(self, reply: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # the server has ended
            self._udp.sendto(reply, client)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                length = int.from_bytes(connection.recv(2), "big")
                _, response = self._answer(dns.message.from_wire(connection.recv(length)))
                if response is not None:
                    reply = response.to_wire(max_size=65535)
                    connection.sendall(len(reply).to_bytes(2, "big") + reply)

    def _answer(self, query: dns.message.Message) -> tuple[float, dns.message.Message | None]:
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind, query.edns >= 0] += 1
        habits, spellings = self.habits, (kind, name, f"{name} {kind}")
        delay = max((habits.slow[each] for each in spellings if each in habits.slow), default=0.0)
        if any(each in habits.dropped for each in spellings) or (query.edns >= 0 and habits.edns == "drop"):
            return delay, None
        response = dns.message.make_response(query)
        rcode = next((habits.failing[each] for each in spellings if each in habits.failing), None)
        if query.edns >= 0 and habits.edns:
            response.use_edns(habits.edns == "BADVERS")
            rcode = habits.edns
        if rcode is not None:
            response.set_rcode(dns.rcode.from_text(rcode))
            return delay, response
        self._fill(response, name, kind)
        return delay, response

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        found = [record for record in self._records if (record[0].lower(), record[2]) == (name, kind)]
        if found:
            texts = [record[3] for record in found]
            response.answer.append(dns.rrset.from_text(f"{name}.", int(found[0][1]), "IN", kind, *texts))
        else:
            soa = "ns. hostmaster. 1 3600 600 86400 3600"
            response.authority.append(dns.rrset.from_text(".", 3600, "IN", "SOA", soa))


@asynccontextmanager
async def serving(zone: str, habits: Habits | None = None) -> AsyncIterator[FakeDns]:
    """Serve while the context lasts, without blocking the event loop of the test."""
    server = FakeDns(zone, habits)
    await asyncio.to_thread(server.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


def _sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket on one port; 0 is any free port."""
    while True:
        tcp = socket.create_server((address, port))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            udp.close()
            tcp.close()
        else:
            return udp, tcp
