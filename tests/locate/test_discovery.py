"""Which names are asked for, and which answers count."""

import pytest

from kkdcpd.errors import DnsFailedError, NoKdcKnownError
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.support import Bench, endpoints, realm

PDC = DcLocatorFlags.PDC_REQUIRED
KPASSWD = KdcService.KPASSWD


def _bench() -> Bench:
    bench = Bench(realm("EXAMPLE.COM"))
    for number in range(1, 5):
        bench.dns.put(f"k{number}", "A", f"192.0.2.{number}")
    return bench


async def test_all_names_are_asked_for_at_once() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        await bench.locate()
        names = {name for name, _ in bench.dns.asked}
        assert names == {
            "_kerberos.example.com",
            "_kerberos._tcp.example.com",
            "_kerberos._udp.example.com",
            "k1",
        }


async def test_udp_with_a_tcp_twin_is_a_fallback_and_without_is_not() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "5 0 88 k1")
        bench.dns.put("_kerberos._udp.example.com", "SRV", "5 0 88 k1", "6 0 88 k2")
        assert endpoints(await bench.locate()) == [
            "tcp://192.0.2.1:88",
            "udp://192.0.2.2:88",
            "udp://192.0.2.1:88*",
        ]


async def test_uri_wins_over_srv_unless_it_names_nobody_we_can_ask() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        bench.dns.put("_kerberos.example.com", "URI", "0 0 krb5srv::tcp:k2")
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.2:88"]
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        bench.dns.put("_kerberos.example.com", "URI", "0 0 krb5srv::kkdcp:https://p/")
        route = await bench.locate()
        assert endpoints(route) == ["tcp://192.0.2.1:88"]
        assert route.refused[0].source == "URI _kerberos.example.com"


async def test_a_primary_is_taken_where_there_is_one() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        assert endpoints(await bench.locate(flags=PDC)) == ["tcp://192.0.2.1:88"]
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        bench.dns.put("_kerberos-master._tcp.example.com", "SRV", "0 0 88 k3")
        assert endpoints(await bench.locate(flags=PDC)) == ["tcp://192.0.2.3:88"]
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.1:88"]
    async with _bench() as bench:
        bench.dns.put("_kerberos-master._tcp.example.com", "SRV", "0 0 0 .")
        bench.dns.put("_kerberos.example.com", "URI", "0 0 krb5srv::tcp:k1", "9 0 krb5srv:m:tcp:k2")
        assert endpoints(await bench.locate(flags=PDC)) == ["tcp://192.0.2.2:88"]
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.1:88", "tcp://192.0.2.2:88"]


async def test_a_declined_primary_leaves_the_others() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos-master._tcp.example.com", "SRV", "0 0 0 .")
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        assert endpoints(await bench.locate(flags=PDC)) == ["tcp://192.0.2.1:88"]


async def test_kpasswd_has_names_of_its_own() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos-adm._tcp.example.com", "SRV", "0 0 749 k4")
        assert endpoints(await bench.locate(service=KPASSWD)) == [
            "tcp://192.0.2.4:464",
            "udp://192.0.2.4:464*",
        ]
    async with _bench() as bench:
        bench.dns.put("_kerberos-adm._tcp.example.com", "SRV", "0 0 749 k4")
        bench.dns.put("_kpasswd._udp.example.com", "SRV", "0 0 464 k2")
        assert endpoints(await bench.locate(service=KPASSWD)) == ["udp://192.0.2.2:464"]
    async with _bench() as bench:
        bench.dns.put("_kpasswd._udp.example.com", "SRV", "0 0 464 k2")
        bench.dns.put("_kpasswd.example.com", "URI", "0 0 krb5srv::tcp:k1")
        assert endpoints(await bench.locate(service=KPASSWD)) == ["tcp://192.0.2.1:464"]


async def test_what_is_declined_is_not_looked_for_elsewhere() -> None:
    async with _bench() as bench:
        bench.dns.put("_kpasswd._tcp.example.com", "SRV", "0 0 0 .")
        bench.dns.put("_kerberos-adm._tcp.example.com", "SRV", "0 0 749 k4")
        bench.dns.broken = {RecordType.URI}
        with pytest.raises(NoKdcKnownError, match=r"SRV _kpasswd\._tcp\.\S+: \.: .* no such service"):
            await bench.locate(service=KPASSWD)


async def test_one_names_failure_does_not_lose_the_others() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        bench.dns.broken = {RecordType.URI}
        assert endpoints(await bench.locate()) == ["tcp://192.0.2.1:88"]


async def test_that_there_is_nobody_must_be_said_by_all_names() -> None:
    async with _bench() as bench:
        with pytest.raises(NoKdcKnownError, match=r"DNS names no server for kdc of example\.com"):
            await bench.locate()
    async with _bench() as bench:
        bench.dns.broken = {RecordType.URI}
        with pytest.raises(DnsFailedError):
            await bench.locate()


async def test_an_old_answer_that_there_is_nobody_is_no_answer() -> None:
    async with _bench() as bench:
        with pytest.raises(NoKdcKnownError):
            await bench.locate()
        bench.dns.is_down = True
        bench.clock.turn(60)
        with pytest.raises(DnsFailedError, match="what it said last"):
            await bench.locate()


async def test_each_candidates_ttl_is_its_own() -> None:
    async with _bench() as bench:
        bench.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", "0 0 88 k2", ttl=300)
        bench.dns.put("k2", "A", "192.0.2.2", ttl=40)
        assert [candidate.ttl for candidate in (await bench.locate()).candidates] == [300, 40]
