"""The names that are looked up for each service, and the proxies that their records name."""

import pytest

from kkdcpd.errors import NoKdcKnownError
from kkdcpd.locate.questions import Stage, kdc_stages, proxy_stages
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery, Route
from tests.locate.support import LocatorWithDns, realm

KPASSWD = KdcService.KPASSWD
NO_FLAGS = DcLocatorFlags(0)
HOST = "proxy.example.com"


def _query(service: KdcService, flags: DcLocatorFlags = NO_FLAGS) -> LocateQuery:
    return LocateQuery(target_domain="x", service=service, flags=flags)


def _names(stages: tuple[Stage, ...]) -> list[list[str]]:
    return [[question.name for question in stage] for stage in stages]


def test_names_of_kdcs_and_password_servers() -> None:
    kdcs = [["_kerberos.x"], ["_kerberos._tcp.x", "_kerberos._udp.x"]]
    assert _names(kdc_stages("x", _query(KdcService.KDC))) == kdcs
    assert _names(kdc_stages("x", _query(KdcService.KDC, DcLocatorFlags.PDC_REQUIRED))) == [
        ["_kerberos.x"],
        ["_kerberos-master._tcp.x", "_kerberos-master._udp.x"],
        *kdcs,
    ]
    assert _names(kdc_stages("x", _query(KPASSWD))) == [
        ["_kpasswd.x"],
        ["_kpasswd._tcp.x", "_kpasswd._udp.x"],
        ["_kerberos-adm._tcp.x"],
    ]


def test_names_of_proxies() -> None:
    proxies = [["_kerberos.x"], ["_kerberos._wss.x", "_kerberos._https.x", "_kerberos._kkdcp.x"]]
    assert _names(proxy_stages("x", _query(KdcService.KDC))) == proxies
    assert _names(proxy_stages("x", _query(KPASSWD))) == [["_kpasswd.x"], *proxies]


def _setup() -> LocatorWithDns:
    setup = LocatorWithDns(realm("EXAMPLE.COM", discovery="proxies"))
    setup.dns.put(HOST, "A", "192.0.2.1")
    setup.dns.put("b.example.com", "A", "192.0.2.2")
    return setup


def _urls(route: Route) -> list[str]:
    return [str(candidate.endpoint) for candidate in route.candidates]


async def test_uri_records_name_proxies_and_come_before_srv_records() -> None:
    async with _setup() as setup:
        setup.dns.put(
            "_kerberos.example.com",
            "URI",
            f"20 0 krb5srv:m:kkdcp:wss://{HOST}/KdcTunnel",
            "10 0 krb5srv:m:kkdcp:https://b.example.com/KdcProxy",
            "5 0 krb5srv:m:tcp:kdc1.example.com",
        )
        setup.dns.put("_kerberos._https.example.com", "SRV", f"0 0 443 {HOST}")
        route = await setup.locate()
        assert _urls(route) == [
            "https://b.example.com:443/KdcProxy",
            f"wss://{HOST}:443/KdcTunnel",
        ]
        assert [each.target for each in route.refused] == ["krb5srv:m:tcp:kdc1.example.com"]
        assert ("kdc1.example.com", "A") not in setup.dns.queries


async def test_websocket_of_a_proxy_comes_before_its_https_whatever_the_priorities_are() -> None:
    async with _setup() as setup:
        setup.dns.put("_kerberos._kkdcp.example.com", "SRV", f"0 0 443 {HOST}", "1 0 443 b.example.com")
        setup.dns.put("_kerberos._https.example.com", "SRV", f"7 0 443 {HOST}")
        setup.dns.put("_kerberos._wss.example.com", "SRV", f"9 0 443 {HOST}")
        assert _urls(await setup.locate()) == [
            f"wss://{HOST}:443/KdcTunnel",
            f"https://{HOST}:443/KdcProxy",
            "https://b.example.com:443/kkdcp",
        ]


async def test_proxy_takes_password_changes_unless_the_realm_names_others_or_none() -> None:
    async with _setup() as setup:
        setup.dns.put("_kerberos._kkdcp.example.com", "SRV", f"0 0 443 {HOST}")
        assert _urls(await setup.locate(service=KPASSWD)) == [f"https://{HOST}:443/kkdcp"]
    async with _setup() as setup:
        setup.dns.put("_kerberos._kkdcp.example.com", "SRV", f"0 0 443 {HOST}")
        setup.dns.put("_kpasswd.example.com", "URI", "0 0 krb5srv:m:kkdcp:https://b.example.com/x")
        assert _urls(await setup.locate(service=KPASSWD)) == ["https://b.example.com:443/x"]
    async with _setup() as setup:
        setup.dns.put("_kerberos._kkdcp.example.com", "SRV", f"0 0 443 {HOST}")
        setup.dns.put("_kpasswd.example.com", "URI", "0 0 krb5srv::kkdcp:.")
        with pytest.raises(NoKdcKnownError, match="no such service"):
            await setup.locate(service=KPASSWD)


async def test_realm_with_kdcs_alone_has_no_proxy_and_the_error_says_so() -> None:
    async with _setup() as setup:
        setup.dns.put("_kerberos.example.com", "URI", "0 0 krb5srv:m:tcp:kdc1.example.com")
        setup.dns.put("_kerberos._tcp.example.com", "SRV", "0 0 88 kdc1.example.com")
        with pytest.raises(NoKdcKnownError, match="the record names no KDC proxy"):
            await setup.locate()
        assert ("_kerberos._tcp.example.com", "SRV") not in setup.dns.queries
