"""One look-up in DNS, over the wire each time: the only module that uses dnspython.

A name without records is an answer; only silence, SERVFAIL, REFUSED and the like are failures. What is
remembered, and for how long, is `dns_cache`'s.
"""

import asyncio
import contextlib
import io
from collections.abc import Sequence
from contextvars import ContextVar

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdata
import dns.rdatatype
import dns.rdtypes.ANY.URI
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV
import dns.resolver

from kkdcpd.config import Nameserver
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import Word, frozen
from kkdcpd.locate.records import Record, SrvRecord, UriRecord
from kkdcpd.protocol.ip_addresses import parse_address

__all__ = ["DnsClient", "FoundRecords", "RecordType", "is_trial", "system_nameservers"]

MAX_QUERIES_IN_FLIGHT = 64
"""A realm may have hundreds of KDCs: a burst of as many datagrams would overflow a resolver's buffer."""

MAX_TRIALS_IN_FLIGHT = 16
"""Of these, for names that may be made up: who makes up many, while DNS is slow to say that there are none,
takes a quarter of the places and no more."""

EDNS_PAYLOAD_OCTETS = 1232
"""What passes any path unfragmented (DNS flag day 2020); longer answers come over TCP (RFC 7766)."""

_LOCAL_RESOLVER = Nameserver(host="127.0.0.1")
"""Who is asked when resolv.conf names nobody (resolv.conf(5))."""


is_trial = ContextVar("is_trial", default=False)
"""Whether a look-up is for a name under a wildcard that was never found. Who tries such a name sets it in the
task that does so: what is started there has it, too."""


class RecordType(Word):
    """The record types that locating needs."""

    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"
    URI = "URI"


@frozen
class FoundRecords:
    """DNS' answer: its records, none if there are none, and for how many seconds it says that this holds."""

    records: tuple[Record, ...]
    ttl: float


def system_nameservers(resolv_conf: str) -> tuple[Nameserver, ...]:
    """Return the servers that the text of a resolv.conf names."""
    resolver = dns.asyncresolver.Resolver(configure=False)
    try:
        resolver.read_resolv_conf(io.StringIO(resolv_conf))
    except dns.resolver.NoResolverConfiguration:
        return (_LOCAL_RESOLVER,)
    return tuple(Nameserver(host=str(server)) for server in resolver.nameservers)


