from pathlib import Path

import pytest

from kkdcpd.config.addresses import (
    EndpointSpec,
    ListenAddress,
    Nameserver,
    is_domain_name,
    parse_endpoint,
    parse_listen_address,
    parse_nameserver,
    parse_network,
    parse_server_name,
    parse_source_address,
    parse_trusted_network,
)
from kkdcpd.endpoints import Transport
from kkdcpd.errors import SettingError
from kkdcpd.values import KdcService

BOTH = (Transport.TCP, Transport.UDP)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:443", ListenAddress(host="192.0.2.1", port=443)),
        ("[2001:DB8:0::1]:443", ListenAddress(host="2001:db8::1", port=443)),
        ("*:443", ListenAddress(host="*", port=443)),
        ("127.0.0.1:0", ListenAddress(host="127.0.0.1", port=0)),
        ("[::ffff:127.0.0.1]:443", ListenAddress(host="127.0.0.1", port=443)),
        ("[fe80::1%eth0]:443", ListenAddress(host="fe80::1%eth0", port=443)),
        ("unix:/run/kkdcpd/http.sock", ListenAddress(unix_path=Path("/run/kkdcpd/http.sock"))),
    ],
)
def test_listen_address_is_read(text: str, expected: ListenAddress) -> None:
    assert parse_listen_address(text) == expected


@pytest.mark.parametrize(
    "text", ["192.0.2.1:443", "[2001:db8::1]:443", "*:443", "unix:/run/kkdcpd/http.sock"]
)
def test_text_of_a_listen_address_is_read_as_the_same_address(text: str) -> None:
    assert str(parse_listen_address(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("*", "has no port"),
        ("", "has no port"),
        (":443", "does not begin with an IP address"),
        ("[::1]", "has no port"),
        ("[fe80::1]:443", "is a link-local address, which needs the name of a network interface"),
        ("kdc.example.com:443", "does not begin with an IP address"),
        ("::1:443", "has an IPv6 address that is not in brackets"),
        ("[192.0.2.1]:443", "has brackets round a text that is no IPv6 address"),
        ("[]:443", "has brackets round a text that is no IPv6 address"),
        ("*:65536", "has a port that is no number from 0 to 65535"),
        ("*:", "has a port that is no number from 0 to 65535"),
        ("*:-1", "has a port that is no number from 0 to 65535"),
        ("*:٤٤٣", "has a port that is no number from 0 to 65535"),
        (f"*:{'4' * 4301}", "has a port that is no number from 0 to 65535"),
        ("unix:http.sock", "has no absolute path"),
        ("unix:/" + 107 * "x", "has a path of more than 107 bytes, which no socket can have"),
    ],
)
def test_bad_listen_address_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_listen_address(text)
    assert caught.value.problem == problem


