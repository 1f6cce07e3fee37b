"""The servers that SRV and URI records name."""

import pytest

from kkdcpd.endpoints import Transport
from kkdcpd.locate.records import (
    RecordTargets,
    SrvRecord,
    Target,
    UriRecord,
    demote_udp_duplicates,
    drop_repeated_servers,
    read_srv,
    read_uri,
)
from kkdcpd.values import KdcService

TCP, UDP = Transport.TCP, Transport.UDP


def _uri(target: str) -> UriRecord:
    return UriRecord(priority=3, weight=7, target=target)


def _only(target: str, service: KdcService = KdcService.KDC) -> Target:
    (found,) = read_uri([_uri(target)], name="_kerberos.x", service=service).targets
    return found


def test_srv_records_keep_priority_and_weight() -> None:
    records = [
        SrvRecord(priority=10, weight=30, port=88, target="a"),
        SrvRecord(priority=20, weight=70, port=89, target="b"),
    ]
    named = read_srv(records, name="_kerberos._tcp.x", transports=(TCP,))
    assert [(t.host, t.port, t.priority, t.weight, t.transport) for t in named.targets] == [
        ("a", 88, 10, 30, TCP),
        ("b", 89, 20, 70, TCP),
    ]
    assert {target.source for target in named.targets} == {"SRV _kerberos._tcp.x"}
    assert not named.is_declined


def test_port_of_another_services_records_is_replaced() -> None:
    record = SrvRecord(priority=0, weight=0, port=749, target="adm")
    named = read_srv([record], name="_kerberos-adm._tcp.x", transports=(TCP, UDP), port=464)
    assert [(t.port, t.transport, t.is_fallback) for t in named.targets] == [
        (464, TCP, False),
        (464, UDP, True),
    ]


def test_root_as_target_declines_the_service() -> None:
    root = SrvRecord(priority=0, weight=0, port=0, target=".")
    named = read_srv([root], name="_kpasswd._tcp.x", transports=(TCP,))
    assert named.is_declined
    assert named.refused[0].target == "."
    assert "no such service" in named.refused[0].reason
    both = read_srv(
        [root, SrvRecord(priority=0, weight=0, port=464, target="a")], name="x", transports=(TCP,)
    )
    assert not both.is_declined
    assert len(both.targets) == 1
    assert not read_srv([], name="x", transports=(TCP,)).is_declined


@pytest.mark.parametrize(
    ("text", "host", "port", "transport"),
    [
        ("krb5srv:m:tcp:kdc1.example.com", "kdc1.example.com", 88, TCP),
        ("krb5srv::udp:kdc1.example.com:1088", "kdc1.example.com", 1088, UDP),
        ("KRB5SRV:M:TCP:kdc1", "kdc1", 88, TCP),
        ("krb5srv::tcp:[2001:db8::1]:1088", "2001:db8::1", 1088, TCP),
        ("krb5srv::tcp:[2001:db8::1]", "2001:db8::1", 88, TCP),
        ("krb5srv::tcp:2001:db8::1", "2001:db8::1", 88, TCP),
        ("krb5srv::tcp:192.0.2.1:88", "192.0.2.1", 88, TCP),
        ("krb5srv:xyz:tcp:kdc1:", "kdc1", 88, TCP),
    ],
)
def test_krb5srv_uri_names_an_endpoint(text: str, host: str, port: int, transport: Transport) -> None:
    target = _only(text)
    assert (target.host, target.port, target.transport) == (host, port, transport)
    assert (target.priority, target.weight, target.source) == (3, 7, "URI _kerberos.x")


def test_default_port_depends_on_the_service() -> None:
    assert _only("krb5srv::tcp:a", KdcService.KPASSWD).port == 464


def test_flag_m_marks_a_primary() -> None:
    uris = map(_uri, ("krb5srv:m:tcp:a", "krb5srv::tcp:b", "krb5srv:xM:udp:c"))
    named = read_uri(uris, name="x", service=KdcService.KDC)
    assert [target.host for target in named.primary_targets] == ["a", "c"]
    assert [target.host for target in named.targets] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("krb5srv::kkdcp:https://proxy/KdcProxy", "only discovery of proxies uses it"),
        ("krb5srv::sctp:kdc1", "the transport is unknown"),
        ("krb5srv:m", "the transport is unknown"),
        ("krb5srv::tcp:", "the host is invalid"),
        ("krb5srv::tcp:kdc1:0", "the host is invalid"),
        ("krb5srv::tcp:kdc1:88:99", "the host is invalid"),
        ("krb5srv::tcp:kdc1:65536", "the host is invalid"),
        ("krb5srv::tcp:kdc1:٨٨", "the host is invalid"),
        (f"krb5srv::tcp:kdc1:{'8' * 4301}", "the host is invalid"),
        ("krb5srv::tcp:[kdc1]:88", "the host is invalid"),
        ("krb5srv::tcp:[2001:db8::1]88", "the host is invalid"),
        ("krb5srv::tcp:[2001:db8::1", "the host is invalid"),
        ("krb5srv::tcp:.", "no such service"),
    ],
)
def test_other_krb5srv_uris_are_refused_with_a_reason(text: str, reason: str) -> None:
    named = read_uri([_uri(text)], name="x", service=KdcService.KDC)
    assert named.targets == ()
    assert reason in named.refused[0].reason


