"""Reads the parts of RFC 4120's messages that are visible without keys.

Requests are read strictly and whole, because only valid messages may be relayed ([MS-KKDCP] 5.1). Replies are
read less strictly: only their kind and the facts in clear. Their other parts are ignored.
"""

from collections.abc import Mapping
from typing import TypeVar
from zlib import crc32

from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import der
from kkdcpd.protocol.der import ABSENT, Field, Grammar, Span
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.values import MessageKind, PrincipalName, ReplyFacts

__all__ = [
    "AP_REP_TAG",
    "AP_REQ_TAG",
    "KRB_PRIV_TAG",
    "PA_FX_FAST",
    "TICKET_TAG",
    "KdcReq",
    "encode_fields",
    "encode_principal",
    "encode_text",
    "read_ap_req",
    "read_kdc_req",
    "read_krb_priv",
    "read_reply",
]

T = TypeVar("T")

TICKET_TAG = b"\x61"
AS_REQ_TAG = b"\x6a"
TGS_REQ_TAG = b"\x6c"
AP_REQ_TAG = b"\x6e"
AP_REP_TAG = b"\x6f"
KRB_PRIV_TAG = b"\x75"

PVNO = b"\x05"
PA_TGS_REQ = 1
PA_FX_FAST = 136
PA_SPAKE = 151

MAX_NAME_COMPONENTS = 16
"""Most names have one or two; a domain controller's for replication has three ([MS-DRSR] 2.2.3.2), and
Heimdal's WELLKNOWN/ORG.H5L.HOSTBASED-SERVICE/SERVICE/HOST four."""

MAX_NAME_BYTES = 4096
"""The limit for a realm, and for all components of a name.

Active Directory's longest name is a userPrincipalName of 1,024 characters ([MS-ADA3] 2.349), each of which
takes up to four bytes in UTF-8.
"""

MOST_KNOWN = 1024
LONGEST_KNOWN_BYTES = 128
"""The caches of names and of lists of encryption types have this many entries, and no entry is longer. They
take some hundred KiB."""

LONGEST_KNOWN_PADATA_BYTES = 64
"""First requests have shorter padata, which repeat. Padata with a proof are longer and not in the cache."""

MAX_ADDITIONAL_TICKETS = 4
"""Options use the additional tickets in their order (RFC 4120 5.4.1). Two options need a ticket:
enc-tkt-in-skey and cname-in-addl-tkt ([MS-SFU] 2.2.3). MIT's and Heimdal's KDCs look at the first only."""

TICKET_TAIL_BYTES = 64
"""A ticket ends with its ciphertext, and a ciphertext with a checksum over the session key (RFC 3961 5.3): so
the last bytes of two tickets differ."""
_SPAKE_TYPE = der.encode_explicit(1, der.encode_integer(PA_SPAKE))
"""The first field of a PA-DATA with SPAKE (RFC 4120 5.2.7)."""

_REQUESTS = {AS_REQ_TAG[0]: MessageKind.AS_REQ, TGS_REQ_TAG[0]: MessageKind.TGS_REQ}
_REPLIES = {0x6B: MessageKind.AS_REP, 0x6D: MessageKind.TGS_REP, 0x7E: MessageKind.KRB_ERROR}
_REPLY_TAGS = bytes(_REPLIES)

