"""Headers as HAProxy's specification has them, and all that is none."""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.proxy_header import MAX_HEADER_BYTES, ProxyHeader, parse
from tests.support.strategies import address_spellings

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.1") + struct.pack("!HH", 56324, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 56324, 443)
)
MAPPED = (
    socket.inet_pton(socket.AF_INET6, "::ffff:192.0.2.1")
    + socket.inet_pton(socket.AF_INET6, "::ffff:198.51.100.1")
    + struct.pack("!HH", 56324, 443)
)
TLVS = b"\x03\x00\x04\x12\x34\x56\x78\x04\x00\x03\0\0\0"  # a checksum and padding
LONGEST_V1 = b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535".ljust(105, b".") + b"\r\n"


def v2(body: bytes, *, command: int = 0x21, family: int = 0x11) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


GOOD = {
    "IPv4": (b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", "192.0.2.1", 56324),
    "IPv6": (b"PROXY TCP6 2001:DB8:0::1 2001:db8::2 0 65535\r\n", "2001:db8::1", 0),
    "IPv4-mapped IPv6": (b"PROXY TCP6 ::FFFF:192.0.2.1 ::ffff:c633:6401 56324 443\r\n", "192.0.2.1", 56324),
    "unknown": (b"PROXY UNKNOWN\r\n", None, 0),
    "unknown with words to ignore": (b"PROXY UNKNOWN 1 2 3 4\r\n", None, 0),
    "the longest line": (LONGEST_V1, None, 0),
    "version 2, IPv4": (v2(V4), "192.0.2.1", 56324),
    "version 2, IPv6": (v2(V6, family=0x21), "2001:db8::1", 56324),
    "version 2, IPv4-mapped IPv6": (v2(MAPPED, family=0x21), "192.0.2.1", 56324),
    "version 2, IPv4 with TLVs": (v2(V4 + TLVS), "192.0.2.1", 56324),
    "version 2, unix": (v2(bytes(216), family=0x31), None, 0),
    "version 2, unspecified": (v2(b"", family=0), None, 0),
    "version 2, unspecified with words to ignore": (v2(V4, family=0), None, 0),
    "version 2, the proxy's own health check": (v2(b"", command=0x20, family=0), None, 0),
    "version 2, the proxy's own with words to ignore": (v2(V4, command=0x20), None, 0),
    "version 2, the longest": (v2(V4.ljust(4096, b"\0")), "192.0.2.1", 56324),
}

BAD = {
    "a ClientHello": b"\x16\x03\x01\x02\x00\x01\x00",
    "a request": b"POST /KdcProxy HTTP/1.1\r\n",
    "small letters": b"proxy TCP4 192.0.2.1 198.51.100.1 56324 443\r\n",
    "an unknown family": b"PROXY TCP5 192.0.2.1 198.51.100.1 56324 443\r\n",
    "no family": b"PROXY \r\n",
    "a lacking port": b"PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n",
    "a word more": b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n",
    "two blanks": b"PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n",
    "IPv6 said to be IPv4": b"PROXY TCP4 2001:db8::1 2001:db8::2 56324 443\r\n",
    "IPv4 said to be IPv6": b"PROXY TCP6 192.0.2.1 198.51.100.1 56324 443\r\n",
    "an byte too large": b"PROXY TCP4 192.0.2.256 198.51.100.1 56324 443\r\n",
    "a bad destination": b"PROXY TCP4 192.0.2.1 elsewhere 56324 443\r\n",
    "an address with zeros before": b"PROXY TCP4 192.0.2.01 198.51.100.1 56324 443\r\n",
    "an address with a zone": b"PROXY TCP6 fe80::1%eth0 2001:db8::2 56324 443\r\n",
    "a port too large": b"PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n",
    "a port with zeros before": b"PROXY TCP4 192.0.2.1 198.51.100.1 056324 443\r\n",
    "a negative port": b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 -443\r\n",
    "other bytes than ASCII": b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 44\xb3\r\n",
    "a bare line feed": b"PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n",
    "a bare carriage return": b"PROXY UNKNOWN a\rb\r\n",
    "a line too long": LONGEST_V1[:-2] + b".\r\n",
    "version 1 in version 2": v2(V4, command=0x11),
    "an unknown command": v2(V4, command=0x22),
    "a datagram": v2(V4, family=0x12),
    "an unknown family of version 2": v2(V4, family=0x41),
    "no transport": v2(V4, family=0x10),
    "too short for IPv4": v2(V4[:-1]),
    "too short for IPv6": v2(V6[:-1], family=0x21),
    "too short for unix": v2(bytes(215), family=0x31),
    "version 2, too long": v2(bytes(4097)),
    "half a signature": SIGNATURE[:8] + b"X",
}


def byte_by_byte(data: bytes) -> tuple[ProxyHeader | None, int]:
    buffer = bytearray()
    for byte in data:
        buffer.append(byte)
        header, used = parse(buffer)
        if header:
            return header, used
        assert used == 0
    return None, 0


@pytest.mark.parametrize("rest", [b"", b"\x16\x03\x01", b"PROXY UNKNOWN\r\n"])
@pytest.mark.parametrize(("data", "address", "port"), GOOD.values(), ids=GOOD.keys())
def test_header_is_read_and_what_follows_is_left(
    data: bytes, address: str | None, port: int, rest: bytes
) -> None:
    expected = ProxyHeader(address=address, port=port), len(data)
    assert parse(data + rest) == expected
    assert byte_by_byte(data + rest) == expected


@pytest.mark.parametrize("data", [data for data, *_ in GOOD.values()], ids=GOOD.keys())
def test_every_part_of_a_header_needs_more(data: bytes) -> None:
    assert {parse(data[:length]) for length in range(len(data))} == {(None, 0)}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_anything_else_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(data)
    with pytest.raises(MalformedError):
        byte_by_byte(data)


def test_no_more_bytes_are_awaited_than_the_longest_header_has() -> None:
    assert max(len(data) for data, *_ in GOOD.values()) == MAX_HEADER_BYTES
    with pytest.raises(MalformedError):
        parse(b"PROXY UNKNOWN ".ljust(107, b"."))


LIKE_HEADERS = st.one_of(
    st.binary(max_size=64),
    st.binary(max_size=300).map(lambda rest: SIGNATURE + rest),
    st.builds(
        v2,
        st.binary(max_size=300),
        command=st.sampled_from([0x20, 0x21, 0x11]),
        family=st.sampled_from([0, 0x11, 0x12, 0x21, 0x31]),
    ),
    st.lists(
        st.sampled_from(
            [b"PROXY", b" ", b"TCP4", b"TCP6", b"UNKNOWN", b"192.0.2.1", b"::1", b"1", b"\r", b"\n"]
        ),
        max_size=40,
    ).map(lambda words: b"PROXY " + b"".join(words)),
)


@given(data=LIKE_HEADERS)
@example(data=b"")
def test_byte_by_byte_and_at_once_are_the_same(data: bytes) -> None:
    try:
        expected = parse(data)
    except MalformedError:
        with pytest.raises(MalformedError):
            byte_by_byte(data)
    else:
        assert byte_by_byte(data) == expected


@given(
    address=st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address),
    data=st.data(),
)
def test_every_spelling_of_an_address_names_the_same_client(
    address: IPv4Address | IPv6Address, data: st.DataObject
) -> None:
    spelling = data.draw(address_spellings(address, has_zone=False))
    plain = (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
    family, other = ("TCP6", "::1") if ":" in spelling else ("TCP4", "127.0.0.1")
    line = f"PROXY {family} {spelling} {other} 4711 443\r\n".encode()
    assert parse(line) == (ProxyHeader(address=str(plain), port=4711), len(line))
    if isinstance(address, IPv6Address):
        header = v2(address.packed + bytes(16) + struct.pack("!HH", 4711, 443), family=0x21)
        assert parse(header) == (ProxyHeader(address=str(plain), port=4711), len(header))