class DnsClient:
    """Asks the nameservers in order; who answered last is asked first, so that a dead one costs little.

    A look-up is never cancelled, it ends by its own time: uvloop loses sight of a datagram endpoint whose
    making is cancelled, and its socket stays open. So `close` waits for what is under way.
    """

    def __init__(self, nameservers: Sequence[Nameserver], *, timeout: float) -> None:
        self._timeout = timeout
        self._places = asyncio.Semaphore(MAX_QUERIES_IN_FLIGHT)
        self._trial_places = asyncio.Semaphore(MAX_TRIALS_IN_FLIGHT)
        self._lookups: set[asyncio.Task[FoundRecords]] = set()
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.use_edns(0, 0, EDNS_PAYLOAD_OCTETS)
        self._servers = [
            dns.nameserver.Do53Nameserver(nameserver.host, nameserver.port) for nameserver in nameservers
        ]
        self._resolver.nameservers = list(self._servers)
        # Each server is asked once and the first once more within the time that there is in all.
        self._resolver.timeout = timeout / (len(self._servers) + 1)

    async def query(self, name: str, record_type: RecordType) -> FoundRecords:
        """Ask for the records of a name, which is taken as a full one.

        Raises:
            DnsFailedError: nobody gave an answer in time.
        """
        try:
            full_name = dns.name.from_text(name)
        except (dns.exception.DNSException, UnicodeError):
            # No such name can be, so it has no records: RFC 1035 2.3.4.
            return FoundRecords(records=(), ttl=float("inf"))
        try:
            return await asyncio.shield(self._start(full_name, record_type))
        except TimeoutError as error:
            raise _failure(name, record_type, f"no answer within {self._timeout:g} s") from error
        except dns.resolver.LifetimeTimeout as error:
            raise _failure(name, record_type, f"no answer within {self._timeout:g} s") from error
        except dns.resolver.NoNameservers as error:
            raise _failure(name, record_type, _reasons(error)) from error
        except (dns.exception.DNSException, OSError) as error:
            raise _failure(name, record_type, str(error)) from error

    async def close(self) -> None:
        """Wait for the look-ups under way."""
        await asyncio.gather(*self._lookups, return_exceptions=True)

    def _start(self, name: dns.name.Name, record_type: RecordType) -> asyncio.Task[FoundRecords]:
        loop = asyncio.get_running_loop()
        lookup = loop.create_task(self._ask(name, record_type), name=f"dns {record_type.value} {name}")
        self._lookups.add(lookup)
        lookup.add_done_callback(self._end)
        return lookup

    def _end(self, lookup: asyncio.Task[FoundRecords]) -> None:
        self._lookups.discard(lookup)
        if not lookup.cancelled():
            # Whoever asked may have left: then nobody else looks at the failure.
            lookup.exception()

    async def _ask(self, name: dns.name.Name, record_type: RecordType) -> FoundRecords:
        deadline = asyncio.get_running_loop().time() + self._timeout
        async with contextlib.AsyncExitStack() as places:
            async with asyncio.timeout_at(deadline):
                if is_trial.get():
                    await places.enter_async_context(self._trial_places)
                await places.enter_async_context(self._places)
            return await self._ask_in_time(name, record_type, deadline)

    async def _ask_in_time(
        self, name: dns.name.Name, record_type: RecordType, deadline: float
    ) -> FoundRecords:
        try:
            answer = await self._resolver.resolve(
                name,
                record_type.value,
                raise_on_no_answer=False,
                lifetime=deadline - asyncio.get_running_loop().time(),
                search=False,
            )
        except dns.resolver.NXDOMAIN as error:
            response: dns.message.QueryMessage = error.kwargs["responses"][name]
            return FoundRecords(records=(), ttl=response.resolve_chaining().minimum_ttl)
        self._prefer(answer.nameserver, answer.port)
        rrset = answer.rrset or ()
        return FoundRecords(
            records=tuple(record for rdata in rrset if (record := _record(rdata)) is not None),
            ttl=answer.chaining_result.minimum_ttl,
        )

    def _prefer(self, host: str | None, port: int | None) -> None:
        """Ask this server first from now on. A look-up that is under way has a list of its own."""
        if len(self._servers) > 1 and (self._servers[0].address, self._servers[0].port) != (host, port):
            self._servers.sort(key=lambda server: (server.address, server.port) != (host, port))
            self._resolver.nameservers = list(self._servers)


def _record(rdata: dns.rdata.Rdata) -> Record | None:
    match rdata:
        case dns.rdtypes.IN.A.A() | dns.rdtypes.IN.AAAA.AAAA():
            return str(parse_address(rdata.address))
        case dns.rdtypes.IN.SRV.SRV():
            target = rdata.target.to_text()
            return SrvRecord(
                priority=rdata.priority,
                weight=rdata.weight,
                port=rdata.port,
                target=target if target == "." else target.removesuffix("."),
            )
        case dns.rdtypes.ANY.URI.URI():
            target = rdata.target.decode("ascii", "backslashreplace")
            return UriRecord(priority=rdata.priority, weight=rdata.weight, target=target)
        case _:  # a malformed record of these types is dnspython's error, and no other type is asked for
            return None


def _failure(name: str, record_type: RecordType, reason: str) -> DnsFailedError:
    return DnsFailedError(f"DNS look-up of {record_type.value} {name}: {reason}")


def _reasons(error: dns.resolver.NoNameservers) -> str:
    """Say what each server did, such as `127.0.0.1@53 REFUSED`."""
    errors = error.kwargs.get("errors", ())
    words = (f"{str(server).removeprefix('Do53:')} {reason}" for server, _, _, reason, _ in errors)
    return ", ".join(words) or str(error)
