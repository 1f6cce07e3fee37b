"""The client behind reverse proxies, and headers that clients forge."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.protocol.forwarded import client_address
from tests.support.strategies import address_spellings

PROXY, OTHER_PROXY, CLIENT, STRANGER = "192.0.2.1", "2001:db8::2", "203.0.113.5", "198.51.100.7"
TRUSTED = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))


def _x(*values: str, peer: str = PROXY) -> str:
    return client_address(values, peer, TRUSTED, header="x-forwarded-for")


def _f(*values: str, peer: str = PROXY) -> str:
    return client_address(values, peer, TRUSTED, header="forwarded")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], PROXY),
        ([CLIENT], CLIENT),
        ([f"{STRANGER}, {CLIENT}"], CLIENT),
        ([STRANGER, CLIENT], CLIENT),
        ([f"{CLIENT},{OTHER_PROXY}"], CLIENT),
        ([CLIENT, OTHER_PROXY], CLIENT),
        ([f"{CLIENT}:4711"], CLIENT),
        (["2001:DB8:1:0::5"], "2001:db8:1::5"),
        (["[2001:db8:1::5]:4711"], "2001:db8:1::5"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        (["192.0.2.7, 192.0.2.8"], "192.0.2.7"),
        ([f"unknown, {OTHER_PROXY}"], OTHER_PROXY),
        (["unknown"], PROXY),
        ([f"{CLIENT}, "], PROXY),
        (["203.0.113.256"], PROXY),
        (["fe80::1%eth0"], PROXY),
        (["client.example.com"], PROXY),
        ([f"a', \", {CLIENT}"], CLIENT),
        ([""], PROXY),
    ],
)
def test_x_forwarded_for_is_read_from_the_right_as_far_as_proxies_are_trusted(
    values: list[str], expected: str
) -> None:
    assert _x(*values) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], PROXY),
        ([f"for={CLIENT}"], CLIENT),
        ([f"For={CLIENT};proto=https;by=192.0.2.1"], CLIENT),
        ([f"proto=https ; for={CLIENT}"], CLIENT),
        ([f'for="{CLIENT}:4711"'], CLIENT),
        (['for="[2001:db8:1::5]"'], "2001:db8:1::5"),
        (['for="[2001:db8:1::5]:4711"'], "2001:db8:1::5"),
        (['for="[2001:db8:1::5]:_port"'], "2001:db8:1::5"),
        ([r'for="\2\03.0.113.5"'], CLIENT),
        ([f"for={STRANGER}, for={CLIENT}"], CLIENT),
        ([f"for={CLIENT}, for=192.0.2.9"], CLIENT),
        ([f"for={STRANGER}", f"for={CLIENT}"], CLIENT),
        ([f'for={CLIENT};host="a, for={STRANGER}"'], CLIENT),
        (["for=_secret, for=192.0.2.9"], "192.0.2.9"),
        (["for=_secret"], PROXY),
        (["for=unknown"], PROXY),
        (["proto=https"], PROXY),
        ([f"for={CLIENT};for={STRANGER}"], PROXY),
        ([f'for="{CLIENT}'], PROXY),
        ([f"for={CLIENT};"], PROXY),
        ([CLIENT], PROXY),
        ([f'for=", for={CLIENT}'], CLIENT),
        (['for="x, for="[2001:db8:1::5]:4711";host="h"'], "2001:db8:1::5"),
        ([""], PROXY),
    ],
)
def test_forwarded_is_read_from_the_right_as_far_as_proxies_are_trusted(
    values: list[str], expected: str
) -> None:
    assert _f(*values) == expected


@pytest.mark.parametrize("read", [_x, _f])
def test_peer_that_is_not_trusted_is_the_client(read: Any) -> None:
    assert read(CLIENT, f"for={CLIENT}", peer=STRANGER) == STRANGER


def test_peer_on_a_unix_socket_is_trusted() -> None:
    assert _x(CLIENT, peer="unix") == CLIENT
    assert _x(peer="unix") == "unix"


def test_trusted_ipv4_proxy_on_an_ipv6_socket_is_trusted() -> None:
    assert _x(CLIENT, peer=f"::ffff:{PROXY}") == CLIENT


def test_endless_chain_is_not_followed() -> None:
    assert _x(",".join([CLIENT] + ["192.0.2.9"] * 1000)) == "192.0.2.9"
    assert _f(",".join([f"for={CLIENT}"] + ["for=192.0.2.9"] * 1000)) == "192.0.2.9"


WORDS = st.sampled_from(
    [
        "for=",
        '"',
        ",",
        ";",
        "\\",
        " ",
        "by=",
        "proto=https",
        CLIENT,
        OTHER_PROXY,
        "[",
        "]",
        ":1",
        "_x",
        "unknown",
        "é",
    ]
)
STRANGERS_WORDS = st.lists(WORDS, max_size=30).map("".join) | st.text(max_size=40)


@given(words=STRANGERS_WORDS)
def test_entries_before_those_of_trusted_proxies_change_nothing(words: str) -> None:
    assert _x(f"{words}, {CLIENT}") == CLIENT
    assert _x(words, CLIENT) == CLIENT
    assert _f(f"{words}, for={CLIENT};proto=https") == CLIENT
    assert _f(words, f'for="{CLIENT}:1"') == CLIENT


@given(words=STRANGERS_WORDS)
def test_result_is_the_peer_or_an_address(words: str) -> None:
    for read in (_x, _f):
        result = read(words)
        assert result == PROXY or str(ip_address(result)) == result


ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(0, 2**128 - 1).map(IPv6Address),
    st.sampled_from([IPv4Address(PROXY), IPv6Address(OTHER_PROXY)]),
)


@given(address=ADDRESSES, data=st.data())
def test_every_spelling_of_an_address_names_the_same_client(
    address: IPv4Address | IPv6Address, data: st.DataObject
) -> None:
    spelling = data.draw(address_spellings(address, has_zone=False))
    expected = str((isinstance(address, IPv6Address) and address.ipv4_mapped) or address)
    bracketed = f"[{spelling}]" if ":" in spelling else spelling
    assert _x(spelling) == _x(bracketed) == _x(f"{bracketed}:4711") == expected
    assert _f(f'for="{bracketed}"') == _f(f'for="{bracketed}:4711"') == expected


@given(data=st.data())
def test_every_spelling_of_a_trusted_proxy_is_trusted(data: st.DataObject) -> None:
    for proxy in (IPv4Address(PROXY), IPv6Address(OTHER_PROXY)):
        spelling = data.draw(address_spellings(proxy, has_zone=False))
        assert _x(f"{CLIENT}, {spelling}") == CLIENT
        assert _x(CLIENT, peer=spelling) == CLIENT


@given(address=ADDRESSES, data=st.data())
def test_address_with_a_zone_names_no_client(address: IPv4Address | IPv6Address, data: st.DataObject) -> None:
    spelling = data.draw(address_spellings(address, has_zone=True))
    assert _x(f"{CLIENT}, {spelling}") == PROXY
    assert _f(f'for={CLIENT}, for="[{spelling}]"') == PROXY
