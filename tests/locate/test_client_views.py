"""The servers that each kind of client finds. tests/interop/test_discovery.py compares MIT's with kinit's."""

from collections.abc import Sequence

import pytest

from kkdcpd.locate.client_views import LocatingClient, View, view
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.records import Record
from kkdcpd.values import KdcService
from tests.locate.support import MemoryDns

MIT, APPLE, NET = LocatingClient.MIT, LocatingClient.APPLE, LocatingClient.KERBEROS_NET
KDC, KPASSWD = KdcService.KDC, KdcService.KPASSWD
REALM = "kk.test"
PROXY = "krb5srv:m:kkdcp:https://p/KdcProxy"


@pytest.fixture
def dns() -> MemoryDns:
    return MemoryDns()


async def _view(
    dns: MemoryDns, client: LocatingClient, service: KdcService = KDC, realm: str = REALM
) -> View:
    async def look_up(name: str, record_type: RecordType) -> Sequence[Record]:
        return (await dns.query(name, record_type)).records

    return await view(client, realm, service, look_up)


def _servers(found: View) -> list[str]:
    return [str(server) for server in found.servers]


def _names(found: View) -> list[str]:
    return [f"{step.record_type.value} {step.name}" for step in found.steps]


def _has_remark(found: View, text: str) -> bool:
    return any(text in remark for remark in found.remarks)


async def test_mit_uses_uri_records_and_looks_for_no_srv_record(dns: MemoryDns) -> None:
    dns.put("_kerberos.kk.test", "URI", f"20 0 {PROXY}", "10 0 krb5srv:m:udp:kdc1")
    dns.put("_kerberos._udp.kk.test", "SRV", "0 0 88 kdc2")
    found = await _view(dns, MIT)
    assert _names(found) == ["URI _kerberos.kk.test"]
    assert _servers(found) == ["udp://kdc1:88", "https://p:443/KdcProxy"]


async def test_mit_tries_a_tcp_record_after_the_proxies_and_the_remark_has_the_remedy(dns: MemoryDns) -> None:
    dns.put("_kerberos.kk.test", "URI", f"20 0 {PROXY}", "10 0 krb5srv:m:tcp:kdc1")
    found = await _view(dns, MIT)
    assert _servers(found) == ["https://p:443/KdcProxy", "tcp://kdc1:88"]
    assert _has_remark(found, "Add a udp record of the same KDC")
    assert _has_remark(found, "more than 1465 bytes the order is: tcp://kdc1:88, https://p:443/KdcProxy.")
    dns.put("_kerberos.kk.test", "URI", f"10 0 {PROXY}", "20 0 krb5srv:m:tcp:kdc1")
    assert not _has_remark(await _view(dns, MIT), "Add a udp record")


async def test_mit_finds_no_server_after_a_big_reply_if_tcp_records_are_missing(dns: MemoryDns) -> None:
    dns.put("_kerberos.kk.test", "URI", f"20 0 {PROXY}", "10 0 krb5srv:m:udp:kdc1")
    assert _has_remark(await _view(dns, MIT), "too big for UDP")
    dns.put("_kerberos.kk.test", "URI", f"20 0 {PROXY}", "10 0 krb5srv:m:udp:a", "10 0 krb5srv:m:tcp:a")
    assert not _has_remark(await _view(dns, MIT), "too big for UDP")


async def test_mit_tries_again_after_a_failed_login_if_the_flag_m_is_missing(dns: MemoryDns) -> None:
    dns.put("_kerberos.kk.test", "URI", f"10 0 {PROXY}", "20 0 krb5srv::kkdcp:https://q/KdcProxy")
    found = await _view(dns, MIT)
    assert _has_remark(found, "it is missing at: https://q:443/KdcProxy")
    dns.put("_kerberos.kk.test", "URI", f"10 0 {PROXY}")
    assert not _has_remark(await _view(dns, MIT), "flag m")


async def test_mit_falls_back_to_srv_records_if_no_uri_record_is_usable(dns: MemoryDns) -> None:
    dns.put(
        "_kerberos.kk.test", "URI", "10 0 krb5srv:m:kkdcp:wss://p/KdcTunnel", "10 0 krb5srv:m:x:y", "0 0 a:b"
    )
    dns.put("_kerberos._tcp.kk.test", "SRV", "0 0 88 kdc1")
    dns.put("_kerberos._udp.kk.test", "SRV", "9 0 88 kdc1")
    found = await _view(dns, MIT)
    assert _names(found) == [
        "URI _kerberos.kk.test",
        "SRV _kerberos._udp.kk.test",
        "SRV _kerberos._tcp.kk.test",
    ]
    assert [use for _, use in found.steps[0].uses] == [
        "skipped: the client knows no WebSocket",
        "skipped: the transport is unknown; known are udp, tcp and kkdcp",
        "skipped: the URI belongs to another service",
    ]
    assert _servers(found) == ["udp://kdc1:88", "tcp://kdc1:88"]


