"""Reads and builds the frame around AP-REQ and KRB-PRIV of a password change (RFC 3244 section 2).

Both messages begin with a length and a version of two bytes each and the length of the AP-REQ or AP-REP.
"""

import struct
from dataclasses import replace

from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import der, kerberos
from kkdcpd.protocol.der import Span
from kkdcpd.values import MessageKind, PrincipalName, ReplyFacts

__all__ = [
    "SET_VERSION",
    "KpasswdReq",
    "encode_kpasswd_error",
    "encode_kpasswd_req",
    "is_kpasswd",
    "read_kpasswd_reply",
    "read_kpasswd_req",
]

CHANGE_VERSION = 0x0001
"""The user's own change (draft-ietf-cat-kerb-chg-password-02); replies to both versions have it."""

SET_VERSION = 0xFF80
"""The set-or-change request of RFC 3244. Heimdal sends it for plain changes too."""

_HEADER = struct.Struct(">HHH")


@frozen
class KpasswdReq:
    """The facts of a kpasswd request in clear: its version, and the realm, service and mark of its ticket."""

    version: int
    realm: str
    sname: PrincipalName
    ticket_affinity: int


def is_kpasswd(data: bytes, span: Span) -> bool:
    """Whether `span` begins as a kpasswd message of exactly this length and a known version.

    No AS-REQ or TGS-REQ does, though its first byte could pass for a length: its DER length would have to be
    a version.
    """
    start, stop = span
    if stop - start < _HEADER.size:
        return False
    length, version, _ = _HEADER.unpack_from(data, start)
    return length == stop - start and version in (CHANGE_VERSION, SET_VERSION)


def read_kpasswd_req(data: bytes, span: Span) -> KpasswdReq:
    """Read a request: AP-REQ, then KRB-PRIV, with lengths that agree.

    Raises:
        MalformedError: the request has another form.
    """
    version, first, second = _split(data, span)
    ticket = kerberos.read_ap_req(data, first)
    kerberos.read_krb_priv(data, second)
    return KpasswdReq(version=version, realm=ticket.realm, sname=ticket.sname, ticket_affinity=ticket.mark)


def read_kpasswd_reply(data: bytes, span: Span) -> ReplyFacts:
    """Read a framed reply: AP-REP and KRB-PRIV, or (AP-REP length 0) a KRB-ERROR.

    Raises:
        MalformedError: it is neither.
    """
    _, first, second = _split(data, span)
    if first[0] != first[1]:
        ap_rep = der.read_element(data, *first, kerberos.AP_REP_TAG)
        krb_priv = der.read_element(data, *second, kerberos.KRB_PRIV_TAG)
        if ap_rep[1] != first[1] or krb_priv[1] != second[1]:
            raise MalformedError("a kpasswd reply with lengths that don't agree")
        return ReplyFacts(kind=MessageKind.KPASSWD_REP)
    facts = kerberos.read_reply(data, second)
    if facts.kind is not MessageKind.KRB_ERROR:
        raise MalformedError(f"a kpasswd reply that holds an {facts.kind.value}")
    return replace(facts, kind=MessageKind.KPASSWD_REP)


def encode_kpasswd_req(ap_req: bytes, krb_priv: bytes) -> bytes:
    """Build the request around an AP-REQ and a KRB-PRIV."""
    header = _HEADER.pack(_HEADER.size + len(ap_req) + len(krb_priv), CHANGE_VERSION, len(ap_req))
    return header + ap_req + krb_priv


def encode_kpasswd_error(krb_error: bytes) -> bytes:
    """Build the framed reply with a KRB-ERROR and without an AP-REP."""
    return _HEADER.pack(_HEADER.size + len(krb_error), CHANGE_VERSION, 0) + krb_error


def _split(data: bytes, span: Span) -> tuple[int, Span, Span]:
    """Return the version, the span of the AP-REQ or AP-REP, and the span of the rest."""
    if not is_kpasswd(data, span):
        raise MalformedError("a kpasswd message with a wrong length or version")
    start, stop = span
    _, version, first_bytes = _HEADER.unpack_from(data, start)
    start += _HEADER.size
    if first_bytes > stop - start:
        raise MalformedError("a kpasswd message with lengths that don't agree")
    return version, (start, start + first_bytes), (start + first_bytes, stop)
