"""Classifies requests and inspects replies. It decides nothing about them."""

from zlib import crc32

from kkdcpd.errors import MalformedError, NoTargetDomainError
from kkdcpd.protocol import kerberos, kpasswd
from kkdcpd.protocol.framing import PREFIX_BYTES
from kkdcpd.values import KdcService, MessageKind, ProxyMessage, ProxyRequest, ReplyFacts

__all__ = ["classify", "classify_bare", "inspect_reply", "is_reply_to_another_kind"]

_FITTING_REPLIES = {
    MessageKind.AS_REQ: (MessageKind.AS_REP, MessageKind.KRB_ERROR),
    MessageKind.TGS_REQ: (MessageKind.TGS_REP, MessageKind.KRB_ERROR),
    MessageKind.KPASSWD_REQ: (MessageKind.KPASSWD_REP, MessageKind.KRB_ERROR),
}


_TAGS_OF_OTHERS = {MessageKind.AS_REQ: b"\x6d", MessageKind.TGS_REQ: b"\x6b"}
"""The first byte of a TGS-REP, which never answers an AS-REQ, and of an AS-REP (RFC 4120 5.10)."""


def is_reply_to_another_kind(request: MessageKind, payload: bytes) -> bool:
    """Whether the payload is a reply that never answers this kind of request."""
    return payload[:1] == _TAGS_OF_OTHERS.get(request)


def classify(message: ProxyMessage) -> ProxyRequest:
    """Check that a client's message is a well-formed request, and return its facts ([MS-KKDCP] 3.2.5.1).

    Raises:
        MalformedError: the kerb-message is no AS-REQ, TGS-REQ or kpasswd request.
        NoTargetDomainError: the request is well formed, but has no target-domain.
    """
    request = _classify(message.kerb_message, message.target_domain, message.dclocator_hint)
    if not message.target_domain:
        raise NoTargetDomainError("no target-domain")
    return request


def classify_bare(kerb_message: bytes) -> ProxyRequest:
    """Check a message that came without an envelope. Its target domain is the realm in the message.

    Raises:
        MalformedError: the message is no AS-REQ, TGS-REQ or kpasswd request.
    """
    return _classify(kerb_message, None, None)


def _classify(data: bytes, target_domain: str | None, hint: int | None) -> ProxyRequest:
    span = PREFIX_BYTES, len(data)
    if kpasswd.is_kpasswd(data, span):
        change = kpasswd.read_kpasswd_req(data, span)
        return ProxyRequest(
            kind=MessageKind.KPASSWD_REQ,
            service=KdcService.KPASSWD,
            target_domain=target_domain or change.realm,
            realm=change.realm,
            kerb_message=data,
            affinity=change.ticket_affinity,
            dclocator_hint=hint,
            sname=change.sname,
            kpasswd_version=change.version,
        )
    request = kerberos.read_kdc_req(data, span)
    return ProxyRequest(
        kind=request.kind,
        service=KdcService.KDC,
        target_domain=target_domain or request.realm,
        realm=request.realm,
        kerb_message=data,
        affinity=_affinity(request),
        dclocator_hint=hint,
        cname=request.cname,
        sname=request.sname,
        etypes=request.etypes,
        padata_types=request.padata_types,
        kdc_options=request.options,
        additional_tickets=request.additional_tickets,
        is_armored=request.is_armored,
        ticket_sname=request.ticket.sname if request.ticket else None,
    )


def _affinity(request: kerberos.KdcReq) -> int:
    """Return a number that is equal for all requests with one ticket, or of one user in AS-REQs."""
    if request.ticket:
        return request.ticket.mark
    return crc32(f"{request.cname}@{request.realm}".lower().encode(errors="replace"))


def inspect_reply(request: MessageKind, payload: bytes) -> ReplyFacts:
    """Check that a payload can be the reply to this kind of request, and return its facts in clear.

    The reply to a kpasswd request is a framed reply or a bare KRB-ERROR.

    Raises:
        MalformedError: it is no reply, or a reply to another kind of request.
    """
    span = 0, len(payload)
    is_framed = request is MessageKind.KPASSWD_REQ and kpasswd.is_kpasswd(payload, span)
    facts = kpasswd.read_kpasswd_reply(payload, span) if is_framed else kerberos.read_reply(payload, span)
    if facts.kind not in _FITTING_REPLIES[request]:
        raise MalformedError(f"an {facts.kind.value} in reply to an {request.value}")
    return facts