_KDC_REQ = Grammar(
    "KDC-REQ",
    Field(1, der.INTEGER),
    Field(2, der.INTEGER),
    Field(3, der.SEQUENCE, is_optional=True),
    Field(4, der.SEQUENCE),
)
_KDC_REQ_BODY = Grammar(
    "KDC-REQ-BODY",
    Field(0, der.BIT_STRING),
    Field(1, der.SEQUENCE, is_optional=True),
    Field(2, der.GENERAL_STRING),
    Field(3, der.SEQUENCE, is_optional=True),
    Field(4, der.GENERALIZED_TIME, is_optional=True),
    Field(5, der.GENERALIZED_TIME),
    Field(6, der.GENERALIZED_TIME, is_optional=True),
    Field(7, der.INTEGER),
    Field(8, der.SEQUENCE),
    Field(9, der.SEQUENCE, is_optional=True),
    Field(10, der.SEQUENCE, is_optional=True),
    Field(11, der.SEQUENCE, is_optional=True),
)
_PA_DATA = Grammar("PA-DATA", Field(1, der.INTEGER), Field(2, der.OCTET_STRING))
_PRINCIPAL_NAME = Grammar("PrincipalName", Field(0, der.INTEGER), Field(1, der.SEQUENCE))
_HOST_ADDRESS = Grammar("HostAddress", Field(0, der.INTEGER), Field(1, der.OCTET_STRING))
_ENCRYPTED_DATA = Grammar(
    "EncryptedData",
    Field(0, der.INTEGER),
    Field(1, der.INTEGER, is_optional=True),
    Field(2, der.OCTET_STRING),
)
_TICKET = Grammar(
    "Ticket",
    Field(0, der.INTEGER),
    Field(1, der.GENERAL_STRING),
    Field(2, der.SEQUENCE),
    Field(3, der.SEQUENCE),
)
_AP_REQ = Grammar(
    "AP-REQ",
    Field(0, der.INTEGER),
    Field(1, der.INTEGER),
    Field(2, der.BIT_STRING),
    Field(3, TICKET_TAG),
    Field(4, der.SEQUENCE),
)
_KRB_PRIV = Grammar("KRB-PRIV", Field(0, der.INTEGER), Field(1, der.INTEGER), Field(3, der.SEQUENCE))


@frozen
class KdcReq:
    """The facts of an AS-REQ or TGS-REQ in clear (RFC 4120 5.4.1)."""

    kind: MessageKind
    realm: str
    cname: PrincipalName | None
    sname: PrincipalName | None
    etypes: tuple[int, ...]
    padata_types: tuple[int, ...]
    options: int = 0
    additional_tickets: int = 0
    ticket: "TicketFacts | None" = None
    """The ticket in a TGS-REQ."""

    @property
    def is_armored(self) -> bool:
        """Whether FAST hides the real request (RFC 6113 5.4.2)."""
        return PA_FX_FAST in self.padata_types


@frozen
class TicketFacts:
    """The facts of a ticket in clear (RFC 4120 5.3).

    `mark` is equal for the same ticket in all messages, even if its other fields are encoded differently.
    """

    realm: str
    sname: PrincipalName
    mark: int


def read_kdc_req(data: bytes, span: Span) -> KdcReq:
    """Read an AS-REQ or TGS-REQ that fills `span`, every field of it (RFC 4120 5.4.1).

    Raises:
        MalformedError: it is neither, not DER, or against the specification's grammar.
    """
    sequence, tag = _open(data, span, AS_REQ_TAG + TGS_REQ_TAG)
    pvno, msg_type, padata, body = der.read_fields(data, sequence, _KDC_REQ)
    _check_header(data, pvno, msg_type, tag)
    ticket = None
    if tag == TGS_REQ_TAG[0]:
        padata_types, ticket = _read_tgs_padata(data, padata)
    else:
        padata_types = _read_padata(data, padata) if padata is not ABSENT else ()
    return _read_body(data, body, _REQUESTS[tag], padata_types, ticket)


def _open(data: bytes, span: Span, tags: bytes) -> tuple[Span, int]:
    """Open `[APPLICATION n] SEQUENCE` that fills `span`: the SEQUENCE's contents and the outer tag."""
    outer = der.read_element(data, *span, tags)
    sequence = der.read_element(data, *outer, der.SEQUENCE)
    if not span[1] == outer[1] == sequence[1]:
        raise MalformedError(f"bytes after the end of the message with tag 0x{data[span[0]]:02x}")
    return sequence, data[span[0]]


def _check_header(data: bytes, pvno: Span, msg_type: Span, tag: int) -> None:
    """Check that the protocol version is 5 and the message type the tag's number (RFC 4120 5.10)."""
    if data[pvno[0] : pvno[1]] != PVNO or data[msg_type[0] : msg_type[1]] != bytes((tag & 0x1F,)):
        raise MalformedError(f"pvno or msg-type doesn't fit the tag 0x{tag:02x}")


