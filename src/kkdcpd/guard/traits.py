"""Recognizes kinds of messages and names for the rules: machines, PKINIT, S4U, proofs. It does no I/O.

The numbers come from RFC 4120 7.5, the IANA registry of pre-authentication types and [MS-SFU].
"""

from kkdcpd.protocol.principals import is_anonymous
from kkdcpd.values import MessageKind, PrincipalName, ProxyRequest, ReplyFacts

__all__ = [
    "ANONYMOUS_REALM",
    "has_armor",
    "has_password_proof",
    "has_pkinit",
    "has_possible_proof",
    "has_strong_etype",
    "has_tgt",
    "hides_its_client",
    "is_krbtgt",
    "is_logon_service",
    "is_machine",
    "is_s4u2proxy",
    "is_s4u2self",
    "may_have_proof",
    "proves_client",
]

ANONYMOUS_REALM = "WELLKNOWN:ANONYMOUS"
"""RFC 8062 3. Outside of its armor, Heimdal names it in place of the realm that it means."""

_PASSWORD_PROOFS = frozenset(
    {
        2,  # PA-ENC-TIMESTAMP
        12,  # PA-SAM-CHALLENGE
        13,  # PA-SAM-RESPONSE
        30,  # PA-SAM-CHALLENGE2
        31,  # PA-SAM-RESPONSE2
        151,  # PA-SPAKE (RFC 9588)
    }
)
"""Proofs of a password in clear, and steps toward one. All others (138, 141 to 144) are used within FAST."""

_PKINIT_REQUESTS = frozenset({14, 15, 16})  # PA-PK-AS-REQ (RFC 4556), and its forms in drafts
_PROOFS = _PASSWORD_PROOFS | _PKINIT_REQUESTS
_PKINIT_REPLIES = frozenset({15, 17})  # PA-PK-AS-REP, in drafts and now
_ARMORED_REPLIES = _PKINIT_REPLIES | {136}  # PA-FX-FAST

_CHECKED_PROOFS = frozenset({2})  # PA-ENC-TIMESTAMP
"""Proofs in clear that the KDCs of MIT, Heimdal and Samba answer with an error when they are wrong, even if
the principal needs no preauthentication. MIT's KDC ignores all other proofs unless it is set up for them, and
issues the ticket: SPAKE and PKINIT too."""

_POSSIBLE_PROOFS = _CHECKED_PROOFS | {151}  # PA-SPAKE

_S4U_USERS = frozenset({129, 130})  # PA-FOR-USER, PA-S4U-X509-USER ([MS-SFU] 2.2.1, 2.2.2)
_CNAME_IN_ADDL_TKT = 1 << 31 - 14  # [MS-SFU] 2.2.3

_STRONG_ETYPES = frozenset(
    {
        17,  # aes128-cts-hmac-sha1-96 (RFC 3962)
        18,  # aes256-cts-hmac-sha1-96
        19,  # aes128-cts-hmac-sha256-128 (RFC 8009)
        20,  # aes256-cts-hmac-sha384-192
        25,  # camellia128-cts-cmac (RFC 6803)
        26,  # camellia256-cts-cmac
    }
)
"""The encryption types that RFC 6649 (DES) and RFC 8429 (3DES, RC4) leave. This is an allow-list, because
otherwise a made-up number beside RC4 would pass for a strong type."""


def is_krbtgt(name: PrincipalName) -> bool:
    """Whether its tickets are ticket-granting tickets, for this realm or on the way to another realm."""
    components = name.components
    return len(components) == 2 and components[0].lower() == "krbtgt"


def has_tgt(request: ProxyRequest) -> bool:
    """Whether a TGS-REQ has a ticket-granting ticket. Any client can make up a ticket for another service."""
    return request.ticket_sname is not None and is_krbtgt(request.ticket_sname)


def is_logon_service(sname: PrincipalName) -> bool:
    """Whether log-ons request tickets for this service: krbtgt or kadmin/changepw."""
    return is_krbtgt(sname) or tuple(map(str.lower, sname.components)) == ("kadmin", "changepw")


def is_machine(name: PrincipalName) -> bool:
    """Whether it is a computer's name: `host$`, `host/NAME`. Its key is random, and armor is made with it."""
    text = "/".join(name.components).lower()
    text = text.rpartition("@")[0] or text
    return text.startswith("host/") or (text.endswith("$") and "/" not in text)


def hides_its_client(request: ProxyRequest) -> bool:
    """Whether FAST hides the client, with the anonymous name outside of the armor (RFC 6113 5.4.2)."""
    return request.is_armored and request.cname is not None and is_anonymous(request.cname)


def has_password_proof(request: ProxyRequest) -> bool:
    """Whether the request has a proof of a password in clear, right or wrong."""
    return not _PASSWORD_PROOFS.isdisjoint(request.padata_types)


def may_have_proof(request: ProxyRequest) -> bool:
    """Whether the request can hold a proof, so that the KDC may count it as a failed log-on."""
    return request.is_armored or not _PROOFS.isdisjoint(request.padata_types)


def proves_client(request: ProxyRequest, facts: ReplyFacts) -> bool:
    """Whether an AS-REP and its request by themselves show that the client knew a secret.

    Either the KDC has checked a proof of a kind that it never ignores, or it answers PKINIT with PKINIT (RFC
    4556 3.2.3). FAST and SPAKE show nothing: they may hide a message without a proof.
    """
    types = request.padata_types
    if not (_CHECKED_PROOFS.isdisjoint(types) or request.is_armored):
        return True
    return not (_PKINIT_REQUESTS.isdisjoint(types) or _PKINIT_REPLIES.isdisjoint(facts.padata_types))


def has_possible_proof(request: ProxyRequest) -> bool:
    """Whether an AS-REP to the request may be due to a proof in clear. Some KDCs check SPAKE's proof."""
    return not _POSSIBLE_PROOFS.isdisjoint(request.padata_types)


def has_pkinit(request: ProxyRequest) -> bool:
    """Whether the client wants to log on by certificate or anonymously (RFC 4556, RFC 8062)."""
    return not _PKINIT_REQUESTS.isdisjoint(request.padata_types)


def has_armor(facts: ReplyFacts) -> bool:
    """Whether the KDC used the FAST or PKINIT of the request.

    Only then the reply has FAST or PKINIT (RFC 6113 5.4.3, RFC 4556 3.2.3).
    """
    return not _ARMORED_REPLIES.isdisjoint(facts.padata_types)


def has_strong_etype(request: ProxyRequest) -> bool:
    """Whether the client offers at least one encryption type that is not deprecated."""
    return not _STRONG_ETYPES.isdisjoint(request.etypes)


def is_s4u2self(request: ProxyRequest) -> bool:
    """Whether a service visibly requests a ticket to itself for another user ([MS-SFU] 3.1.5.1)."""
    return not _S4U_USERS.isdisjoint(request.padata_types)


def is_s4u2proxy(request: ProxyRequest) -> bool:
    """Whether a service requests a ticket in the name of a user in an additional ticket ([MS-SFU] 3.1.5.2.1).

    Old drafts of anonymity use the same option, but without an additional ticket.
    """
    is_tgs_req = request.kind is MessageKind.TGS_REQ
    return is_tgs_req and bool(request.kdc_options & _CNAME_IN_ADDL_TKT and request.additional_tickets)
