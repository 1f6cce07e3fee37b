"""Builds messages of RFC 4120, RFC 3244 and [MS-KKDCP], encoded by pyasn1.

Fields that a test does not set have the value that an MIT client or KDC sends. Messages are payloads without
the 4-byte length; `envelope` and `prefixed` add the length.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from tests.support import kerberos_asn1 as asn1

__all__ = [
    "ETYPES",
    "REALM",
    "Name",
    "ap_rep",
    "ap_req",
    "as_rep",
    "as_req",
    "envelope",
    "kpasswd_error",
    "kpasswd_frame",
    "kpasswd_rep",
    "kpasswd_req",
    "krb_error",
    "krb_priv",
    "prefixed",
    "tgs_rep",
    "tgs_req",
]

REALM = "EXAMPLE.COM"
ETYPES = (18, 17, 20, 19, 16, 23, 25, 26)

FORWARDABLE = b"\x40\x00\x00\x00"
NO_OPTIONS = b"\x00\x00\x00\x00"

PA_TGS_REQ = 1
PA_ENC_TIMESTAMP = 2
PA_FX_COOKIE = 133
PA_FX_FAST = 136
PA_REQ_ENC_PA_REP = 149
PA_AS_FRESHNESS = 150

NT_PRINCIPAL = 1
NT_SRV_INST = 2

AES256 = 18

Name = tuple[int, Sequence[str]]
"""A PrincipalName: its type and components."""

PaData = tuple[int, bytes]
HostAddress = tuple[int, bytes]


def prefixed(payload: bytes) -> bytes:
    """Return the message with its length, as TCP carries it (RFC 4120 7.2.2)."""
    return len(payload).to_bytes(4, "big") + payload


def envelope(
    payload: bytes,
    realm: str | None = REALM,
    *,
    hint: int | None = None,
    has_prefix: bool = True,
    realm_type: str = "general",
) -> bytes:
    """Build a KDC-PROXY-MESSAGE. `realm_type` is general, utf8 or ia5. Old Apple clients send no prefix."""
    message = asn1.KDC_PROXY_MESSAGE.clone()
    message["kerb-message"] = prefixed(payload) if has_prefix else payload
    if realm is not None:
        message["target-domain"][realm_type] = _encoded(realm)
    if hint is not None:
        message["dclocator-hint"] = hint
    return asn1.encode(message)


def as_req(*, padata: Sequence[PaData] = ((PA_REQ_ENC_PA_REP, b""),), **body: Any) -> bytes:
    """Build an AS-REQ, by default without preauthentication; `body` is as in `_fill_body`."""
    return _kdc_req(asn1.AS_REQ, padata, body)


def tgs_req(
    *,
    realm: str = REALM,
    cname: Name | None = None,
    sname: Name | None = (NT_PRINCIPAL, ("HTTP", "www.example.com")),
    ticket: bytes | None = None,
    padata: Sequence[PaData] = (),
    **body: Any,
) -> bytes:
    """Build a TGS-REQ; `ticket` is the AP-REQ in its PA-TGS-REQ, `padata` follows it."""
    proof = ap_req(realm=realm, sname=(NT_SRV_INST, ("krbtgt", realm))) if ticket is None else ticket
    body = {"realm": realm, "cname": cname, "sname": sname, **body}
    return _kdc_req(asn1.TGS_REQ, [(PA_TGS_REQ, proof), *padata], body)


def _kdc_req(schema: Any, padata: Sequence[PaData], body: dict[str, Any]) -> bytes:
    request = _begin(schema, msg_type=10 if schema is asn1.AS_REQ else 12)
    _fill_padata(request, padata)
    _fill_body(request["req-body"], **body)
    return asn1.encode(request)


def _fill_body(
    field: Any,
    *,
    realm: str = REALM,
    cname: Name | None = (NT_PRINCIPAL, ("alice",)),
    sname: Name | str | None = "krbtgt",
    options: bytes = FORWARDABLE,
    start: str | None = None,
    till: str = "20370919071450Z",
    renew: str | None = None,
    nonce: int = 0x11C863B5,
    etypes: Iterable[int] = ETYPES,
    addresses: Sequence[HostAddress] | None = None,
    authorization: bytes | None = None,
    tickets: Sequence[Name] | None = None,
) -> None:
    """Fill a KDC-REQ-BODY; `tickets` are additional tickets, each for a service of the realm."""
    field["kdc-options"] = _flags(field["kdc-options"], options)
    field["realm"] = _encoded(realm)
    _fill_optional_name(field, "cname", cname)
    _fill_optional_name(field, "sname", (NT_SRV_INST, ("krbtgt", realm)) if isinstance(sname, str) else sname)
    for name, time in (("from", start), ("till", till), ("rtime", renew)):
        if time is not None:
            field[name] = time
    field["nonce"] = nonce
    field["etype"].extend(etypes)
    for index, (address_type, address) in enumerate(addresses or ()):
        field["addresses"][index]["addr-type"] = address_type
        field["addresses"][index]["address"] = address
    if authorization is not None:
        _fill_encrypted(field["enc-authorization-data"], authorization)
    for index, service in enumerate(tickets or ()):
        _fill_ticket(field["additional-tickets"][index], realm, service)


TICKET_CIPHER = bytes(range(230))


def ap_req(
    *,
    realm: str = REALM,
    sname: Name = (NT_PRINCIPAL, ("kadmin", "changepw")),
    cipher: bytes = TICKET_CIPHER,
) -> bytes:
    """Build an AP-REQ with a ticket for `sname`."""
    request = _begin(asn1.AP_REQ, msg_type=14)
    request["ap-options"] = _flags(request["ap-options"], NO_OPTIONS)
    _fill_ticket(request["ticket"], realm, sname, cipher)
    _fill_encrypted(request["authenticator"], bytes(range(160)))
    return asn1.encode(request)


def ap_rep() -> bytes:
    """Build an AP-REP."""
    reply = _begin(asn1.AP_REP, msg_type=15)
    _fill_encrypted(reply["enc-part"], bytes(range(60)))
    return asn1.encode(reply)


def krb_priv() -> bytes:
    """Build a KRB-PRIV."""
    message = _begin(asn1.KRB_PRIV, msg_type=21)
    _fill_encrypted(message["enc-part"], bytes(range(56)))
    return asn1.encode(message)


def kpasswd_frame(first: bytes, second: bytes, *, version: int = 1, length_error: int = 0) -> bytes:
    """Build RFC 3244's frame around two messages; `length_error` is added to the length."""
    length = 6 + len(first) + len(second) + length_error
    return b"".join(number.to_bytes(2, "big") for number in (length, version, len(first))) + first + second


