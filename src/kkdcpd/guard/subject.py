"""Finds the principal that a KDC's reply is about, and says whether the request shows this principal.

A request with FAST may show another name than it hides (RFC 6113 5.4.2). The reply names the client: the KDCs
of MIT, Heimdal and Samba do so in each KRB-ERROR, to requests with FAST too, unless the client asks them to
hide the names. Active Directory leaves the client's name out of its errors: then the name stays unknown.
"""

from kkdcpd.frozen import frozen
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.principals import fold_principal
from kkdcpd.values import MessageKind, PrincipalName, ProxyRequest, ReplyFacts

__all__ = ["Subject", "find_spelling", "find_subject", "fold_named", "hides_names"]

_ANONYMOUS = "wellknown/anonymous"
_SERVICE_UNKNOWN = frozenset(
    {
        KrbErrorCode.KDC_ERR_S_PRINCIPAL_UNKNOWN,
        # MIT's KDC sends it for an unknown service of the ticket in FAST's armor.
        KrbErrorCode.KRB_AP_ERR_NOT_US,
    }
)


@frozen
class Subject:
    """A principal. `name` is folded, and None where it is hidden.

    With `is_shown`, the request shows the name. Only then a block of the name can refuse the next request for
    it, and only then two failures are known to be of the same principal.
    """

    name: str | None
    is_shown: bool


def find_subject(request: ProxyRequest, facts: ReplyFacts | None = None) -> Subject:
    """Return the principal that the reply is about or, without a reply, the request's client.

    It is the client, but the service if the KDC does not know the service. With a TGS-REQ it is the service
    of the ticket, because the KDC tries its key.
    """
    if request.kind is MessageKind.TGS_REQ:
        service = fold_named(request.ticket_sname)
        return Subject(name=service, is_shown=service is not None)
    is_service = _is_about_service(facts)
    shown = fold_named(request.sname if is_service else request.cname)
    if not request.is_armored:
        return Subject(name=shown, is_shown=shown is not None)
    named = fold_named(facts.sname if is_service else facts.cname) if facts else None
    # The ticket in the armor may be for another service, and the KDC may have tried this service's key.
    is_about_armor = facts is not None and facts.error_code == KrbErrorCode.KRB_AP_ERR_BAD_INTEGRITY
    return Subject(name=named, is_shown=named is not None and named == shown and not is_about_armor)


def find_spelling(request: ProxyRequest, facts: ReplyFacts) -> str | None:
    """Return the unknown name that the reply is about, as the request spells it. A hidden name is None.

    To a request with FAST, KDCs send the same error for an unknown service of the ticket in the armor.
    """
    name = request.cname
    if request.ticket_sname:
        name = request.ticket_sname
    elif _is_about_service(facts):
        name = None if request.is_armored else request.sname
    elif not find_subject(request, facts).is_shown:
        name = None
    return "/".join(name.components) if name else None


def _is_about_service(facts: ReplyFacts | None) -> bool:
    return facts is not None and facts.error_code in _SERVICE_UNKNOWN


def fold_named(name: PrincipalName | None) -> str | None:
    """Fold a name. A name that hides the client, or has no component, is None."""
    folded = fold_principal(name) if name else ""
    return folded if folded not in {"", _ANONYMOUS} else None


def hides_names(facts: ReplyFacts) -> bool:
    """Whether the KDC hides the names: MIT names an anonymous client, Samba an empty service."""
    names = facts.cname, facts.sname
    return any(name is not None and fold_named(name) is None for name in names)
