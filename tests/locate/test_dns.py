"""Look-ups over the wire, from a real server."""

import asyncio
import os
import sys
from collections.abc import Iterator

import pytest

from kkdcpd.config import Nameserver
from kkdcpd.errors import DnsFailedError
from kkdcpd.locate.dns import DnsClient, RecordType, system_nameservers
from kkdcpd.locate.records import SrvRecord, UriRecord
from lab.dns import KnotServer
from lab.program import run

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


async def test_records_come_as_values(client: DnsClient) -> None:
    srv = await client.query("_kerberos._tcp.KK.test", RecordType.SRV)
    assert srv.records == (SrvRecord(priority=10, weight=20, port=88, target="kdc1.kk.test"),)
    assert srv.ttl == 60
    (root,) = (await client.query("_kpasswd._tcp.kk.test.", RecordType.SRV)).records
    assert isinstance(root, SrvRecord)
    assert root.target == "."
    uri = await client.query("_kerberos.kk.test", RecordType.URI)
    assert uri.records == (UriRecord(priority=10, weight=1, target="krb5srv:m:tcp:kdc1.kk.test"),)
    odd = await client.query("odd.kk.test", RecordType.URI)
    assert odd.records == (UriRecord(priority=1, weight=2, target="\\xff\0"),)
    a = await client.query("kdc1.kk.test", RecordType.A)
    assert set(a.records) == {"192.0.2.1", "192.0.2.2"}
    assert (await client.query("kdc1.kk.test", RecordType.AAAA)).records == ("2001:db8::1",)


ASK_AND_LEAVE = """
import asyncio, socket, uvloop
from kkdcpd.config import Nameserver
from kkdcpd.locate.dns import DnsClient, RecordType

async def main():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        client = DnsClient([Nameserver(host="127.0.0.1", port=silent.getsockname()[1])], timeout=0.5)
        for turns in range(20):
            lookup = asyncio.get_running_loop().create_task(client.query("kk.test", RecordType.A))
            for _ in range(turns):
                await asyncio.sleep(0)
            lookup.cancel()
        await client.close()

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def test_who_leaves_in_the_middle_of_a_look_up_leaves_no_socket() -> None:
    """uvloop warns of a socket that is left and, if warnings are errors, hangs: hence another process."""
    program = (sys.executable, "-W", "error", "-c", ASK_AND_LEAVE)
    run(*program, environment=os.environ, timeout=20).expect_ok()


async def test_an_alias_holds_as_long_as_its_shortest_link(client: DnsClient) -> None:
    found = await client.query("alias.kk.test", RecordType.AAAA)
    assert (found.records, found.ttl) == (("2001:db8::1",), 30)


@pytest.mark.parametrize("name", ["nobody.kk.test", "kdc1.kk.test"])
async def test_that_there_is_nothing_holds_as_long_as_the_soa_says(client: DnsClient, name: str) -> None:
    found = await client.query(name, RecordType.SRV)
    assert (found.records, found.ttl) == ((), 45)


@pytest.mark.parametrize("name", ["a..b", f"{'x' * 64}.test", "x." * 200, "\\", "\udcff.test"])
async def test_a_name_that_cannot_be_has_no_records(client: DnsClient, knot: KnotServer, name: str) -> None:
    before = await asyncio.to_thread(knot.query_count)
    assert (await client.query(name, RecordType.A)).records == ()
    assert await asyncio.to_thread(knot.query_count) == before


async def test_refusal_and_silence_are_failures(client: DnsClient) -> None:
    with pytest.raises(DnsFailedError, match=r"A other\.test: 127\.0\.0\.1@\d+ REFUSED"):
        await client.query("other.test", RecordType.A)
    silent = DnsClient([Nameserver(host="127.0.0.1", port=9)], timeout=0.1)
    with pytest.raises(DnsFailedError, match=r"no answer within 0\.1 s"):
        await silent.query("kdc1.kk.test", RecordType.A)


async def test_who_answers_is_asked_first_next_time(knot: KnotServer) -> None:
    servers = [Nameserver(host="127.0.0.1", port=9), Nameserver(host=knot.address, port=knot.port)]
    client = DnsClient(servers, timeout=0.9)
    await client.query("kdc1.kk.test", RecordType.A)
    async with asyncio.timeout(0.25):
        await client.query("kdc1.kk.test", RecordType.AAAA)


def test_resolv_conf_names_servers() -> None:
    text = "# comment\nsearch example.com\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions edns0\n"
    assert system_nameservers(text) == (Nameserver(host="192.0.2.53"), Nameserver(host="2001:db8::53"))
    assert system_nameservers("") == (Nameserver(host="127.0.0.1"),)
