"""One form for every address, and the networks to which limits apply."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.protocol.ip_addresses import (
    limited_networks,
    network_of,
    networks_of,
    parse_address,
    parse_network,
)
from tests.support.strategies import address_spellings


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.7",
        "::ffff:192.0.2.7",
        "::FFFF:192.0.2.7",
        "::ffff:c000:207",
        "::ffff:c000:0207",
        "0:0:0:0:0:ffff:c000:207",
        "0000:0000:0000:0000:0000:ffff:192.0.2.7",
        "::ffff:192.0.2.7%eth0",
        "::ffff:c000:207%2",
    ],
)
def test_ipv4_mapped_address_is_the_ipv4_address(text: str) -> None:
    assert str(parse_address(text)) == "192.0.2.7"


@pytest.mark.parametrize(
    "text",
    [
        "::192.0.2.7",  # IPv4-compatible
        "::ffff:0:192.0.2.7",  # IPv4-translated
        "64:ff9b::192.0.2.7",  # NAT64
        "2002:c000:207::",  # 6to4
        "1::ffff:192.0.2.7",
    ],
)
def test_other_addresses_with_an_ipv4_address_inside_stay_ipv6(text: str) -> None:
    assert isinstance(parse_address(text), IPv6Address)


@given(bits=st.integers(0, 2**32 - 1), data=st.data())
def test_every_spelling_of_an_ipv4_address_is_read_as_the_same(bits: int, data: st.DataObject) -> None:
    address = IPv4Address(bits)
    assert parse_address(data.draw(address_spellings(address))) == address


@given(bits=st.integers(0, 2**128 - 1), data=st.data())
def test_every_spelling_of_an_ipv6_address_is_read_as_the_same(bits: int, data: st.DataObject) -> None:
    address = IPv6Address(bits)
    expected = address.ipv4_mapped or address
    assert parse_address(data.draw(address_spellings(address, has_zone=False))) == expected


@pytest.mark.parametrize(
    "text", ["", "unix", "192.0.2", "192.0.2.07", "::g", "[::1]", "1.2.3.4%eth0", " ::1"]
)
def test_other_text_than_an_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - ipaddress's
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.9/24", "192.0.2.0/24"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:c000:200/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::fffe:0:0/95", "::fffe:0:0/95"),
        ("::/0", "::/0"),
    ],
)
def test_network_of_mapped_addresses_is_the_ipv4_network(text: str, network: str) -> None:
    assert parse_network(text) == ip_network(network)


@given(bits=st.integers(0, 2**32 - 1), prefix=st.integers(0, 32), other=st.integers(0, 2**32 - 1))
def test_mapped_network_holds_what_its_ipv4_network_holds(bits: int, prefix: int, other: int) -> None:
    plain = IPv4Network((bits, prefix), strict=False)
    mapped = parse_network(f"::ffff:{IPv4Address(bits)}/{prefix + 96}")
    address = parse_address(f"::ffff:{IPv4Address(other)}")
    assert (address in mapped) == (IPv4Address(other) in plain)


@pytest.mark.parametrize(
    ("address", "networks"),
    [
        ("192.0.2.1", ("192.0.2.1", "192.0.2.0/24")),
        ("::ffff:192.0.2.1", ("192.0.2.1", "192.0.2.0/24")),
        (
            "2001:db8:1:2345:6:7:8:9",
            ("2001:db8:1:2345::/64", "2001:db8:1:2300::/56", "2001:db8:1::/48"),
        ),
        ("2001:0DB8::", ("2001:db8::/64", "2001:db8::/56", "2001:db8::/48")),
        ("fe80::1%eth0", ("fe80::/64", "fe80::/56", "fe80::/48")),
        ("2001:db8:1:2345::/64", ("2001:db8:1:2345::/64", "2001:db8:1:2300::/56", "2001:db8:1::/48")),
        ("64:ff9b::192.0.2.1", ("192.0.2.1", "192.0.2.0/24")),
        ("64:FF9B::C000:201", ("192.0.2.1", "192.0.2.0/24")),
        ("64:ff9b::1:c000:201", ("64:ff9b::/64", "64:ff9b::/56", "64:ff9b::/48")),
        ("64:ff9b:1::c000:201", ("64:ff9b:1::/64", "64:ff9b:1::/56", "64:ff9b:1::/48")),
        ("unix", ("unix",)),
        ("", ("",)),
    ],
)
def test_limits_go_by_the_client_and_wider_networks(address: str, networks: tuple[str, ...]) -> None:
    assert networks_of(address) == networks
    assert network_of(address) == networks[0]


@given(bits=st.integers(0, 2**128 - 1).filter(lambda bits: bits >> 32 != 0x64FF9B << 64))
def test_address_is_in_each_of_its_networks(bits: int) -> None:
    address = str(ip_address(bits) if bits >= 2**32 else IPv6Address(bits))
    for network in networks_of(address):
        assert parse_address(address) in parse_network(network)


@given(bits=st.integers(0, 2**32 - 1))
def test_ipv4_client_counts_the_same_through_a_translator(bits: int) -> None:
    plain = str(IPv4Address(bits))
    translated = str(IPv6Address((0x64FF9B << 96) + bits))
    assert networks_of(translated) == networks_of(plain)
    assert limited_networks(translated) == limited_networks(plain)


def test_million_networks_leave_a_bounded_cache() -> None:
    for number in range(10_000):
        networks_of(f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::/64")
    assert networks_of.cache_info().currsize <= 1024


def test_limits_spare_the_neighbours_of_an_ipv4_address() -> None:
    assert limited_networks("192.0.2.1") == ("192.0.2.1",)
    assert limited_networks("unix") == ("unix",)
    assert limited_networks("2001:db8::/64") == ("2001:db8::/64", "2001:db8::/56", "2001:db8::/48")
