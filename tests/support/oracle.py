"""Reads messages with pyasn1 into the classes of kkdcpd.values, for comparison."""

import re
from typing import Any

from kkdcpd.values import KdcService, MessageKind, PrincipalName, ProxyMessage, ProxyRequest, ReplyFacts
from tests.support import kerberos_asn1 as asn1
from tests.support.kerberos_asn1 import NotDerError

__all__ = ["NotDerError", "proxy_message", "proxy_request", "reply"]

KPASSWD_VERSIONS = (1, 0xFF80)


def proxy_message(body: bytes) -> ProxyMessage:
    """Decode a KDC-PROXY-MESSAGE, and add the length to a kerb-message without one.

    Raises:
        NotDerError: the data is not DER of such a message.
    """
    value = asn1.decode(body, asn1.KDC_PROXY_MESSAGE)
    kerb_message = bytes(value["kerb-message"])
    length = len(kerb_message) - 4
    has_prefix = length > 0 and kerb_message[:4] == length.to_bytes(4, "big")
    domain, hint = value["target-domain"], value["dclocator-hint"]
    return ProxyMessage(
        kerb_message=kerb_message if has_prefix else (length + 4).to_bytes(4, "big") + kerb_message,
        target_domain=_text(domain.getComponent()) if domain.isValue else None,
        dclocator_hint=int(hint) if hint.isValue else None,
        has_length_prefix=has_prefix,
    )


def proxy_request(message: ProxyMessage) -> ProxyRequest:
    """Decode the request in the message, with all messages in the request.

    Raises:
        NotDerError: the data is not DER of such a message.
    """
    payload = message.kerb_message[4:]
    common: dict[str, Any] = {
        "target_domain": message.target_domain,
        "kerb_message": message.kerb_message,
        "dclocator_hint": message.dclocator_hint,
    }
    if _is_kpasswd(payload):
        return ProxyRequest(**common, **_kpasswd(payload))
    return ProxyRequest(**common, **_kdc_req(payload))


def _kdc_req(payload: bytes) -> dict[str, Any]:
    is_tgs = payload[:1] == b"\x6c"
    request = asn1.decode(payload, asn1.TGS_REQ if is_tgs else asn1.AS_REQ)
    padata = [(int(item["padata-type"]), bytes(item["padata-value"])) for item in _items(request["padata"])]
    proofs = [value for number, value in padata if number == 1]
    if is_tgs and len(proofs) != 1:
        raise NotDerError("a TGS-REQ has one PA-TGS-REQ")
    ticket = asn1.decode(proofs[0], asn1.AP_REQ)["ticket"] if is_tgs else None
    body = request["req-body"]
    for field in ("from", "till", "rtime"):
        if body[field].isValue and not re.fullmatch(r"[0-9]{14}Z", str(body[field])):
            raise NotDerError(f"{field} isn't a KerberosTime")
    return {
        "kind": MessageKind.TGS_REQ if is_tgs else MessageKind.AS_REQ,
        "service": KdcService.KDC,
        "realm": _text(body["realm"]),
        "cname": _name(body["cname"]),
        "sname": _name(body["sname"]),
        "etypes": tuple(map(int, body["etype"])),
        "padata_types": tuple(number for number, _ in padata),
        "kdc_options": int(body["kdc-options"].asBinary()[:32].ljust(32, "0"), 2),
        "additional_tickets": len(_items(body["additional-tickets"])),
        "is_armored": any(number == 136 for number, _ in padata),
        "ticket_sname": _name(ticket["sname"]) if ticket is not None else None,
    }


def _is_kpasswd(payload: bytes) -> bool:
    length, version = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
    return len(payload) >= 6 and length == len(payload) and version in KPASSWD_VERSIONS


def _kpasswd(payload: bytes) -> dict[str, Any]:
    middle = 6 + int.from_bytes(payload[4:6], "big")
    ticket = asn1.decode(payload[6:middle], asn1.AP_REQ)["ticket"]
    asn1.decode(payload[middle:], asn1.KRB_PRIV)
    return {
        "kind": MessageKind.KPASSWD_REQ,
        "service": KdcService.KPASSWD,
        "realm": _text(ticket["realm"]),
        "sname": _name(ticket["sname"]),
        "kpasswd_version": int.from_bytes(payload[2:4], "big"),
    }


def reply(payload: bytes) -> ReplyFacts:
    """Decode a reply that has exactly the fields of its specification.

    Raises:
        NotDerError: the data is not DER of such a message.
    """
    if _is_kpasswd(payload):
        return _kpasswd_reply(payload)
    if payload[:1] == b"\x7e":
        error = asn1.decode(payload, asn1.KRB_ERROR)
        return ReplyFacts(
            kind=MessageKind.KRB_ERROR,
            error_code=int(error["error-code"]),
            crealm=_text(error["crealm"]) if error["crealm"].isValue else None,
            cname=_name(error["cname"]),
            sname=_name(error["sname"]),
        )
    is_tgs = payload[:1] == b"\x6d"
    answer = asn1.decode(payload, asn1.TGS_REP if is_tgs else asn1.AS_REP)
    return ReplyFacts(
        kind=MessageKind.TGS_REP if is_tgs else MessageKind.AS_REP,
        crealm=_text(answer["crealm"]),
        cname=_name(answer["cname"]),
        srealm=_text(answer["ticket"]["realm"]),
        sname=_name(answer["ticket"]["sname"]),
        padata_types=tuple(int(item["padata-type"]) for item in _items(answer["padata"])),
    )


def _kpasswd_reply(payload: bytes) -> ReplyFacts:
    middle = 6 + int.from_bytes(payload[4:6], "big")
    if middle > 6:
        asn1.decode(payload[6:middle], asn1.AP_REP)
        asn1.decode(payload[middle:], asn1.KRB_PRIV)
        return ReplyFacts(kind=MessageKind.KPASSWD_REP)
    facts = reply(payload[6:])
    if facts.kind is not MessageKind.KRB_ERROR:
        raise NotDerError("neither an AP-REP nor a KRB-ERROR")
    return ReplyFacts(
        kind=MessageKind.KPASSWD_REP,
        error_code=facts.error_code,
        crealm=facts.crealm,
        cname=facts.cname,
        sname=facts.sname,
    )


def _items(field: Any) -> Any:
    return field if field.isValue else ()


def _name(field: Any) -> PrincipalName | None:
    if not field.isValue:
        return None
    return PrincipalName(
        name_type=int(field["name-type"]), components=tuple(_text(item) for item in field["name-string"])
    )


def _text(field: Any) -> str:
    return bytes(field).decode("utf-8", "surrogateescape")