def test_uris_of_other_schemes_are_ignored() -> None:
    named = read_uri(map(_uri, ("https://x/", "", "krb5srvx::tcp:a")), name="x", service=KdcService.KDC)
    assert not named.targets
    assert not named.refused


def test_udp_is_a_fallback_if_tcp_is_offered_at_the_same_host_and_port() -> None:
    texts = ("krb5srv::udp:A", "krb5srv::tcp:a", "krb5srv::udp:b", "krb5srv::udp:a:89")
    targets = demote_udp_duplicates(map(_only, texts))
    assert [(target.host, target.is_fallback) for target in targets] == [
        ("A", True),
        ("a", False),
        ("b", False),
        ("a", False),
    ]


PROXIES = (Transport.HTTPS, Transport.WSS)


def _proxies(*targets: str) -> RecordTargets:
    return read_uri(map(_uri, targets), name="_kpasswd.x", service=KdcService.KPASSWD, transports=PROXIES)


def test_uris_of_kdc_proxies_are_read_where_proxies_are_wanted() -> None:
    named = _proxies("krb5srv:m:kkdcp:https://a/KdcProxy", "krb5srv::kkdcp:wss://b:8443/KdcTunnel")
    assert [str(target) for target in named.targets] == [
        "https://a:443/KdcProxy",
        "wss://b:8443/KdcTunnel",
    ]
    assert [target.host for target in named.primary_targets] == ["a"]
    assert not named.refused


def test_server_with_several_names_is_used_once_with_the_path_of_the_first_name() -> None:
    record = SrvRecord(priority=0, weight=0, port=443, target="proxy.example.com")
    https, apple = (
        read_srv([record], name=name, transports=(Transport.HTTPS,), path=path).targets
        for name, path in (("_kerberos._https.x", "/KdcProxy"), ("_kerberos._kkdcp.x", "/kkdcp"))
    )
    assert list(drop_repeated_servers([*https, *apple])) == list(https)
    uris = _proxies("krb5srv:m:kkdcp:https://a/1", "krb5srv:m:kkdcp:https://a/2").targets
    assert list(drop_repeated_servers(uris)) == list(uris)


def test_servers_of_the_other_kind_are_refused_with_the_reason() -> None:
    named = _proxies("krb5srv:m:tcp:kdc1", "krb5srv::udp:kdc1")
    assert not named.targets
    assert {each.reason for each in named.refused} == {
        "the record names no KDC proxy; discovery of proxies does not use it"
    }
    assert _proxies("krb5srv::kkdcp:.").is_declined


def test_srv_records_of_proxies_have_the_path_of_their_name() -> None:
    record = SrvRecord(priority=0, weight=0, port=443, target="proxy.example.com")
    named = read_srv([record], name="_kerberos._kkdcp.x", transports=(Transport.HTTPS,), path="/kkdcp")
    assert [str(target) for target in named.targets] == ["https://proxy.example.com:443/kkdcp"]


def test_srv_record_of_a_proxy_with_an_invalid_host_name_is_refused() -> None:
    """The name goes into the TLS handshake and the HTTP request."""
    record = SrvRecord(priority=0, weight=0, port=443, target="a\\013\\010b.example.com")
    named = read_srv([record], name="_kerberos._kkdcp.x", transports=(Transport.HTTPS,), path="/kkdcp")
    assert not named.targets
    assert "the host is invalid" in named.refused[0].reason


def test_records_and_targets_are_printed_as_they_are_written() -> None:
    assert str(SrvRecord(priority=1, weight=2, port=88, target="a")) == "1 2 88 a"
    assert str(_uri("krb5srv::tcp:a")) == '3 7 "krb5srv::tcp:a"'
    assert str(_only("krb5srv::tcp:[::1]:88")) == "tcp://[::1]:88"
