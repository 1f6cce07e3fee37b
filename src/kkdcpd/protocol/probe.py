"""Builds probes, the requests that test whether a server works, and judges the answers.

For a KDC it is an AS-REQ (RFC 4120 5.4.1), for a password server a request with a ticket that is none.

Not hot, but built by hand: what the reader has tables for takes a dozen lines, and no schema.
"""

from kkdcpd.errors import MalformedError
from kkdcpd.protocol import der, framing, kerberos, kpasswd, messages
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.values import FailureReason, KdcService, MessageKind, ProxyRequest

__all__ = ["ENTRA_REALM", "build_empty_probe", "build_kpasswd_probe", "build_probe", "judge_probe"]

ENTRA_REALM = "KERBEROS.MICROSOFTONLINE.COM"
"""The realm of Entra Kerberos, for every tenant. It has no AS exchange."""

NT_PRINCIPAL = 1
NT_SRV_INST = 2
ETYPES = (18, 17, 20, 19)
"""AES with SHA-1 and with SHA-2 (RFC 3962, RFC 8009). Every KDC since 2008 has one of them."""

LONG_AGO = b"19700102000000Z"
"""The end time of the requested ticket, so that the ticket is of no use. MIT's KDC issues it all the same."""


def build_probe(realm: str, principal: str, *, nonce: int = 1) -> ProxyRequest:
    """Build the request to the realm's KDC; `principal` is without realm, `krbtgt` means the realm's own.

    Each probe of a KDC needs a new nonce, because MIT's KDC has a reply cache of two minutes.
    """
    krbtgt = _principal(NT_SRV_INST, ["krbtgt", realm])
    cname = krbtgt if principal == "krbtgt" else _principal(NT_PRINCIPAL, principal.split("/"))
    etypes = b"".join(map(der.encode_integer, ETYPES))
    body = _sequence(
        {
            0: der.encode(der.BIT_STRING[0], bytes(5)),
            1: cname,
            2: _string(realm),
            3: krbtgt,
            5: der.encode(der.GENERALIZED_TIME[0], LONG_AGO),
            7: der.encode_integer(nonce),
            8: der.encode(der.SEQUENCE[0], etypes),
        }
    )
    request = _sequence({1: der.encode_integer(5), 2: der.encode_integer(10), 4: body})
    return ProxyRequest(
        kind=MessageKind.AS_REQ,
        service=KdcService.KDC,
        target_domain=realm,
        realm=realm,
        kerb_message=framing.add_prefix(der.encode(0x6A, request)),
    )


def build_empty_probe(realm: str) -> ProxyRequest:
    """Build the request without a message that Entra Kerberos answers with status 200."""
    return ProxyRequest(
        kind=MessageKind.TGS_REQ,
        service=KdcService.KDC,
        target_domain=realm,
        realm=realm,
        kerb_message=b"",
    )


def build_kpasswd_probe(realm: str) -> bytes:
    """Build a kpasswd request without a proof. The server answers that it cannot read the request."""
    encrypted = _sequence({0: der.encode_integer(ETYPES[0]), 2: der.encode(der.OCTET_STRING[0], bytes(64))})
    ticket = _sequence(
        {
            0: der.encode_integer(5),
            1: _string(realm),
            2: _principal(NT_PRINCIPAL, ["kadmin", "changepw"]),
            3: encrypted,
        }
    )
    ap_req = _sequence(
        {
            0: der.encode_integer(5),
            1: der.encode_integer(14),
            2: der.encode(der.BIT_STRING[0], bytes(5)),
            3: der.encode(kerberos.TICKET_TAG[0], ticket),
            4: encrypted,
        }
    )
    krb_priv = _sequence({0: der.encode_integer(5), 1: der.encode_integer(21), 3: encrypted})
    return kpasswd.encode_kpasswd_req(
        der.encode(kerberos.AP_REQ_TAG[0], ap_req), der.encode(kerberos.KRB_PRIV_TAG[0], krb_priv)
    )


def judge_probe(payload: bytes) -> FailureReason | None:
    """Return the problem that the answer to a probe shows, None if the KDC is healthy."""
    try:
        facts = messages.inspect_reply(MessageKind.AS_REQ, payload)
    except MalformedError:
        return FailureReason.BAD_REPLY
    if facts.error_code == KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE:
        return FailureReason.SERVICE_UNAVAILABLE
    return None


def _sequence(fields: dict[int, bytes]) -> bytes:
    contents = b"".join(der.encode_explicit(number, element) for number, element in fields.items())
    return der.encode(der.SEQUENCE[0], contents)


def _principal(name_type: int, components: list[str]) -> bytes:
    names = der.encode(der.SEQUENCE[0], b"".join(map(_string, components)))
    return _sequence({0: der.encode_integer(name_type), 1: names})


def _string(text: str) -> bytes:
    return der.encode(der.GENERAL_STRING[0], text.encode("utf-8", "surrogateescape"))
