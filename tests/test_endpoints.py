"""Texts of endpoints: one parser and one formatter."""

from dataclasses import replace

import pytest

from kkdcpd.endpoints import (
    PROXY_TRANSPORTS,
    EndpointText,
    EndpointTextError,
    KdcEndpoint,
    Transport,
    format_host_port,
    parse_endpoint_text,
    parse_port,
    split_host_port,
    unpack_endpoint,
)

BOTH = (Transport.TCP, Transport.UDP)
KDC = KdcEndpoint(name="kdc1.example.com", address="192.0.2.1", port=88, transport=Transport.TCP)


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("88", 88), ("00088", 88), ("65535", 65535)])
def test_port_is_parsed(text: str, port: int) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", "65536", "-1", "+88", " 88", "88\n", "8_8", "٨٨", "0x58", "8" * 4301])
def test_text_that_is_no_port_number_is_no_port(text: str) -> None:
    assert parse_port(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kdc1", EndpointText(transports=BOTH, host="kdc1", port=88, path="")),
        ("TCP://kdc1:89", EndpointText(transports=(Transport.TCP,), host="kdc1", port=89, path="")),
        ("udp://[::1]:89", EndpointText(transports=(Transport.UDP,), host="::1", port=89, path="")),
        ("https://proxy", EndpointText(transports=(Transport.HTTPS,), host="proxy", port=443, path="")),
        (
            "wss://proxy/KdcTunnel",
            EndpointText(transports=(Transport.WSS,), host="proxy", port=443, path="/KdcTunnel"),
        ),
        (
            "HTTPS://[::1]:8443/TENANT/kerberos?x=%20",
            EndpointText(transports=(Transport.HTTPS,), host="::1", port=8443, path="/TENANT/kerberos?x=%20"),
        ),
    ],
)
def test_endpoint_text_is_parsed(text: str, expected: EndpointText) -> None:
    assert parse_endpoint_text(text, default_port=88) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tcp://kdc1/KdcProxy", "has a path, which no KDC has"),
        ("://kdc1", "begins with ://, which is no transport"),
        *(
            (f"https://proxy/{character}", "has a path with a character that no URL has")
            for character in '\r\n #"<é'
        ),
        ("kdc1:0", "has a port that is no number from 1 to 65535"),
        ("kdc1:", "has a port that is no number from 1 to 65535"),
        ("::1", "has an IPv6 address that is not in brackets"),
        ("[kdc1]:88", "has brackets round a text that is no IPv6 address"),
    ],
)
def test_text_without_valid_form_is_refused_with_the_reason(text: str, problem: str) -> None:
    with pytest.raises(EndpointTextError) as caught:
        parse_endpoint_text(text, default_port=88)
    assert caught.value.problem == problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("::1", ("::1", None)),
        ("[::1]", ("::1", None)),
        ("[::1]:", ("::1", None)),
        ("kdc1:", ("kdc1", None)),
        ("kdc1:88", ("kdc1", "88")),
    ],
)
def test_lenient_form_takes_bare_ipv6_addresses_and_empty_ports(
    text: str, expected: tuple[str, str | None]
) -> None:
    assert split_host_port(text, is_lenient=True) == expected


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "fe80::1%eth0", "kdc1.example.com"])
def test_formatted_host_and_port_are_parsed_back(host: str) -> None:
    assert split_host_port(format_host_port(host, 88)) == (host, "88")


@pytest.mark.parametrize(
    "endpoint",
    [
        KDC,
        replace(KDC, name="2001:db8::1", address="2001:db8::1", transport=Transport.UDP),
        replace(KDC, path="/KdcProxy"),
        # DNS may name any host.
        replace(KDC, name="[a]:b/c://d"),
    ],
)
def test_packed_endpoint_is_unpacked_unchanged(endpoint: KdcEndpoint) -> None:
    copy = unpack_endpoint(endpoint.pack(), branch="child.example.com")
    assert copy == endpoint
    assert copy.branch == "child.example.com"


@pytest.mark.parametrize("transport", PROXY_TRANSPORTS)
def test_url_of_a_proxy_keeps_its_path_and_has_a_default_port(transport: Transport) -> None:
    parsed = parse_endpoint_text(f"{transport.value}://proxy.example.com/KdcProxy", default_port=88)
    assert (parsed.transports, parsed.port, parsed.path) == ((transport,), 443, "/KdcProxy")
    endpoint = replace(KDC, name=parsed.host, port=parsed.port, path=parsed.path, transport=transport)
    assert str(endpoint) == f"{transport.value}://proxy.example.com:443/KdcProxy"
    assert unpack_endpoint(endpoint.pack()) == endpoint


def test_kdc_proxies_of_different_names_or_paths_are_different_servers() -> None:
    proxy = replace(KDC, transport=Transport.HTTPS, path="/KdcProxy")
    assert proxy.server == replace(proxy, name=proxy.name.upper()).server
    assert proxy.server != replace(proxy, name="other.example.com").server
    assert proxy.server != replace(proxy, path="/other").server


def test_names_with_one_address_are_one_kdc() -> None:
    assert KDC.server == replace(KDC, name="other.example.com", transport=Transport.UDP).server
    assert KDC.server != replace(KDC, port=89).server


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/KdcProxy", "/KdcProxy"),
        ("/KdcProxy/", "/KdcProxy"),
        ("/KdcProxy/0123456789abcdef", "/KdcProxy/..."),
        ("/KdcProxy?token=0123456789abcdef", "/KdcProxy/..."),
        ("/", "/"),
        ("", ""),
    ],
)
def test_text_for_logs_and_metrics_has_no_token(path: str, shown: str) -> None:
    endpoint = replace(KDC, transport=Transport.HTTPS, port=443, path=path)
    assert str(endpoint) == f"https://{endpoint.host_port}{shown}"
    copy = unpack_endpoint(endpoint.pack())
    assert copy.path == path