async def test_mit_changes_passwords_without_udp_first(dns: MemoryDns) -> None:
    dns.put("_kpasswd.kk.test", "URI", "10 0 krb5srv:m:udp:a", f"20 0 {PROXY}", "30 0 krb5srv:m:tcp:b")
    found = await _view(dns, MIT, KPASSWD)
    assert _servers(found) == ["https://p:443/KdcProxy", "tcp://b:464", "udp://a:464"]


async def test_mit_ignores_proxies_of_the_admin_server_for_password_changes(dns: MemoryDns) -> None:
    dns.put("_kerberos-adm.kk.test", "URI", f"10 0 {PROXY}")
    dns.put("_kerberos-adm._tcp.kk.test", "SRV", "0 0 749 adm")
    found = await _view(dns, MIT, KPASSWD)
    assert _names(found) == [
        "URI _kpasswd.kk.test",
        "SRV _kpasswd._udp.kk.test",
        "SRV _kpasswd._tcp.kk.test",
        "URI _kerberos-adm.kk.test",
        "SRV _kerberos-adm._tcp.kk.test",
    ]
    assert (
        found.steps[3].uses[0][1] == "skipped: here the client uses tcp records only; publish it as _kpasswd"
    )
    assert _servers(found) == ["tcp://adm:464"]
    dns.put("_kerberos-adm.kk.test", "URI", "10 0 krb5srv:m:tcp:adm2:749")
    assert _servers(await _view(dns, MIT, KPASSWD)) == ["tcp://adm2:464"]


async def test_mit_looks_no_further_if_the_domain_declines_the_service(dns: MemoryDns) -> None:
    dns.put("_kpasswd._udp.kk.test", "SRV", "0 0 0 .")
    dns.put("_kpasswd._tcp.kk.test", "SRV", "0 0 464 a")
    found = await _view(dns, MIT, KPASSWD)
    assert _names(found) == ["URI _kpasswd.kk.test", "SRV _kpasswd._udp.kk.test"]
    assert _servers(found) == []


async def test_failure_of_dns_is_shown_and_the_search_goes_on(dns: MemoryDns) -> None:
    dns.broken = {RecordType.URI}
    dns.put("_kerberos._tcp.kk.test", "SRV", "0 0 88 kdc1")
    found = await _view(dns, MIT)
    assert "URI _kerberos.kk.test: down" in found.steps[0].failure
    assert _servers(found) == ["tcp://kdc1:88"]


async def test_apple_tries_kdcs_before_proxies_and_uses_its_own_path(dns: MemoryDns) -> None:
    dns.put("_kerberos._kkdcp.kk.test", "SRV", "0 0 8443 p")
    found = await _view(dns, APPLE)
    assert _names(found) == [f"SRV _kerberos._{label}.kk.test" for label in ("udp", "tcp", "kkdcp")]
    assert _servers(found) == ["https://p:8443/kkdcp"]
    assert not _has_remark(found, "before the proxies")
    dns.put("_kerberos._tcp.kk.test", "SRV", "0 0 88 kdc1")
    found = await _view(dns, APPLE)
    assert _servers(found) == ["tcp://kdc1:88", "https://p:8443/kkdcp"]
    assert _has_remark(found, "tries the KDCs before the proxies")


async def test_apple_finds_no_proxy_for_password_changes_and_nothing_without_a_dot(dns: MemoryDns) -> None:
    dns.put("_kerberos._kkdcp.kk.test", "SRV", "0 0 443 p")
    dns.put("_kerberos-adm._tcp.kk.test", "SRV", "0 0 749 adm")
    found = await _view(dns, APPLE, KPASSWD)
    assert _servers(found) == ["tcp://adm:464"]
    assert _has_remark(found, "no proxy for password changes")
    assert (await _view(dns, APPLE, realm="KK")).steps == ()


async def test_kerberos_net_uses_its_srv_name_and_path(dns: MemoryDns) -> None:
    dns.put("_kerberos._https.kk.test", "SRV", "0 0 8443 p")
    found = await _view(dns, NET)
    assert _names(found) == ["SRV _kerberos._tcp.kk.test", "SRV _kerberos._https.kk.test"]
    assert _servers(found) == ["https://p:8443/KdcProxy"]
    assert _has_remark(found, "its proxy is https://kk.test/KdcProxy")
    assert _has_remark(await _view(dns, NET, KPASSWD), "through no proxy")
