"""Ports and addresses learnt from DNS."""

import ipaddress

import pytest

from kkdcpd.locate.address_filter import AddressFilter

ANY = AddressFilter(ports=(88, 464))


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.0.0.1", "8.8.8.8", "100.64.0.1", "2001:db8::1", "fd00::1", "2a00::1"]
)
def test_ordinary_addresses_are_allowed(address: str) -> None:
    assert ANY.refusal_of_address(address) is None


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.0.53.53", "loopback"),
        ("::1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::127.0.0.1", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:7f00:1", "loopback"),
        ("::ffff:169.254.1.1", "link-local"),
        ("::ffff:0:127.0.0.1", "reserved"),
        ("192.0.0.170", "reserved for protocols"),
        ("192.88.99.1", "a 6to4 relay"),
        ("198.19.255.255", "for benchmarks"),
        ("fe80::1%eth0", "link-local"),
        ("fec0::1", "site-local"),
        ("feff::1", "site-local"),
        ("ff0e::1", "multicast"),
        ("100::1", "reserved"),
        ("2001::7f00:1", "a Teredo address"),
        ("2001:2::1", "reserved for protocols"),
        ("2001:20::1", "reserved for protocols"),
        ("5f00::1", "reserved"),
        ("64:ff9b:1::127.0.0.1", "reserved"),
        ("2002:7f00:1::", "loopback, because it contains 127.0.0.1"),
        ("64:ff9b::7f00:1", "loopback, because it contains 127.0.0.1"),
        ("64:ff9b::c612:1", "for benchmarks, because it contains 198.18.0.1"),
    ],
)
def test_special_addresses_are_refused(address: str, kind: str) -> None:
    reason = ANY.refusal_of_address(address)
    assert reason is not None
    assert reason.endswith(f" is {kind}")


def test_ipv4_behind_nat64_is_allowed() -> None:
    assert ANY.refusal_of_address("64:ff9b::192.0.2.1") is None


def test_ports_that_are_not_listed_are_refused() -> None:
    assert ANY.refusal_of_server("kdc", 88) is None
    assert ANY.refusal_of_server("kdc", 464) is None
    assert ANY.refusal_of_server("kdc", 22) == "port 22 is not in locate.allowed_ports"


def test_exactly_the_listed_networks_are_allowed() -> None:
    networks = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("127.0.0.0/8"))
    listed = AddressFilter(ports=(88,), networks=networks)
    assert listed.refusal_of_address("192.0.2.9") is None
    assert listed.refusal_of_address("127.0.0.1") is None
    assert listed.refusal_of_address("10.0.0.1") == "10.0.0.1 is outside locate.allowed_networks"
    assert listed.refusal_of_address("::ffff:127.0.0.1") is None
    assert listed.refusal_of_address("2001:db8::1") is not None


@pytest.mark.parametrize("host", ["example.com", "Proxy.EXAMPLE.com", "a.b.example.com."])
def test_names_within_a_listed_domain_are_allowed(host: str) -> None:
    assert AddressFilter(ports=(443,), domains=("Example.com.",)).refusal_of_server(host, 443) is None


@pytest.mark.parametrize("host", ["badexample.com", "example.com.evil.test", "com", "192.0.2.1"])
def test_names_outside_the_listed_domains_are_refused(host: str) -> None:
    proxies = AddressFilter(ports=(443,), domains=("example.com",), settings="locate.proxy")
    assert proxies.refusal_of_server(host, 443) == f"{host} is outside locate.proxy_domains"
    assert proxies.refusal_of_server(host, 22) == "port 22 is not in locate.proxy_ports"
