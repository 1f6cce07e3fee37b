"""Looks up names at the configured DNS servers, over the network each time.

A name without records is an answer. Failures are no response, SERVFAIL, REFUSED and similar responses.
`dns_cache` keeps the answers.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar

import dns.exception
import dns.name

from kkdcpd.config import Nameserver
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.dns_wire import FoundRecords, RecordType, Response
from kkdcpd.locate.fair_semaphore import FairSemaphore
from kkdcpd.locate.nameserver import RETRY_SECONDS, NameserverClient

__all__ = ["DnsClient", "Requester", "requester"]

MAX_QUERIES_IN_FLIGHT = 64
"""A realm may have hundreds of KDCs. A burst of as many datagrams would overflow a resolver's buffer."""

QUERY_SHARE = 48
"""The most queries of one configured realm, so that other realms need not wait for its DNS server."""

MAX_WILDCARD_QUERIES = 32
"""Queries for realms under wildcards have their own slots, because clients choose the names."""

WILDCARD_QUERY_SHARE = 8
"""The most queries of one branch of a wildcard. The branch's owner decides how slowly they are answered."""


@frozen
class Requester:
    """The realm that a DNS query is for: a configured realm, or a branch of a wildcard (see `realms`)."""

    name: str = ""
    is_wildcard: bool = False


_UNKNOWN = Requester()

requester = ContextVar("requester", default=_UNKNOWN)
"""The task that locates a realm sets it; the tasks that this task starts inherit it."""


class DnsClient:
    """Asks the DNS servers in order, the next server after a short time without a response.

    The server that answered last is asked first, so a dead server costs little.
    """

    def __init__(self, nameservers: Sequence[Nameserver], *, timeout: float) -> None:
        self._timeout = timeout
        self._slots = FairSemaphore(MAX_QUERIES_IN_FLIGHT, share=QUERY_SHARE)
        self._wildcard_slots = FairSemaphore(MAX_WILDCARD_QUERIES, share=WILDCARD_QUERY_SHARE)
        self._servers = [NameserverClient(nameserver) for nameserver in nameservers]

    async def query(self, name: str, record_type: RecordType) -> FoundRecords:
        """Ask for the records of a fully qualified name.

        Raises:
            DnsFailedError: no server gave an answer in time.
        """
        try:
            full_name = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            # The name is invalid (RFC 1035 2.3.4), so it has no records.
            return FoundRecords(records=(), ttl=float("inf"))
        group = requester.get()
        slots = self._wildcard_slots if group.is_wildcard else self._slots
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(deadline), slots.hold(group):
                return await _Race(self._servers, full_name, record_type, deadline, self._prefer).run()
        except TimeoutError as error:
            raise _failure(name, record_type, f"no answer within {self._timeout:g} s") from error
        except _AllFailedError as error:
            raise _failure(name, record_type, str(error)) from error

    def _prefer(self, server: NameserverClient) -> None:
        """Move this server to the front."""
        if self._servers[0] is not server:
            self._servers = [server, *(each for each in self._servers if each is not server)]


class _AllFailedError(Exception):
    """All servers failed. The text gives each reason, such as `127.0.0.1@53 REFUSED`."""


class _Race:
    """One question to several servers. Each server is asked after the previous one was silent or failed."""

    def __init__(
        self,
        servers: Sequence[NameserverClient],
        name: dns.name.Name,
        record_type: RecordType,
        deadline: float,
        prefer: Callable[[NameserverClient], None],
    ) -> None:
        self._waiting = list(servers)
        self._question = name, record_type
        self._deadline = deadline
        self._prefer = prefer
        self._running: dict[asyncio.Task[Response], NameserverClient] = {}
        self._reasons: list[str] = []

    async def run(self) -> FoundRecords:
        """Return the first answer.

        Raises:
            TimeoutError: a server is silent until the deadline, and no other server has an answer.
            _AllFailedError: all servers failed.
        """
        try:
            while self._waiting or self._running:
                self._start_next()
                found = await self._first_answer()
                if found is not None:
                    return found
        finally:
            for task in self._running:
                task.cancel()
        raise _AllFailedError(", ".join(self._reasons))

    def _start_next(self) -> None:
        if self._waiting:
            server = self._waiting.pop(0)
            name, record_type = self._question
            ask = server.ask(name, record_type, self._deadline)
            task = asyncio.get_running_loop().create_task(ask, name=f"dns {record_type.value} {name}")
            self._running[task] = server

    async def _first_answer(self) -> FoundRecords | None:
        """Wait until a server answers or fails, or until the next server is due."""
        pause = RETRY_SECONDS if self._waiting else None
        done, _ = await asyncio.wait(self._running, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            server = self._running.pop(task)
            found = self._result(server, task)
            if found is not None:
                self._prefer(server)
                return found
        return None

    def _result(self, server: NameserverClient, task: asyncio.Task[Response]) -> FoundRecords | None:
        error = task.exception()
        if error is None:
            response = task.result()
            self._reasons.append(f"{server} {response.rcode}")
            return response.found
        if not isinstance(error, OSError) or isinstance(error, TimeoutError):
            raise error
        self._reasons.append(f"{server} {error.strerror or error}")
        return None


def _failure(name: str, record_type: RecordType, reason: str) -> DnsFailedError:
    return DnsFailedError(f"DNS look-up of {record_type.value} {name}: {reason}")
