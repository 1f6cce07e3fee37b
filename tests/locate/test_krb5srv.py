"""krb5srv URIs of KDC proxies. test_records.py has the URIs of KDCs."""

import pytest

from kkdcpd.endpoints import EndpointTextError, Transport
from kkdcpd.locate.krb5srv import format_proxy, is_host, parse_krb5srv, parse_proxy_url


@pytest.mark.parametrize(
    ("url", "transport", "host", "port", "path"),
    [
        ("https://proxy.example.com/KdcProxy", Transport.HTTPS, "proxy.example.com", 443, "/KdcProxy"),
        (
            "HTTPS://proxy.example.com:8443/a/b?c=%20",
            Transport.HTTPS,
            "proxy.example.com",
            8443,
            "/a/b?c=%20",
        ),
        ("https://[2001:db8::1]:8443/KdcProxy", Transport.HTTPS, "2001:db8::1", 8443, "/KdcProxy"),
        ("https://192.0.2.1/KdcProxy", Transport.HTTPS, "192.0.2.1", 443, "/KdcProxy"),
        ("wss://proxy.example.com/KdcTunnel", Transport.WSS, "proxy.example.com", 443, "/KdcTunnel"),
    ],
)
def test_uri_of_a_proxy_is_read_with_its_host_port_and_path(
    url: str, transport: Transport, host: str, port: int, path: str
) -> None:
    named = parse_krb5srv(format_proxy(url), default_port=88)
    assert named is not None
    assert named.is_primary
    assert named.endpoint is not None
    assert named.endpoint.transports == (transport,)
    assert (named.endpoint.host, named.endpoint.port, named.endpoint.path) == (host, port, path)


def test_url_without_a_path_has_the_root_as_path_as_in_mit_kerberos() -> None:
    assert parse_proxy_url("https://proxy.example.com").path == "/"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("proxy.example.com/KdcProxy", "does not begin with https:// or wss://"),
        ("http://proxy.example.com/KdcProxy", "does not begin with https:// or wss://"),
        ("https://", "the host is invalid"),
        ("https:///KdcProxy", "the host is invalid"),
        ("https://user@proxy.example.com/KdcProxy", "the host is invalid"),
        ("https://proxy example.com/KdcProxy", "the host is invalid"),
        ("https://proxy.example.com:0/KdcProxy", "the host is invalid"),
        ("https://proxy.example.com:99999/", "the host is invalid"),
        ("https://2001:db8::1:8443/", "the host is invalid"),
        ("https://proxy.example.com/a b", "the path has a character"),
        ("https://proxy.example.com/a\r\nX: y", "the path has a character"),
        ("https://proxy.example.com/a\x00", "the path has a character"),
        ('https://proxy.example.com/a"b', "the path has a character"),
        ("https://proxy.example.com/a\\b", "the path has a character"),
        ("https://proxy.example.com/a#b", "the path has a character"),
        ("https://proxy.example.com/\u00e9", "the path has a character"),
    ],
)
def test_url_that_could_change_the_request_or_has_no_host_is_refused(url: str, problem: str) -> None:
    with pytest.raises(EndpointTextError) as caught:
        parse_krb5srv(f"krb5srv:m:kkdcp:{url}", default_port=88)
    assert problem in caught.value.problem


@pytest.mark.parametrize("text", ["proxy.example.com", "_a.example.com", "192.0.2.1", "2001:db8::1"])
def test_host_names_and_addresses_are_hosts(text: str) -> None:
    assert is_host(text)


@pytest.mark.parametrize("text", ["", ".", "a b", "a..b", "-a", "b\n", "x" * 64, "[::1]", "fe80::1%a b"])
def test_other_texts_are_no_hosts(text: str) -> None:
    assert not is_host(text)