def _read_padata(data: bytes, span: Span) -> tuple[int, ...]:
    """Read the types of the padata."""
    encoded = data[span[0] : span[1]]
    types = _known_padata.get(encoded)
    if types is None:
        types = tuple([der.read_integer(data, number) for number, _value in _padata(data, span)])
        _keep(_known_padata, encoded, types, longest=LONGEST_KNOWN_PADATA_BYTES)
    return types


def _read_tgs_padata(data: bytes, span: Span) -> tuple[tuple[int, ...], TicketFacts]:
    """Read the types of the padata, and the ticket in PA-TGS-REQ (RFC 4120 5.2.7.1)."""
    types = []
    ticket = None
    for number, value in _padata(data, span) if span is not ABSENT else ():
        padata_type = der.read_integer(data, number)
        if padata_type == PA_TGS_REQ:
            if ticket is not None:  # KDCs use the first
                raise MalformedError("a TGS-REQ with more than one PA-TGS-REQ")
            ticket = read_ap_req(data, value)
        types.append(padata_type)
    if ticket is None:
        raise MalformedError("a TGS-REQ without PA-TGS-REQ")
    return tuple(types), ticket


def _padata(data: bytes, span: Span) -> list[list[Span]]:
    """Read each PA-DATA's type and value (RFC 4120 5.2.7)."""
    return [der.read_fields(data, item, _PA_DATA) for item in der.read_items(data, span, der.SEQUENCE)]


def _read_body(
    data: bytes, span: Span, kind: MessageKind, padata_types: tuple[int, ...], ticket: TicketFacts | None
) -> KdcReq:
    fields = der.read_fields(data, span, _KDC_REQ_BODY)
    options, cname, realm, sname, start, till, renew, nonce, etypes, addresses, authorization, tickets = (
        fields
    )
    flags = der.read_bit_string(data, options)
    for time in (start, till, renew):
        if time is not ABSENT:
            der.read_time(data, time)
    # An UInt32. RFC 1510 has no limits, and some clients write an Int32.
    der.read_integer(data, nonce, der.UINT32_BYTES)
    if addresses is not ABSENT:
        _check_addresses(data, addresses)
    if authorization is not ABSENT:
        _check_encrypted_data(data, authorization)
    additional = (
        der.read_items(data, tickets, TICKET_TAG, MAX_ADDITIONAL_TICKETS) if tickets is not ABSENT else ()
    )
    for item in additional:
        _read_ticket(data, item)
    return KdcReq(
        kind=kind,
        realm=_read_realm(data, realm),
        cname=_read_principal(data, cname) if cname is not ABSENT else None,
        sname=_read_principal(data, sname) if sname is not ABSENT else None,
        etypes=_read_etypes(data, etypes),
        padata_types=padata_types,
        # KerberosFlags have 32 bits or more, bit 0 first (RFC 4120 5.2.8). Some clients send fewer.
        options=int.from_bytes(flags[:4].ljust(4, b"\x00"), "big"),
        additional_tickets=len(additional),
        ticket=ticket,
    )


def _read_etypes(data: bytes, span: Span) -> tuple[int, ...]:
    """Read the encryption types. All clients of one kind send the same list, so a cache has it."""
    encoded = data[span[0] : span[1]]
    etypes = _known_etypes.get(encoded)
    if etypes is None:
        items = der.read_items(data, span, der.INTEGER)
        etypes = tuple([der.read_integer(data, item) for item in items])
        _keep(_known_etypes, encoded, etypes)
    return etypes


def _keep(known: dict[bytes, T], encoded: bytes, value: T, longest: int = LONGEST_KNOWN_BYTES) -> None:
    """Add a result to a cache."""
    if len(encoded) <= longest:
        if len(known) >= MOST_KNOWN:
            known.clear()
        known[encoded] = value


def _read_realm(data: bytes, span: Span) -> str:
    if span[1] - span[0] > MAX_NAME_BYTES:
        raise _too_long(span)
    return _text(data, span)


