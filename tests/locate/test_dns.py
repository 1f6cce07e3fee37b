"""Look-ups over the network at a real DNS server."""

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any, cast

import dns.message
import dns.rrset
import pytest

from kkdcpd.config import Nameserver
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns import (
    MAX_QUERIES_IN_FLIGHT,
    MAX_WILDCARD_QUERIES,
    WILDCARD_QUERY_SHARE,
    DnsClient,
    Requester,
    requester,
)
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.records import SrvRecord, UriRecord
from lab.dns import KnotServer
from lab.program import run
from tests.support.waiting import eventually

ZONE = """
    _kerberos._tcp 60 SRV 10 20 88 KDC1
    _kpasswd._tcp 60 SRV 0 0 0 .
    _kerberos 60 URI 10 1 "krb5srv:m:tcp:kdc1.kk.test"
    odd 60 URI 1 2 "\\255\\000"
    kdc1 60 A 192.0.2.1
    kdc1 60 A 192.0.2.2
    kdc1 60 AAAA 2001:db8::1
    alias 30 CNAME kdc1
    loop 60 CNAME pool
    pool 60 CNAME loop
"""


@pytest.fixture(scope="module")
def knot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KnotServer]:
    with KnotServer(tmp_path_factory.mktemp("knot"), {"kk.test": ZONE}, negative_ttl=45) as server:
        yield server


@pytest.fixture
def client(knot: KnotServer) -> DnsClient:
    return DnsClient([Nameserver(host=knot.address, port=knot.port)], timeout=5.0)


async def test_records_are_returned_as_values(client: DnsClient) -> None:
    srv = await client.query("_kerberos._tcp.KK.test", RecordType.SRV)
    assert srv.records == (SrvRecord(priority=10, weight=20, port=88, target="kdc1.kk.test"),)
    assert srv.ttl == 60
    (root,) = (await client.query("_kpasswd._tcp.kk.test.", RecordType.SRV)).records
    assert isinstance(root, SrvRecord)
    assert root.target == "."
    uri = await client.query("_kerberos.kk.test", RecordType.URI)
    assert uri.records == (UriRecord(priority=10, weight=1, target="krb5srv:m:tcp:kdc1.kk.test"),)
    odd = await client.query("odd.kk.test", RecordType.URI)
    assert odd.records == (UriRecord(priority=1, weight=2, target=r"\xff\x00"),)
    a = await client.query("kdc1.kk.test", RecordType.A)
    assert set(a.records) == {"192.0.2.1", "192.0.2.2"}
    assert (await client.query("kdc1.kk.test", RecordType.AAAA)).records == ("2001:db8::1",)


CANCELLED_LOOK_UP = """
import asyncio, socket, uvloop
from kkdcpd.config import Nameserver
from kkdcpd.locate.dns import DnsClient
from kkdcpd.locate.dns_wire import RecordType

async def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        client = DnsClient([Nameserver(host="127.0.0.1", port=silent.getsockname()[1])], timeout=0.5)
        for turns in range(20):
            lookup = asyncio.get_running_loop().create_task(client.query("kk.test", RecordType.A))
            for _ in range(turns):
                await asyncio.sleep(0)
            lookup.cancel()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def test_cancelled_look_up_leaves_no_socket() -> None:
    """Run in another process: uvloop warns of an open socket and, if warnings are errors, hangs."""
    program = (sys.executable, "-W", "error", "-c", CANCELLED_LOOK_UP)
    run(*program, environment=os.environ, timeout=20).expect_ok()


async def test_ttl_of_an_alias_is_the_shortest_of_the_chain(client: DnsClient) -> None:
    found = await client.query("alias.kk.test", RecordType.AAAA)
    assert (found.records, found.ttl) == (("2001:db8::1",), 30)


@pytest.mark.parametrize("name", ["unknown.kk.test", "kdc1.kk.test"])
async def test_ttl_of_a_negative_answer_comes_from_the_soa(client: DnsClient, name: str) -> None:
    found = await client.query(name, RecordType.SRV)
    assert (found.records, found.ttl) == ((), 45)


@pytest.mark.parametrize("name", ["a..b", f"{'x' * 64}.test", "x." * 200, "\\", "\udcff.test"])
async def test_invalid_name_has_no_records(client: DnsClient, knot: KnotServer, name: str) -> None:
    before = await asyncio.to_thread(knot.query_count)
    assert (await client.query(name, RecordType.A)).records == ()
    assert await asyncio.to_thread(knot.query_count) == before


async def test_refused_query_and_unanswered_query_are_failures(client: DnsClient) -> None:
    with pytest.raises(DnsFailedError, match=r"A other\.test: 127\.0\.0\.1@\d+ REFUSED"):
        await client.query("other.test", RecordType.A)
    silent = DnsClient([Nameserver(host="127.0.0.1", port=9)], timeout=0.1)
    with pytest.raises(DnsFailedError, match=r"no answer within 0\.1 s"):
        await silent.query("kdc1.kk.test", RecordType.A)


async def test_server_that_answered_is_asked_first_next_time(knot: KnotServer) -> None:
    servers = [Nameserver(host="127.0.0.1", port=9), Nameserver(host=knot.address, port=knot.port)]
    client = DnsClient(servers, timeout=0.9)
    await client.query("kdc1.kk.test", RecordType.A)
    async with asyncio.timeout(0.25):
        await client.query("kdc1.kk.test", RecordType.AAAA)


class _Slow(asyncio.DatagramProtocol):
    """A DNS server that answers for one host only, and counts the queries for other hosts."""

    def __init__(self) -> None:
        self.unanswered: set[str] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = dns.message.from_wire(data)
        name = str(query.question[0].name)
        if name != "kdc1.kk.test.":
            self.unanswered.add(name)
            return
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.1"))
        self._transport.sendto(response.to_wire(), address)


async def _try(client: DnsClient, name: str) -> None:
    requester.set(Requester(name=name.partition(".")[2], is_wildcard=True))
    with pytest.raises(DnsFailedError):
        await client.query(name, RecordType.A)


async def test_queries_under_wildcards_have_their_own_slots_with_a_share_for_each_branch() -> None:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(_Slow, local_addr=("127.0.0.1", 0))
    client = DnsClient(
        [Nameserver(host="127.0.0.1", port=transport.get_extra_info("sockname")[1])], timeout=1
    )
    async with asyncio.TaskGroup() as tasks:
        for number in range(2 * MAX_QUERIES_IN_FLIGHT):
            tasks.create_task(_try(client, f"made-up-{number}.evil.kk.test"))
        await eventually(lambda: _has_asked(server, WILDCARD_QUERY_SHARE))
        assert (await client.query("kdc1.kk.test", RecordType.A)).records == ("192.0.2.1",)
        assert len(server.unanswered) == WILDCARD_QUERY_SHARE
        for number in range(2 * MAX_QUERIES_IN_FLIGHT):
            tasks.create_task(_try(client, f"made-up.branch-{number}.kk.test"))
        await eventually(lambda: _has_asked(server, MAX_WILDCARD_QUERIES))
        assert (await client.query("kdc1.kk.test", RecordType.A)).records == ("192.0.2.1",)
        assert len(server.unanswered) == MAX_WILDCARD_QUERIES
    transport.close()


async def _has_asked(server: _Slow, count: int) -> bool:
    return len(server.unanswered) >= count
