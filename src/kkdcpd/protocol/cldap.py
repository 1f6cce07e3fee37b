"""Builds LDAP pings and reads their answers: facts about a domain controller ([MS-ADTS] 6.3.3).

A ping is a search of the rootDSE in a UDP datagram (RFC 1798, RFC 4511 4.5). The answer contains a
NETLOGON_SAM_LOGON_RESPONSE_EX ([MS-ADTS] 6.3.1.9).

LDAP uses BER: Windows writes every length in four bytes, which DER forbids. So this module has its own reader
of the envelope, with a fixed depth, tags of one byte and definite lengths.
"""

import enum
import struct
import uuid
from collections.abc import Iterator

from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import der

__all__ = [
    "DomainControllerFacts",
    "DomainControllerFlags",
    "PingAnswer",
    "decode_ping_answer",
    "encode_ping",
]

MAX_MESSAGE_ID = 2**31 - 1
"""RFC 4511 4.1.1. The id 0 is for unsolicited messages of the server."""

NT_VERSION = (0x2 | 0x4).to_bytes(4, "little")
"""V5 and V5EX ([MS-ADTS] 6.3.1.1) request the extended structure, as Samba's client does."""

MAX_ENTRIES = 8
"""The number of messages and attributes that are read of an answer. Real answers have two at most."""

MAX_NAME_BYTES = 255
"""RFC 1035 2.3.4. Pointers count as well, so that the limit bounds the work."""

MAX_LABEL_BYTES = 63

_SEQUENCE = 0x30
_SET = 0x31
_INTEGER = 0x02
_OCTET_STRING = 0x04
_ENUMERATED = 0x0A
_BOOLEAN = 0x01
_SEARCH_REQUEST = 0x63
_SEARCH_RESULT_ENTRY = 0x64
_SEARCH_RESULT_DONE = 0x65
_FILTER_AND = 0xA0
_FILTER_EQUALITY = 0xA3

_ATTRIBUTE = b"Netlogon"

_HEAD = struct.Struct("<HHI16s")
"""Opcode, Sbz, Flags and DomainGuid."""

_TAIL = struct.Struct("<IHH")
"""NtVersion, LmNtToken and Lm20Token, the end of every response ([MS-ADTS] 6.3.1.9)."""

_TOKEN = 0xFFFF

Span = tuple[int, int]


class DomainControllerFlags(enum.IntFlag):
    """DS_FLAG options: the roles and services of a controller ([MS-ADTS] 6.3.1.2). Unknown bits are kept."""

    PDC = 0x00000001
    GC = 0x00000004
    LDAP = 0x00000008
    DS = 0x00000010
    KDC = 0x00000020
    TIMESERV = 0x00000040
    CLOSEST = 0x00000080
    WRITABLE = 0x00000100
    DS_8 = 0x00004000
    DS_9 = 0x00008000
    DS_10 = 0x00010000


class _Opcode(enum.IntEnum):
    """The operation codes of extended responses ([MS-ADTS] 6.3.1.3)."""

    LOGON_SAM_LOGON_RESPONSE_EX = 23
    LOGON_SAM_PAUSE_RESPONSE_EX = 24
    LOGON_SAM_USER_UNKNOWN_EX = 25


@frozen
class DomainControllerFacts:
    """The facts that a domain controller reports. Names are in its spelling, or "" if it reports none.

    `site` is the site of the controller, `client_site` the site of the sender, by the subnets in the
    directory.
    """

    flags: DomainControllerFlags
    domain_guid: uuid.UUID
    forest: str
    domain: str
    host: str
    netbios_domain: str
    netbios_host: str
    site: str
    client_site: str


@frozen
class PingAnswer:
    """An answer to the ping `message_id`.

    `facts` is None if the controller does not know the domain, or if its logon service is paused.
    """

    message_id: int
    facts: DomainControllerFacts | None


