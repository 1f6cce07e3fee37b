"""Finds the principal that a KDC's reply is about, and says whether the request shows it.

What a request with FAST shows need not be what it means (RFC 6113 5.4.2). The reply names the client: MIT's,
Heimdal's and Samba's KDCs do so in each KRB-ERROR, to requests with FAST too, unless the client asks them to
hide the names. Active Directory leaves the client's name out of its errors: then the name stays unknown.
"""

from kkdcpd.frozen import frozen
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.principals import fold_principal
from kkdcpd.values import PrincipalName, ProxyRequest, ReplyFacts

__all__ = ["Subject", "find_subject", "fold_named", "hides_names"]

_ANONYMOUS = "wellknown/anonymous"


@frozen
class Subject:
    """The folded `name` of a principal, None where it is hidden.

    `is_shown` tells whether the request shows that name. Only then can a block of the name refuse the next
    request for it, and only then is it known that two failures are of the same principal.
    """

    name: str | None
    is_shown: bool


def find_subject(request: ProxyRequest, facts: ReplyFacts | None = None) -> Subject:
    """Return the principal that the reply is about; without a reply, the one that the request asks for.

    It is the client, but the service where the KDC doesn't know the service.
    """
    is_service = facts is not None and facts.error_code == KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN
    shown = fold_named(request.sname if is_service else request.cname)
    if not request.is_armored:
        return Subject(name=shown, is_shown=shown is not None)
    told = fold_named(facts.sname if is_service else facts.cname) if facts else None
    return Subject(name=told, is_shown=told is not None and told == shown)


def fold_named(name: PrincipalName | None) -> str | None:
    """Fold a name; a name that hides the client, or has no component, is none."""
    folded = fold_principal(name) if name else ""
    return folded if folded not in {"", _ANONYMOUS} else None


def hides_names(facts: ReplyFacts) -> bool:
    """Whether the KDC was asked to hide the names: MIT names an anonymous client, Samba an empty service."""
    names = facts.cname, facts.sname
    return any(name is not None and fold_named(name) is None for name in names)
