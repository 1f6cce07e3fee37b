"""Builds DNS queries and reads responses: bytes in, values out. Pure.

An attacker may control the server that sends a response. At most MAX_RECORDS of its records are read, so the
cost of a response is bounded.
"""

import re
import struct
from collections.abc import Iterable

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdtypes.ANY.URI
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.rdtypes.IN.SRV

from kkdcpd.frozen import Word, frozen
from kkdcpd.locate.records import Record, SrvRecord, UriRecord
from kkdcpd.protocol.ip_addresses import parse_address

__all__ = [
    "MAX_OTHER_RECORDS",
    "MAX_RECORDS",
    "FoundRecords",
    "Query",
    "RecordType",
    "Response",
    "build_query",
    "read_response",
]

EDNS_PAYLOAD_BYTES = 1232
"""The size that passes all paths unfragmented (DNS flag day 2020). Longer answers use TCP (RFC 7766)."""

MAX_RECORDS = 256
"""The number of records that are read of one answer. No client tries as many servers."""

MAX_OTHER_RECORDS = 16
"""The number of records that are read of each other section, with SOA (RFC 2308) and OPT (RFC 6891)."""

MAX_URI_BYTES = 512
"""A longer URI is ignored: a host's name has at most 253 bytes."""

_COUNTS = struct.Struct("!HHHH")
_COUNTS_AT = 4
_HEADER_BYTES = 12

_UNPRINTABLE = re.compile(r"[^ -~]")

Query = dns.message.QueryMessage


class RecordType(Word):
    """The record types that locating needs."""

    A = "A"
    AAAA = "AAAA"
    SRV = "SRV"
    URI = "URI"


@frozen
class FoundRecords:
    """An answer of DNS: the records, which may be none, and the TTL in seconds."""

    records: tuple[Record, ...]
    ttl: float


@frozen
class Response:
    """A response of a DNS server. `found` is None if the response is no answer; `rcode` is then the reason.

    `has_opt`: the server knows EDNS. After a truncated response the query is repeated over TCP.
    """

    found: FoundRecords | None
    rcode: str
    has_opt: bool
    is_truncated: bool


def build_query(name: dns.name.Name, record_type: RecordType, *, with_edns: bool) -> Query:
    """Build a query with a random id."""
    if with_edns:
        return dns.message.make_query(name, record_type.value, use_edns=0, payload=EDNS_PAYLOAD_BYTES)
    return dns.message.make_query(name, record_type.value, use_edns=False)


def read_response(query: Query, wire: bytes) -> Response | None:
    """Read a response from a datagram or a TCP message. Return None if it is no response to this query."""
    if len(wire) < _HEADER_BYTES or wire[:2] != struct.pack("!H", query.id):
        return None
    try:
        message = dns.message.from_wire(_bounded(wire), ignore_trailing=True)
        if not query.is_response(message):
            return None
        return Response(
            found=_found(message),
            rcode=dns.rcode.to_text(message.rcode()),
            has_opt=message.edns >= 0,
            is_truncated=bool(message.flags & dns.flags.TC),
        )
    except (dns.exception.DNSException, ValueError):
        return None


def _bounded(wire: bytes) -> bytes:
    """Lower the counts in the header, so that the parser reads no more records than the limits allow."""
    questions, answers, authorities, others = _COUNTS.unpack_from(wire, _COUNTS_AT)
    if questions > 1:
        raise ValueError("more than one question")
    # The sections follow each other, so no section can be read after a section that is cut short.
    if answers > MAX_RECORDS:
        counts = (questions, MAX_RECORDS, 0, 0)
    elif authorities > MAX_OTHER_RECORDS:
        counts = (questions, answers, MAX_OTHER_RECORDS, 0)
    else:
        counts = (questions, answers, authorities, min(others, MAX_OTHER_RECORDS))
    return wire[:_COUNTS_AT] + _COUNTS.pack(*counts) + wire[_HEADER_BYTES:]


def _found(message: dns.message.Message) -> FoundRecords | None:
    """Return the answer. A name without records is an answer; a loop of aliases is not."""
    if not isinstance(message, Query) or message.rcode() not in {dns.rcode.NOERROR, dns.rcode.NXDOMAIN}:
        return None
    try:
        chain = message.resolve_chaining()
    except dns.exception.DNSException:
        return None
    return FoundRecords(records=_records(chain.answer or ()), ttl=chain.minimum_ttl)


def _records(rrset: Iterable[dns.rdata.Rdata]) -> tuple[Record, ...]:
    return tuple(record for rdata in rrset if (record := _record(rdata)) is not None)


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
        case dns.rdtypes.ANY.URI.URI() if len(rdata.target) <= MAX_URI_BYTES:
            return UriRecord(priority=rdata.priority, weight=rdata.weight, target=_printable(rdata.target))
        case _:  # kkdcpd asks for no other type
            return None


def _printable(target: bytes) -> str:
    """Escape the bytes that no URI has. In a table or a log, they could control the terminal."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", target.decode("latin-1"))