def encode_ping(message_id: int, domain: str) -> bytes:
    """Build the search for the facts about a DNS domain ([MS-ADTS] 6.3.3.1)."""
    conditions = _equals(b"DnsDomain", domain.encode()) + _equals(b"NtVer", NT_VERSION)
    search = (
        der.encode(_OCTET_STRING, b"")  # baseObject: the rootDSE
        + der.encode(_ENUMERATED, b"\0")  # scope: baseObject
        + der.encode(_ENUMERATED, b"\0")  # derefAliases: never
        + der.encode_integer(0)  # sizeLimit and timeLimit: none
        + der.encode_integer(0)
        + der.encode(_BOOLEAN, b"\0")  # typesOnly
        + der.encode(_FILTER_AND, conditions)
        + der.encode(_SEQUENCE, der.encode(_OCTET_STRING, _ATTRIBUTE))
    )
    return der.encode(_SEQUENCE, der.encode_integer(message_id) + der.encode(_SEARCH_REQUEST, search))


def _equals(attribute: bytes, value: bytes) -> bytes:
    return der.encode(
        _FILTER_EQUALITY, der.encode(_OCTET_STRING, attribute) + der.encode(_OCTET_STRING, value)
    )


def decode_ping_answer(datagram: bytes) -> PingAnswer:
    """Read the answer to a ping: an entry with one attribute and the end of the search, or the end alone.

    Raises:
        MalformedError: the datagram is no answer to a ping.
    """
    ids: set[int] = set()
    facts: DomainControllerFacts | None = None
    for message in _items(datagram, (0, len(datagram)), _SEQUENCE):
        identifier = _element(datagram, message, _INTEGER)
        ids.add(_message_id(datagram, identifier))
        rest = (identifier[1], message[1])
        if _tag(datagram, rest) != _SEARCH_RESULT_ENTRY:
            _element(datagram, rest, _SEARCH_RESULT_DONE)
            continue
        value = _netlogon_value(datagram, _element(datagram, rest, _SEARCH_RESULT_ENTRY))
        facts = facts if value is None else _decode_netlogon(value)
    if len(ids) != 1:
        raise MalformedError(f"LDAP ping: an answer with {len(ids)} message ids")
    return PingAnswer(message_id=ids.pop(), facts=facts)


def _message_id(data: bytes, span: Span) -> int:
    start, stop = span
    if not 1 <= stop - start <= 5:
        raise MalformedError(f"LDAP ping: a message id of {stop - start} bytes")
    return int.from_bytes(data[start:stop], "big", signed=True)


def _netlogon_value(data: bytes, entry: Span) -> bytes | None:
    """Return the value of the Netlogon attribute in a SearchResultEntry (objectName, then the attributes)."""
    name = _element(data, entry, _OCTET_STRING)
    attributes = _element(data, (name[1], entry[1]), _SEQUENCE)
    for attribute in _items(data, attributes, _SEQUENCE):
        kind = _element(data, attribute, _OCTET_STRING)
        if data[slice(*kind)].lower() != _ATTRIBUTE.lower():
            continue
        values = _element(data, (kind[1], attribute[1]), _SET)
        if values[0] == values[1]:
            return None
        return data[slice(*_element(data, values, _OCTET_STRING))]
    return None


def _items(data: bytes, span: Span, tag: int) -> Iterator[Span]:
    position, end = span
    for _ in range(MAX_ENTRIES):
        if position == end:
            return
        item = _element(data, (position, end), tag)
        yield item
        position = item[1]
    if position != end:
        raise MalformedError(f"LDAP ping: more than {MAX_ENTRIES} elements in a row")


def _tag(data: bytes, span: Span) -> int | None:
    return data[span[0]] if span[0] < span[1] else None


