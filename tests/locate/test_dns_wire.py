"""Queries and responses as bytes; the server may be hostile."""

import sys
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest

from kkdcpd.locate.dns_wire import (
    MAX_OTHER_RECORDS,
    MAX_RECORDS,
    Query,
    RecordType,
    build_query,
    read_response,
)
from kkdcpd.locate.records import SrvRecord

T = TypeVar("T")

NAME = "_kerberos.kk.test."
SOA = "ns. master. 1 3600 600 86400 45"


def _query(record_type: RecordType = RecordType.SRV) -> Query:
    return build_query(dns.name.from_text(NAME), record_type, with_edns=True)


def _response(query: Query, *texts: str, kind: str = "SRV") -> dns.message.Message:
    response = dns.message.make_response(query)
    if texts:
        response.answer.append(dns.rrset.from_text(NAME, 60, "IN", kind, *texts))
    return response


def _wire(response: dns.message.Message) -> bytes:
    return response.to_wire(max_size=65535)


def test_answer_has_records_and_a_ttl() -> None:
    query = _query()
    response = read_response(query, _wire(_response(query, "1 2 88 kdc1.kk.test.")))
    assert response
    assert response.found
    assert response.found.records == (SrvRecord(priority=1, weight=2, port=88, target="kdc1.kk.test"),)
    assert (response.found.ttl, response.rcode, response.has_opt) == (60, "NOERROR", True)


@pytest.mark.parametrize("rcode", ["NOERROR", "NXDOMAIN"])
def test_response_without_records_is_an_answer(rcode: str) -> None:
    query = _query()
    message = _response(query)
    message.set_rcode(dns.rcode.from_text(rcode))
    message.authority.append(dns.rrset.from_text("kk.test.", 3600, "IN", "SOA", SOA))
    response = read_response(query, _wire(message))
    assert response
    assert response.found
    assert (response.found.records, response.found.ttl) == ((), 45)


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "BADVERS"])
def test_error_is_no_answer(rcode: str) -> None:
    query = _query()
    message = _response(query)
    message.use_edns(True)
    message.set_rcode(dns.rcode.from_text(rcode))
    response = read_response(query, _wire(message))
    assert response
    assert (response.found, response.rcode, response.has_opt) == (None, rcode, True)


def test_loop_of_aliases_is_no_answer() -> None:
    query = _query()
    message = _response(query, NAME, kind="CNAME")
    response = read_response(query, _wire(message))
    assert response
    assert response.found is None


def test_response_to_another_query_is_ignored() -> None:
    query = _query()
    wire = _wire(_response(query, "1 2 88 kdc1.kk.test."))
    other_name = wire.replace(b"kk", b"xx")
    assert read_response(_query(), wire) is None
    assert read_response(_query(RecordType.URI), wire[:2] + wire[2:]) is None
    assert read_response(query, query.to_wire()) is None
    assert read_response(query, other_name) is None
    assert read_response(query, b"") is None
    assert read_response(query, wire[:30]) is None
    assert read_response(query, wire[:4] + b"\0\2" + wire[6:]) is None
    assert read_response(query, wire)


def test_uri_that_could_control_a_terminal_is_escaped() -> None:
    query = _query(RecordType.URI)
    wire = _wire(_response(query, '1 2 "krb5srv:m:tcp:\\027[2J\\127\\010a"', kind="URI"))
    response = read_response(query, wire)
    assert response
    assert response.found
    assert [str(record) for record in response.found.records] == ['1 2 "krb5srv:m:tcp:\\x1b[2J\\x7f\\x0aa"']


def test_number_of_records_read_of_an_answer_is_limited() -> None:
    query = _query(RecordType.URI)
    uris = [f'{number} 1 "krb5srv:m:tcp:k{number}"' for number in range(1800)]
    wire = _wire(_response(query, *uris, kind="URI"))
    assert len(wire) > 60_000
    response, calls = _counted(partial(read_response, query, wire))
    few = _wire(_response(query, *uris[:MAX_RECORDS], kind="URI"))
    assert calls < 1.1 * _counted(partial(read_response, query, few))[1]
    assert response
    assert response.found
    assert len(response.found.records) == MAX_RECORDS


@pytest.mark.parametrize("section", ["authority", "additional"])
def test_number_of_records_read_of_other_sections_is_limited(section: str) -> None:
    query = _query()
    calls = {}
    for count in (MAX_OTHER_RECORDS, 3000):
        message = _response(query)
        for number in range(count):
            text = f"192.0.2.{number % 256}"
            getattr(message, section).append(dns.rrset.from_text(f"n{number}.", 60, "IN", "A", text))
        wire = _wire(message)
        response, calls[count] = _counted(partial(read_response, query, wire))
        assert response
    assert calls[3000] < 1.1 * calls[MAX_OTHER_RECORDS]


def _counted(work: Callable[[], T]) -> tuple[T, int]:
    """Run the work, and count its calls of Python functions."""
    calls = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(note)
    try:
        result = work()
    finally:
        sys.setprofile(None)
    return result, calls


def test_uri_that_is_too_long_is_ignored() -> None:
    query = _query(RecordType.URI)
    wire = _wire(_response(query, '1 1 "krb5srv:m:tcp:k1"', kind="URI"))
    assert read_response(query, wire)
    message = dns.message.make_response(query)
    message.answer.append(dns.rrset.from_text(NAME, 60, "IN", "URI", f'1 1 "{"x" * 600}"'))
    response = read_response(query, _wire(message))
    assert response
    assert response.found
    assert response.found.records == ()


def test_truncated_response_is_marked() -> None:
    query = _query()
    message = _response(query)
    message.flags |= dns.flags.TC
    response = read_response(query, _wire(message))
    assert response
    assert response.is_truncated