def kpasswd_req(*, version: int = 1, realm: str = REALM, **ticket: Any) -> bytes:
    """Build a kpasswd request. MIT sends version 1, RFC 3244 and Heimdal have version 0xff80."""
    return kpasswd_frame(ap_req(realm=realm, **ticket), krb_priv(), version=version)


def kpasswd_rep(*, version: int = 1) -> bytes:
    """Build a kpasswd reply; its result is encrypted."""
    return kpasswd_frame(ap_rep(), krb_priv(), version=version)


def kpasswd_error(code: int = 60, *, version: int = 1, **fields: Any) -> bytes:
    """Build a kpasswd server's KRB-ERROR in its frame, without an AP-REP."""
    return kpasswd_frame(b"", krb_error(code, **fields), version=version)


def as_rep(
    *,
    realm: str = REALM,
    cname: Name = (NT_PRINCIPAL, ("alice",)),
    sname: Name | None = None,
    srealm: str | None = None,
    padata: Sequence[PaData] = (),
    cipher: bytes = TICKET_CIPHER,
) -> bytes:
    """Build an AS-REP; the ticket is for `sname`, by default the krbtgt, in the realm `srealm`."""
    ticket = srealm or realm, sname or (NT_SRV_INST, ("krbtgt", realm)), cipher
    return _kdc_rep(asn1.AS_REP, 11, client=(realm, cname), ticket=ticket, padata=padata)


def tgs_rep(
    *,
    realm: str = REALM,
    cname: Name = (NT_PRINCIPAL, ("alice",)),
    sname: Name = (NT_PRINCIPAL, ("HTTP", "www.example.com")),
    srealm: str | None = None,
    padata: Sequence[PaData] = (),
    cipher: bytes = TICKET_CIPHER,
) -> bytes:
    """Build a TGS-REP; `srealm` is the realm of the ticket and the KDC, `realm` is the client's."""
    ticket = srealm or realm, sname, cipher
    return _kdc_rep(asn1.TGS_REP, 13, client=(realm, cname), ticket=ticket, padata=padata)


def _kdc_rep(
    schema: Any,
    msg_type: int,
    *,
    client: tuple[str, Name],
    ticket: tuple[str, Name, bytes],
    padata: Sequence[PaData],
) -> bytes:
    reply = _begin(schema, msg_type=msg_type)
    _fill_padata(reply, padata)
    reply["crealm"] = _encoded(client[0])
    _fill_name(reply["cname"], client[1])
    _fill_ticket(reply["ticket"], *ticket)
    _fill_encrypted(reply["enc-part"], bytes(range(200)))
    return asn1.encode(reply)


def krb_error(
    code: int,
    *,
    realm: str = REALM,
    crealm: str | None = None,
    cname: Name | None = None,
    sname: Name | None = None,
    text: str | None = None,
    data: bytes | None = None,
) -> bytes:
    """Build a KRB-ERROR."""
    error = _begin(asn1.KRB_ERROR, msg_type=30)
    error["stime"] = "20260101120000Z"
    error["susec"] = 123456
    error["error-code"] = code
    if crealm is not None:
        error["crealm"] = _encoded(crealm)
    _fill_optional_name(error, "cname", cname)
    error["realm"] = _encoded(realm)
    _fill_name(error["sname"], sname or (NT_SRV_INST, ("krbtgt", realm)))
    if text is not None:
        error["e-text"] = _encoded(text)
    if data is not None:
        error["e-data"] = data
    return asn1.encode(error)


def _begin(schema: Any, *, msg_type: int) -> Any:
    message = schema.clone()
    message["pvno"] = 5
    message["msg-type"] = msg_type
    return message


def _fill_padata(message: Any, padata: Sequence[PaData]) -> None:
    for index, (padata_type, value) in enumerate(padata):
        message["padata"][index]["padata-type"] = padata_type
        message["padata"][index]["padata-value"] = value


def _fill_optional_name(message: Any, field: str, name: Name | None) -> None:
    if name is not None:
        _fill_name(message[field], name)


def _fill_name(field: Any, name: Name) -> None:
    field["name-type"] = name[0]
    field["name-string"].extend([_encoded(component) for component in name[1]])


def _fill_ticket(field: Any, realm: str, sname: Name, cipher: bytes = TICKET_CIPHER) -> None:
    field["tkt-vno"] = 5
    field["realm"] = _encoded(realm)
    _fill_name(field["sname"], sname)
    _fill_encrypted(field["enc-part"], cipher, kvno=1)


def _fill_encrypted(field: Any, cipher: bytes, *, kvno: int | None = None) -> None:
    field["etype"] = AES256
    if kvno is not None:
        field["kvno"] = kvno
    field["cipher"] = cipher


def _flags(schema: Any, data: bytes) -> Any:
    return schema.clone(binValue="".join(map("{:08b}".format, data)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