def _element(data: bytes, span: Span, tag: int) -> Span:
    """Read the header of the first element in `span`; return the span of its contents."""
    position, end = span
    if end - position < 2:
        raise MalformedError(f"LDAP ping: byte {position}: an element is missing or cut off")
    if data[position] != tag:
        raise MalformedError(
            f"LDAP ping: byte {position}: tag 0x{data[position]:02x} where 0x{tag:02x} belongs"
        )
    length = data[position + 1]
    start = position + 2
    if length > 0x7F:
        count = length & 0x7F
        if not 1 <= count <= 4 or start + count > end:
            raise MalformedError(f"LDAP ping: byte {position}: indefinite, oversized or cut-off length")
        length = int.from_bytes(data[start : start + count], "big")
        start += count
    if start + length > end:
        raise MalformedError(f"LDAP ping: byte {position}: an element exceeds the enclosing element")
    return start, start + length


def _decode_netlogon(value: bytes) -> DomainControllerFacts | None:
    """Read a NETLOGON_SAM_LOGON_RESPONSE_EX. Return None if the logon service is paused."""
    if len(value) < _HEAD.size + _TAIL.size:
        raise MalformedError(f"Netlogon: {len(value)} bytes are too few")
    opcode, _, flags, guid = _HEAD.unpack_from(value)
    if opcode not in set(_Opcode):
        raise MalformedError(f"Netlogon: operation code {opcode} is no extended response")
    end = len(value) - _TAIL.size
    _, *tokens = _TAIL.unpack_from(value, end)
    if tokens != [_TOKEN, _TOKEN]:
        raise MalformedError("Netlogon: the end of the response is invalid")
    names = []
    position = _HEAD.size
    # Forest, domain, host, NetBIOS domain and computer, user, the controller's site, the client's site.
    for _ in range(8):
        name, position = _read_name(value, position, end)
        names.append(name)
    # Addresses and the next closest site follow only if the ping requests them.
    if opcode == _Opcode.LOGON_SAM_PAUSE_RESPONSE_EX:
        return None
    forest, domain, host, netbios_domain, netbios_host, _, site, client_site = names
    return DomainControllerFacts(
        flags=DomainControllerFlags(flags),
        domain_guid=uuid.UUID(bytes_le=guid),
        forest=forest,
        domain=domain,
        host=host,
        netbios_domain=netbios_domain,
        netbios_host=netbios_host,
        site=site,
        client_site=client_site,
    )


def _read_name(value: bytes, position: int, end: int) -> tuple[str, int]:
    """Read a name compressed as in RFC 1035 4.1.4. Return the name and the position after it.

    A pointer must lead to a position before the labels that it continues: names are written in order
    ([MS-ADTS] 6.3.7), so a chain of pointers cannot be a loop.
    """
    labels: list[str] = []
    total = 0
    after: int | None = None
    limit = position
    while True:
        if position >= end or total > MAX_NAME_BYTES:
            raise MalformedError(f"Netlogon: byte {position}: a name is cut off, or too long")
        length = value[position]
        if not length:
            return ".".join(labels), position + 1 if after is None else after
        if length > MAX_LABEL_BYTES:
            target = _pointer_target(value, position, end, limit)
            after = position + 2 if after is None else after
            position = limit = target
            total += 2
            continue
        total += length + 1
        label = value[position + 1 : position + 1 + length]
        if position + 1 + length > end:
            raise MalformedError(f"Netlogon: byte {position}: a label is cut off")
        labels.append(_text(label))
        position += 1 + length


def _pointer_target(value: bytes, position: int, end: int, limit: int) -> int:
    if value[position] < 0xC0 or position + 1 >= end:
        raise MalformedError(f"Netlogon: byte {position}: neither a label nor a pointer")
    target = (value[position] & 0x3F) << 8 | value[position + 1]
    if not _HEAD.size <= target < limit:
        raise MalformedError(
            f"Netlogon: byte {position}: a pointer to byte {target} does not lead back to a name"
        )
    return target


def _text(label: bytes) -> str:
    try:
        return label.decode()
    except UnicodeDecodeError:
        raise MalformedError("Netlogon: a label that isn't UTF-8") from None