def test_longest_unix_path_is_valid() -> None:
    assert parse_listen_address("unix:/" + 106 * "x").unix_path == Path("/" + 106 * "x")


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("127.0.0.1:80", True),
        ("127.1.2.3:80", True),
        ("[::1]:80", True),
        ("unix:/run/http.sock", True),
        ("*:80", False),
        ("0.0.0.0:80", False),
        ("192.0.2.1:80", False),
        ("[::]:80", False),
    ],
)
def test_only_loopback_and_unix_sockets_are_local(text: str, *, is_local: bool) -> None:
    assert parse_listen_address(text).is_local is is_local


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("*:443", "*:443", True),
        ("*:443", "192.0.2.1:443", True),
        ("0.0.0.0:443", "192.0.2.1:443", True),
        ("[::]:443", "[::1]:443", True),
        ("[::0:1]:443", "[::1]:443", True),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1:443", True),
        ("[fe80::1%eth0]:443", "[fe80::1%eth0]:443", True),
        ("[fe80::1%eth0]:443", "[::]:443", True),
        ("[fe80::1%eth0]:443", "[fe80::1%eth1]:443", False),
        ("unix:/a", "unix:/a", True),
        ("*:443", "*:444", False),
        ("*:0", "*:0", False),
        ("0.0.0.0:443", "[::]:443", False),
        ("127.0.0.1:443", "127.0.0.2:443", False),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "*:443", False),
    ],
)
def test_addresses_overlap_if_only_one_can_be_bound(one: str, other: str, *, overlap: bool) -> None:
    first, second = parse_listen_address(one), parse_listen_address(other)
    assert (first.overlaps(second), second.overlaps(first)) == (overlap, overlap)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kdc1.example.com", EndpointSpec(host="kdc1.example.com", port=88, transports=BOTH)),
        ("kdc1.example.com.", EndpointSpec(host="kdc1.example.com.", port=88, transports=BOTH)),
        ("dc_1.ad.test:1088", EndpointSpec(host="dc_1.ad.test", port=1088, transports=BOTH)),
        ("tcp://kdc1", EndpointSpec(host="kdc1", port=88, transports=(Transport.TCP,))),
        ("UDP://kdc1:99", EndpointSpec(host="kdc1", port=99, transports=(Transport.UDP,))),
        ("192.0.2.1", EndpointSpec(host="192.0.2.1", port=88, transports=BOTH)),
        ("[2001:db8::1]", EndpointSpec(host="2001:db8::1", port=88, transports=BOTH)),
        ("[::ffff:192.0.2.1]", EndpointSpec(host="192.0.2.1", port=88, transports=BOTH)),
        ("[fe80::77%eth0]", EndpointSpec(host="fe80::77%eth0", port=88, transports=BOTH)),
        ("[FE80::77%2]:99", EndpointSpec(host="fe80::77%2", port=99, transports=BOTH)),
        ("udp://[2001:db8::1]:99", EndpointSpec(host="2001:db8::1", port=99, transports=(Transport.UDP,))),
    ],
)
def test_endpoint_is_read(text: str, expected: EndpointSpec) -> None:
    assert parse_endpoint(text, service=KdcService.KDC) == expected


def test_kpasswd_has_its_own_default_port() -> None:
    assert parse_endpoint("kdc1.example.com", service=KdcService.KPASSWD).port == 464


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no valid host name"),
        ("tcp://", "has no valid host name"),
        ("*", "has no valid host name"),
        ("kdc1.example.com/KdcProxy", "has a path, which no KDC has"),
        ("kdc1.example.com, kdc2.example.com", "has no valid host name"),
        ("-kdc.example.com", "has no valid host name"),
        ("kdc..example.com", "has no valid host name"),
        (64 * "x" + ".example.com", "has no valid host name"),
        (".".join(127 * ["xy"]), "has no valid host name"),
        ("kdc1.example.com:0", "has a port that is no number from 1 to 65535"),
        ("kdc1.example.com:kerberos", "has a port that is no number from 1 to 65535"),
        ("192.0.2.300", "has no valid IP address"),
        ("[2001:db8::x]:88", "has brackets round a text that is no IPv6 address"),
        ("[fe80::77]", "is a link-local address, which needs the name of a network interface"),
        ("[2001:db8::1%eth0]", "has a zone, which only link-local addresses have"),
        ("[fe80::77%eth 0]", "has a zone that is no name of a network interface"),
        ("[fe80::77%a-name-too-long1]", "has a zone that is no name of a network interface"),
        ("2001:db8::1::88", "has an IPv6 address that is not in brackets"),
        ("2001:db8::1", "has an IPv6 address that is not in brackets"),
        ("2001:db8::1:88", "has an IPv6 address that is not in brackets"),
        ("http://kdc1.example.com", "begins with http://, which is no transport"),
        ("://kdc1.example.com", "begins with ://, which is no transport"),
        ("kdc.bücher.example", "has a name that is not ASCII"),
    ],
)
def test_bad_endpoint_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_endpoint(text, service=KdcService.KDC)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("kdc1", "KDC1:88", True),
        ("kdc1", "udp://kdc1", True),
        ("192.0.2.1", "[::ffff:c000:201]", True),
        ("tcp://kdc1", "udp://kdc1", False),
        ("kdc1", "kdc1:89", False),
        ("kdc1", "kdc2", False),
    ],
)
def test_endpoints_overlap_if_host_port_and_a_transport_are_the_same(
    one: str, other: str, *, overlap: bool
) -> None:
    first, second = (parse_endpoint(text, service=KdcService.KDC) for text in (one, other))
    assert first.overlaps(second) is overlap


