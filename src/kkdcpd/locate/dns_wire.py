"""Builds DNS queries and reads responses: bytes in, values out. Pure.

A response may come from a server that an attacker controls. It costs no more than MAX_RECORDS records do,
however many it holds.
"""

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
"""What passes any path unfragmented (DNS flag day 2020); longer answers come over TCP (RFC 7766)."""

MAX_RECORDS = 256
"""Records of one answer that are read. No client ever tries as many servers."""

MAX_OTHER_RECORDS = 16
"""Records of each other section that are read. They hold the SOA (RFC 2308) and OPT (RFC 6891)."""

MAX_URI_BYTES = 512
"""A longer URI is ignored: a host's name has at most 253 bytes."""

_COUNTS = struct.Struct("!HHHH")
_COUNTS_AT = 4
_HEADER_BYTES = 12

Query = dns.message.QueryMessage


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


@frozen
class Response:
    """What a server says: `found` where it gives an answer, else why it gives none, such as SERVFAIL.

    `has_opt` tells whether it took notice of EDNS. After a truncated response the query goes over TCP.
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
    """Read a datagram or a message of a stream; None if it is no response to this query."""
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
    """Lower the header's counts, so that no more records are read than are wanted."""
    questions, answers, authorities, others = _COUNTS.unpack_from(wire, _COUNTS_AT)
    if questions > 1:
        raise ValueError("more than one question")
    # The sections stand one after the other: none is read after one that is cut short.
    if answers > MAX_RECORDS:
        counts = (questions, MAX_RECORDS, 0, 0)
    elif authorities > MAX_OTHER_RECORDS:
        counts = (questions, answers, MAX_OTHER_RECORDS, 0)
    else:
        counts = (questions, answers, authorities, min(others, MAX_OTHER_RECORDS))
    return wire[:_COUNTS_AT] + _COUNTS.pack(*counts) + wire[_HEADER_BYTES:]


def _found(message: dns.message.Message) -> FoundRecords | None:
    """Return the records; a name without any is an answer, a loop of aliases is none."""
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
            target = rdata.target.decode("ascii", "backslashreplace")
            return UriRecord(priority=rdata.priority, weight=rdata.weight, target=target)
        case _:  # no other type is asked for
            return None
