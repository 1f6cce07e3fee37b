"""The names that are looked up, and the answers that are used."""

import pytest

from kkdcpd.errors import DnsFailedError, NoKdcKnownError
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.values import DcLocatorFlags, KdcService
from tests.locate.support import LocatorWithDns, endpoints, realm

PDC = DcLocatorFlags.PDC_REQUIRED
KPASSWD = KdcService.KPASSWD


def _bench() -> LocatorWithDns:
    setup = LocatorWithDns(realm("EXAMPLE.COM"))
    for number in range(1, 5):
        setup.dns.put(f"k{number}", "A", f"192.0.2.{number}")
    return setup


async def test_all_names_are_looked_up_at_the_same_time() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        await setup.locate()
        names = {name for name, _ in setup.dns.queries}
        assert names == {
            "_kerberos.example.com",
            "_kerberos._tcp.example.com",
            "_kerberos._udp.example.com",
            "k1",
        }


async def test_udp_is_a_fallback_only_if_tcp_is_offered() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "5 0 88 k1")
        setup.dns.put("_kerberos._udp.example.com", "SRV", "5 0 88 k1", "6 0 88 k2")
        assert endpoints(await setup.locate()) == [
            "tcp://192.0.2.1:88",
            "udp://192.0.2.2:88",
            "udp://192.0.2.1:88*",
        ]


async def test_uri_records_take_precedence_unless_they_name_no_usable_server() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        setup.dns.put("_kerberos.example.com", "URI", "0 0 krb5srv::tcp:k2")
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.2:88"]
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        setup.dns.put("_kerberos.example.com", "URI", "0 0 krb5srv::kkdcp:https://p/")
        route = await setup.locate()
        assert endpoints(route) == ["tcp://192.0.2.1:88"]
        assert route.refused[0].source == "URI _kerberos.example.com"


async def test_primary_is_used_if_there_is_one() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        assert endpoints(await setup.locate(flags=PDC)) == ["tcp://192.0.2.1:88"]
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        setup.dns.put("_kerberos-master._tcp.example.com", "SRV", "0 0 88 k3")
        assert endpoints(await setup.locate(flags=PDC)) == ["tcp://192.0.2.3:88"]
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.1:88"]
    async with _bench() as setup:
        setup.dns.put("_kerberos-master._tcp.example.com", "SRV", "0 0 0 .")
        setup.dns.put("_kerberos.example.com", "URI", "0 0 krb5srv::tcp:k1", "9 0 krb5srv:m:tcp:k2")
        assert endpoints(await setup.locate(flags=PDC)) == ["tcp://192.0.2.2:88"]
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.1:88", "tcp://192.0.2.2:88"]


async def test_declined_primary_leaves_the_other_kdcs() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos-master._tcp.example.com", "SRV", "0 0 0 .")
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        assert endpoints(await setup.locate(flags=PDC)) == ["tcp://192.0.2.1:88"]


async def test_kpasswd_has_its_own_names() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos-adm._tcp.example.com", "SRV", "0 0 749 k4")
        assert endpoints(await setup.locate(service=KPASSWD)) == [
            "tcp://192.0.2.4:464",
            "udp://192.0.2.4:464*",
        ]
    async with _bench() as setup:
        setup.dns.put("_kerberos-adm._tcp.example.com", "SRV", "0 0 749 k4")
        setup.dns.put("_kpasswd._udp.example.com", "SRV", "0 0 464 k2")
        assert endpoints(await setup.locate(service=KPASSWD)) == ["udp://192.0.2.2:464"]
    async with _bench() as setup:
        setup.dns.put("_kpasswd._udp.example.com", "SRV", "0 0 464 k2")
        setup.dns.put("_kpasswd.example.com", "URI", "0 0 krb5srv::tcp:k1")
        assert endpoints(await setup.locate(service=KPASSWD)) == ["tcp://192.0.2.1:464"]


async def test_declined_service_is_not_looked_up_elsewhere() -> None:
    async with _bench() as setup:
        setup.dns.put("_kpasswd._tcp.example.com", "SRV", "0 0 0 .")
        setup.dns.put("_kerberos-adm._tcp.example.com", "SRV", "0 0 749 k4")
        setup.dns.broken = {RecordType.URI}
        with pytest.raises(NoKdcKnownError, match=r"SRV _kpasswd\._tcp\.\S+: \.: .* no such service"):
            await setup.locate(service=KPASSWD)


async def test_failure_for_one_name_keeps_the_servers_of_the_others() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1")
        setup.dns.broken = {RecordType.URI}
        assert endpoints(await setup.locate()) == ["tcp://192.0.2.1:88"]


async def test_realm_has_no_servers_only_if_all_names_are_answered() -> None:
    async with _bench() as setup:
        with pytest.raises(NoKdcKnownError, match=r"DNS names no server for kdc of example\.com"):
            await setup.locate()
    async with _bench() as setup:
        setup.dns.broken = {RecordType.URI}
        with pytest.raises(DnsFailedError):
            await setup.locate()


async def test_expired_negative_answer_is_a_failure() -> None:
    async with _bench() as setup:
        with pytest.raises(NoKdcKnownError):
            await setup.locate()
        setup.dns.is_down = True
        setup.clock.advance(60)
        with pytest.raises(DnsFailedError, match="its last answer had no servers"):
            await setup.locate()


async def test_each_candidate_has_its_own_ttl() -> None:
    async with _bench() as setup:
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 k1", "0 0 88 k2", ttl=300)
        setup.dns.put("k2", "A", "192.0.2.2", ttl=40)
        assert [candidate.ttl for candidate in (await setup.locate()).candidates] == [300, 40]
