"""What a message is, as far as rules ask: machine or anonymous, PKINIT, S4U, with or without proof. Pure.

The numbers are those of RFC 4120 7.5, the IANA registry of pre-authentication types and [MS-SFU].
"""

from kkdcpd.protocol.principals import is_anonymous
from kkdcpd.values import MessageKind, PrincipalName, ProxyRequest, ReplyFacts

__all__ = [
    "ANONYMOUS_REALM",
    "asks_s4u2proxy",
    "asks_s4u2self",
    "bears_password_proof",
    "bears_pkinit",
    "bears_possible_proof",
    "has_strong_etype",
    "hides_its_client",
    "is_krbtgt",
    "is_machine",
    "is_ticket_for_logon",
    "may_bear_proof",
    "proves_client",
    "shows_armor",
]

ANONYMOUS_REALM = "WELLKNOWN:ANONYMOUS"
"""RFC 8062 3. Heimdal names it outside of its armor in place of the realm that it means."""

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
"""What proves a password, or goes toward it, in clear. All others that do (138, 141 to 144) live in FAST."""

_PKINIT_REQUESTS = frozenset({14, 15, 16})  # PA-PK-AS-REQ (RFC 4556), and as it was in drafts
_PROOFS = _PASSWORD_PROOFS | _PKINIT_REQUESTS
_PKINIT_REPLIES = frozenset({15, 17})  # PA-PK-AS-REP, in drafts and now
_ARMORED_REPLIES = _PKINIT_REPLIES | {136}  # PA-FX-FAST

_CHECKED_PROOFS = frozenset({2})  # PA-ENC-TIMESTAMP
"""Proofs in clear to which MIT's, Heimdal's and Samba's KDCs answer an error when they are wrong, even if the
principal needs no preauthentication. MIT's KDC ignores all others unless it is set up for them, and issues
the ticket: SPAKE and PKINIT too."""

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
"""What is left after RFC 6649 (DES) and RFC 8429 (3DES, RC4). An allow-list, for a made-up number beside RC4
would otherwise pass for something better."""


def is_krbtgt(name: PrincipalName) -> bool:
    """Whether tickets for it are ticket-granting ones, be it of this realm or the way to another."""
    return len(name.components) == 2 and name.components[0].lower() == "krbtgt"


def is_ticket_for_logon(sname: PrincipalName) -> bool:
    """Whether log-ons ask for tickets to this service: a ticket-granting one, or kadmin/changepw."""
    return is_krbtgt(sname) or tuple(map(str.lower, sname.components)) == ("kadmin", "changepw")


def is_machine(name: PrincipalName) -> bool:
    """Whether it is a computer's: `host$`, `host/NAME`. Their keys are random, and armor is made of them."""
    text = "/".join(name.components).lower()
    text = text.rpartition("@")[0] or text
    return text.startswith("host/") or (text.endswith("$") and "/" not in text)


def hides_its_client(request: ProxyRequest) -> bool:
    """Whether FAST hides who asks, nobody's name standing outside (RFC 6113 5.4.2)."""
    return request.is_armored and request.cname is not None and is_anonymous(request.cname)


def bears_password_proof(request: ProxyRequest) -> bool:
    """Whether a password is proved in clear, rightly or not."""
    return not _PASSWORD_PROOFS.isdisjoint(request.padata_types)


def may_bear_proof(request: ProxyRequest) -> bool:
    """Whether the request can hold a proof, so that the KDC may count it as a failed log-on."""
    return request.is_armored or not _PROOFS.isdisjoint(request.padata_types)


def proves_client(request: ProxyRequest, facts: ReplyFacts) -> bool:
    """Whether an AS-REP and its request by themselves show that the client knew a secret.

    The KDC has checked a proof of a kind that it never ignores, or its reply to PKINIT is PKINIT's (RFC 4556
    3.2.3). Of FAST and SPAKE nothing can be said: what they hide may be no proof at all.
    """
    if bears_pkinit(request) and not _PKINIT_REPLIES.isdisjoint(facts.padata_types):
        return True
    return not request.is_armored and not _CHECKED_PROOFS.isdisjoint(request.padata_types)


def bears_possible_proof(request: ProxyRequest) -> bool:
    """Whether an AS-REP to the request may be due to a proof in clear. Some KDCs check SPAKE's."""
    return not _POSSIBLE_PROOFS.isdisjoint(request.padata_types)


def bears_pkinit(request: ProxyRequest) -> bool:
    """Whether it asks to log on by certificate or anonymously (RFC 4556, RFC 8062)."""
    return not _PKINIT_REQUESTS.isdisjoint(request.padata_types)


def shows_armor(facts: ReplyFacts) -> bool:
    """Whether the KDC heeded FAST or PKINIT: only then its reply has it (RFC 6113 5.4.3, RFC 4556 3.2.3)."""
    return not _ARMORED_REPLIES.isdisjoint(facts.padata_types)


def has_strong_etype(request: ProxyRequest) -> bool:
    """Whether it offers at least one encryption type that isn't deprecated."""
    return not _STRONG_ETYPES.isdisjoint(request.etypes)


def asks_s4u2self(request: ProxyRequest) -> bool:
    """Whether it asks for somebody else's ticket to oneself, as far as can be seen ([MS-SFU] 3.1.5.1)."""
    return not _S4U_USERS.isdisjoint(request.padata_types)


def asks_s4u2proxy(request: ProxyRequest) -> bool:
    """Whether it asks for a ticket in the name of who is in an additional ticket ([MS-SFU] 3.1.5.2.1).

    Old drafts of anonymity had the same option, but no ticket to go with it.
    """
    is_tgs_req = request.kind is MessageKind.TGS_REQ
    return is_tgs_req and bool(request.kdc_options & _CNAME_IN_ADDL_TKT and request.additional_tickets)