def _too_long(span: Span) -> MalformedError:
    return MalformedError(f"byte {span[0]}: a name of more than {MAX_NAME_BYTES} bytes")


def _text(data: bytes, span: Span) -> str:
    """Read a KerberosString. Implementations write UTF-8, despite RFC 4120 5.2.1. No byte is lost."""
    return data[span[0] : span[1]].decode("utf-8", "surrogateescape")


def _read_principal(data: bytes, span: Span) -> PrincipalName:
    """Read a PrincipalName. Most names repeat, so a cache has them."""
    encoded = data[span[0] : span[1]]
    name = _known_principals.get(encoded)
    if name is None:
        name = _read_new_principal(data, span)
        _keep(_known_principals, encoded, name)
    return name


def _read_new_principal(data: bytes, span: Span) -> PrincipalName:
    name_type, name_string = der.read_fields(data, span, _PRINCIPAL_NAME)
    if name_string[1] - name_string[0] > MAX_NAME_BYTES:
        raise _too_long(name_string)
    items = der.read_items(data, name_string, der.GENERAL_STRING, MAX_NAME_COMPONENTS)
    return PrincipalName(
        name_type=der.read_integer(data, name_type), components=tuple([_text(data, item) for item in items])
    )


def _check_addresses(data: bytes, span: Span) -> None:
    for item in der.read_items(data, span, der.SEQUENCE):
        address_type, _ = der.read_fields(data, item, _HOST_ADDRESS)
        der.read_integer(data, address_type)


def _check_encrypted_data(data: bytes, span: Span) -> None:
    etype, kvno, _ = der.read_fields(data, span, _ENCRYPTED_DATA)
    der.read_integer(data, etype)
    if kvno is not ABSENT:
        # An UInt32 (RFC 4120 5.2.9). Some implementations write an Int32.
        der.read_integer(data, kvno, der.UINT32_BYTES)


def _read_ticket(data: bytes, span: Span) -> TicketFacts:
    """Read a Ticket from inside its application tag."""
    sequence = der.read_element(data, *span, der.SEQUENCE)
    if sequence[1] != span[1]:
        raise MalformedError(f"byte {sequence[1]}: bytes after the end of a Ticket")
    version, realm, sname, encrypted = der.read_fields(data, sequence, _TICKET)
    if data[version[0] : version[1]] != PVNO:
        raise MalformedError(f"byte {version[0]}: a Ticket's tkt-vno that isn't 5")
    _check_encrypted_data(data, encrypted)
    tail = data[max(span[0], span[1] - TICKET_TAIL_BYTES) : span[1]]
    return TicketFacts(realm=_read_realm(data, realm), sname=_read_principal(data, sname), mark=crc32(tail))


def read_ap_req(data: bytes, span: Span) -> TicketFacts:
    """Read an AP-REQ that fills `span` and return the facts of its ticket (RFC 4120 5.5.1).

    Raises:
        MalformedError: it is none, not DER, or against the specification's grammar.
    """
    sequence, tag = _open(data, span, AP_REQ_TAG)
    pvno, msg_type, options, ticket, authenticator = der.read_fields(data, sequence, _AP_REQ)
    _check_header(data, pvno, msg_type, tag)
    der.read_bit_string(data, options)
    _check_encrypted_data(data, authenticator)
    return _read_ticket(data, ticket)


def read_krb_priv(data: bytes, span: Span) -> None:
    """Check a KRB-PRIV that fills `span`. Its contents are encrypted (RFC 4120 5.7.1).

    Raises:
        MalformedError: it is none, not DER, or against the specification's grammar.
    """
    sequence, tag = _open(data, span, KRB_PRIV_TAG)
    pvno, msg_type, encrypted = der.read_fields(data, sequence, _KRB_PRIV)
    _check_header(data, pvno, msg_type, tag)
    _check_encrypted_data(data, encrypted)


