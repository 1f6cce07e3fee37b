"""Reads the PROXY header, in which a proxy names its client. Pure.

"The PROXY protocol, Versions 1 & 2" by Willy Tarreau (haproxy.org/download/3.0/doc/proxy-protocol.txt),
sections 2.1 and 2.2. The caller reads one from trusted proxies only.
"""

import re
import struct
from ipaddress import IPv4Address, IPv6Address

from kkdcpd.endpoints import MAX_PORT
from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol.ip_addresses import parse_address

__all__ = ["MAX_HEADER_BYTES", "ProxyHeader", "parse"]

_MAX_V1_BYTES = 107  # 2.1: the longest line, with its CRLF
_MAX_V2_LENGTH = 4096  # with TLVs: AWS, Azure and the names of a client certificate take some hundred bytes
_V2_HEAD_BYTES = 16

MAX_HEADER_BYTES = _V2_HEAD_BYTES + _MAX_V2_LENGTH

_V1_START = b"PROXY "
_V2_START = b"\r\n\r\n\0\r\nQUIT\n"
_V1_ADDRESS = re.compile(rb"[0-9A-Fa-f:.]+")  # no zone, because a zone has no meaning on another host
_V1_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_V1_FAMILIES: dict[bytes, type[IPv4Address] | type[IPv6Address]] = {
    b"TCP4": IPv4Address,
    b"TCP6": IPv6Address,
}

_LOCAL, _PROXY = 0x20, 0x21  # version 2, and the command

_UNSPEC = 0x00
# Streams only, because a TCP connection carries no datagrams. Each has its layout of addresses and ports.
_V2_FAMILIES = {
    0x11: (IPv4Address, struct.Struct("!4s4xH2x")),
    0x21: (IPv6Address, struct.Struct("!16s16xH2x")),
}
_UNIX_STREAM, _UNIX_BYTES = 0x31, 216  # two paths of 108 bytes


@frozen
class ProxyHeader:
    """The client in a header. `address` is in its canonical form.

    It is None if the proxy connects for itself, or does not know the client.
    """

    address: str | None = None
    port: int = 0


def parse(data: bytes | bytearray) -> tuple[ProxyHeader | None, int]:
    """Read the header that `data` begins with; return it and its number of bytes.

    None and 0 mean that the header needs more bytes, up to MAX_HEADER_BYTES.

    Raises:
        MalformedError: no header begins with these bytes.
    """
    if data[: len(_V2_START)] == _V2_START[: len(data)]:
        return _parse_v2(bytes(data[:MAX_HEADER_BYTES]))
    if data[: len(_V1_START)] == _V1_START[: len(data)]:
        return _parse_v1(bytes(data[:_MAX_V1_BYTES]))
    raise MalformedError("no PROXY header")


def _parse_v1(data: bytes) -> tuple[ProxyHeader | None, int]:
    line, end, _rest = data.partition(b"\r\n")
    if not end:
        if len(data) == _MAX_V1_BYTES or b"\n" in data or b"\r" in data[:-1]:
            raise MalformedError("a PROXY header without an end of its line")
        return None, 0
    if b"\r" in line or b"\n" in line:
        raise MalformedError("a PROXY header with another line within")
    return _read_v1(line), len(line) + len(end)


def _read_v1(line: bytes) -> ProxyHeader:
    words = line.split(b" ")[1:]
    if words[0] == b"UNKNOWN":
        return ProxyHeader()  # 2.1: the rest of the line is ignored
    family = _V1_FAMILIES.get(words[0])
    if family is None or len(words) != 5:
        raise MalformedError("a PROXY header of an unknown kind")
    source, _destination = (_v1_address(family, word) for word in words[1:3])
    port, _destination_port = (_v1_port(word) for word in words[3:])
    return ProxyHeader(address=source, port=port)


def _v1_address(family: type[IPv4Address] | type[IPv6Address], word: bytes) -> str:
    try:
        address = family(word.decode("ascii") if _V1_ADDRESS.fullmatch(word) else "")
    except ValueError as error:
        raise MalformedError("a PROXY header with a bad address") from error
    return str(parse_address(str(address)))


def _v1_port(word: bytes) -> int:
    if not _V1_PORT.fullmatch(word) or int(word) > MAX_PORT:
        raise MalformedError("a PROXY header with a bad port")
    return int(word)


def _parse_v2(data: bytes) -> tuple[ProxyHeader | None, int]:
    if len(data) < _V2_HEAD_BYTES:
        return None, 0
    command, family, length = struct.unpack_from("!BBH", data, len(_V2_START))
    if command not in {_LOCAL, _PROXY}:
        raise MalformedError(f"a PROXY header of version and command 0x{command:02x}")
    if length > _MAX_V2_LENGTH:
        raise MalformedError(f"a PROXY header of {length} bytes")
    end = _V2_HEAD_BYTES + length
    if len(data) < end:
        return None, 0
    body = data[_V2_HEAD_BYTES:end]
    return (_read_v2(family, body) if command == _PROXY else ProxyHeader()), end


def _read_v2(family: int, body: bytes) -> ProxyHeader:
    """Read the addresses, and ignore the TLVs after them (2.2)."""
    if family == _UNSPEC:
        return ProxyHeader()
    if family == _UNIX_STREAM:
        _expect_bytes(body, _UNIX_BYTES)
        return ProxyHeader()
    if family not in _V2_FAMILIES:
        raise MalformedError(f"a PROXY header of family and transport 0x{family:02x}")
    read, addresses = _V2_FAMILIES[family]
    _expect_bytes(body, addresses.size)
    source, port = addresses.unpack_from(body)
    return ProxyHeader(address=str(parse_address(str(read(source)))), port=port)


def _expect_bytes(body: bytes, count: int) -> None:
    if len(body) < count:
        raise MalformedError("a PROXY header too short for its addresses")