def test_server_name_is_folded() -> None:
    assert parse_server_name("*.Example.COM") == "*.example.com"


@pytest.mark.parametrize("text", ["*", "a.*.example.com", "*example.com", "192.0.2.1", ""])
def test_bad_server_name_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        parse_server_name(text)


@pytest.mark.parametrize(
    ("text", "expected", "written"),
    [
        ("192.0.2.53", Nameserver(host="192.0.2.53", port=53), "192.0.2.53:53"),
        ("192.0.2.53:5353", Nameserver(host="192.0.2.53", port=5353), "192.0.2.53:5353"),
        ("2001:DB8::53", Nameserver(host="2001:db8::53", port=53), "[2001:db8::53]:53"),
        ("[2001:db8::53]:5353", Nameserver(host="2001:db8::53", port=5353), "[2001:db8::53]:5353"),
    ],
)
def test_nameserver_is_read(text: str, expected: Nameserver, written: str) -> None:
    assert parse_nameserver(text) == expected
    assert str(parse_nameserver(text)) == written


@pytest.mark.parametrize(
    "text", ["", "ns1.example.com", "192.0.2.53:0", "192.0.2.53:", "2001:db8::53::53", "*"]
)
def test_bad_nameserver_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        parse_nameserver(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:c000:207", "192.0.2.7/32"),
        ("fe80::/10", "fe80::/10"),
    ],
)
def test_network_is_read(text: str, network: str) -> None:
    assert str(parse_network(text)) == network


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no IP network"),
        ("192.0.2.0/33", "is no IP network"),
        ("192.0.2", "is no IP network"),
        ("fe80::1%eth0/64", "has a zone, which no network has"),
        ("fe80::1%eth0", "has a zone, which no network has"),
        ("::ffff:192.0.2.1/120", "is an address within a network"),
        ("192.0.2.1/24", "is an address within a network"),
    ],
)
def test_bad_network_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(SettingError) as caught:
        parse_network(text)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "8.0.0.0/8", "127.0.0.0/8", "192.0.2.1", "fc00::/7", "fe80::/10", "2001:db8::/32"]
)
def test_network_of_proxies_is_read(text: str) -> None:
    assert parse_trusted_network(text) == parse_network(text)


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "192.0.0.0/2", "8.0.0.0/7"),
        *("::/0", "::/1", "8000::/1", "2000::/3", "2600::/12"),
        *("::ffff:0:0/96", "::ffff:0.0.0.0/97", "::ffff:128.0.0.0/97"),
    ],
)
def test_network_that_holds_much_of_the_internet_is_none_of_proxies(text: str) -> None:
    with pytest.raises(SettingError, match="holds a large part of the Internet") as caught:
        parse_trusted_network(text)
    assert "write the addresses of your proxies" in (caught.value.remedy or "")


def test_source_address_is_written_canonically() -> None:
    assert parse_source_address("2001:DB8:0::1") == "2001:db8::1"


@pytest.mark.parametrize("text", ["", "kdc.example.com", "0.0.0.0", "::", "224.0.0.1", "192.0.2.1:88"])
def test_bad_source_address_is_refused(text: str) -> None:
    with pytest.raises(SettingError):
        parse_source_address(text)


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("EXAMPLE.COM", True),
        ("EXAMPLE.COM.", True),
        ("EXAMPLE", True),
        ("ad_1.example", True),
        ("our realm", False),
        ("BÜCHER.EXAMPLE", False),
        ("A..B", False),
        (".".join(127 * ["xy"]), False),
    ],
)
def test_domain_name_has_the_form_of_a_dns_name(name: str, is_one: bool) -> None:
    assert is_domain_name(name) is is_one