def read_reply(data: bytes, span: Span) -> ReplyFacts:
    """Read the facts of an AS-REP, TGS-REP or KRB-ERROR that fills `span` (RFC 4120 5.4.2, 5.9.1).

    Raises:
        MalformedError: it is none of them, its length is wrong, or a KRB-ERROR has no code.
    """
    sequence, tag = _open(data, span, _REPLY_TAGS)
    fields = der.scan_fields(data, sequence)
    if _REPLIES[tag] is MessageKind.KRB_ERROR:
        return _read_error(data, fields)
    ticket = _optional_ticket(data, fields)
    return ReplyFacts(
        kind=_REPLIES[tag],
        crealm=_optional_text(data, fields, 3),
        cname=_optional_principal(data, fields, 4),
        srealm=ticket.realm if ticket else None,
        sname=ticket.sname if ticket else None,
        ticket_affinity=ticket.mark if ticket else None,
        padata_types=_optional_padata_types(data, fields),
    )


_known_principals: dict[bytes, PrincipalName] = {}
_known_etypes: dict[bytes, tuple[int, ...]] = {}
_known_padata: dict[bytes, tuple[int, ...]] = {}

_Fields = dict[int, tuple[int, int, int]]


def _read_error(data: bytes, fields: _Fields) -> ReplyFacts:
    error_code = _error_code(data, fields)
    return ReplyFacts(
        kind=MessageKind.KRB_ERROR,
        error_code=error_code,
        crealm=_optional_text(data, fields, 7),
        cname=_optional_principal(data, fields, 8),
        sname=_optional_principal(data, fields, 10),
        offers_spake=error_code == KrbErrorCode.KDC_ERR_PREAUTH_REQUIRED and _offers_spake(data, fields),
    )


def _offers_spake(data: bytes, fields: _Fields) -> bool:
    """Whether the METHOD-DATA in e-data has a PA-DATA of this type (RFC 4120 5.9.1).

    A search takes a fiftieth of the time of reading. The bytes may also occur by chance.
    """
    _tag, start, stop = fields.get(12, (0, 0, 0))
    return data.find(_SPAKE_TYPE, start, stop) >= 0


def _error_code(data: bytes, fields: _Fields) -> int:
    tag, *span = fields.get(6, (0, 0, 0))
    if tag != der.INTEGER[0]:
        raise MalformedError("a KRB-ERROR without error-code")
    return der.read_integer(data, (span[0], span[1]))


def _optional_text(data: bytes, fields: _Fields, number: int) -> str | None:
    tag, start, stop = fields.get(number, (0, 0, 0))
    return _text(data, (start, stop)) if tag == der.GENERAL_STRING[0] else None


def _optional_principal(data: bytes, fields: _Fields, number: int) -> PrincipalName | None:
    tag, start, stop = fields.get(number, (0, 0, 0))
    if tag != der.SEQUENCE[0]:
        return None
    try:
        return _read_principal(data, (start, stop))
    except MalformedError:
        return None


def _optional_ticket(data: bytes, fields: _Fields) -> TicketFacts | None:
    tag, start, stop = fields.get(5, (0, 0, 0))
    if tag != TICKET_TAG[0]:
        return None
    try:
        return _read_ticket(data, (start, stop))
    except MalformedError:
        return None


def _optional_padata_types(data: bytes, fields: _Fields) -> tuple[int, ...]:
    tag, start, stop = fields.get(2, (0, 0, 0))
    if tag != der.SEQUENCE[0]:
        return ()
    try:
        return _read_padata(data, (start, stop))
    except MalformedError:
        return ()


def encode_fields(fields: Mapping[int, bytes]) -> bytes:
    """Build a SEQUENCE of explicitly tagged fields, in the given order."""
    contents = b"".join(der.encode_explicit(number, element) for number, element in fields.items())
    return der.encode(der.SEQUENCE[0], contents)


def encode_principal(name: PrincipalName) -> bytes:
    """Build a PrincipalName (RFC 4120 5.2.2)."""
    components = der.encode(der.SEQUENCE[0], b"".join(map(encode_text, name.components)))
    return encode_fields({0: der.encode_integer(name.name_type), 1: components})


def encode_text(text: str) -> bytes:
    """Build a KerberosString with the same bytes that `_text` read."""
    return der.encode(der.GENERAL_STRING[0], text.encode("utf-8", "surrogateescape"))
