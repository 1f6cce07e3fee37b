"""The rules about replies: functions of the request, the reply, the realm's names and the realm's policy.

They see what a request does not show: names that FAST hides, the client of a ticket, and a ticket without a
proof. As in `request_rules`, a rule returns a detail for the log or None.
"""

from collections.abc import Callable, Mapping

from kkdcpd.config import PolicyConfig
from kkdcpd.guard import traits
from kkdcpd.guard.names import RealmNames, find_objection
from kkdcpd.values import MessageKind, ProxyRequest, ReplyFacts, Rule

__all__ = ["REPLY_RULES", "ReplyRule", "service_of"]

ReplyRule = Callable[[ProxyRequest, ReplyFacts, RealmNames, PolicyConfig], str | None]

_TICKETS = (MessageKind.AS_REP, MessageKind.TGS_REP)


def service_of(facts: ReplyFacts) -> str | None:
    """Return the service of the ticket in a reply, folded, or None.

    A ticket-granting ticket is for no service. An AS-REP counts like a TGS-REP: an AS-REQ can request a
    service's ticket as well.
    """
    if facts.kind not in _TICKETS or facts.sname is None or traits.is_krbtgt(facts.sname):
        return None
    return f"{facts.sname}@{facts.srealm}".lower()


def _check_realm(
    request: ProxyRequest, facts: ReplyFacts, names: RealmNames, _policy: PolicyConfig
) -> str | None:
    if not request.is_armored or facts.srealm is None or facts.srealm in names:
        return None
    return f"requested {request.target_domain}, but the ticket is of {facts.srealm}"


def _check_armor(
    request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, _policy: PolicyConfig
) -> str | None:
    if facts.kind is not MessageKind.AS_REP or traits.has_armor(facts):
        return None
    cname = facts.cname or request.cname
    return None if cname and traits.is_machine(cname) else f"a ticket for {cname} without armor"


def _check_proof(
    request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, _policy: PolicyConfig
) -> str | None:
    """Find AS-REPs that any client can get, with a part that is encrypted in a key made from a password.

    The armor may hide a proof, so an armored reply passes. A machine's key is not made from a password.
    """
    if facts.kind is not MessageKind.AS_REP or traits.has_possible_proof(request):
        return None
    cname = facts.cname or request.cname
    if traits.has_armor(facts) or (cname and traits.is_machine(cname)):
        return None
    return f"a ticket for {cname} without preauthentication"


def _check_initial_service(
    _request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, _policy: PolicyConfig
) -> str | None:
    if facts.kind is not MessageKind.AS_REP or facts.sname is None:
        return None
    return None if traits.is_logon_service(facts.sname) else f"AS-REP for {facts.sname}"


def _check_cname(
    _request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, policy: PolicyConfig
) -> str | None:
    if facts.kind not in _TICKETS or facts.cname is None:
        return None
    return find_objection(facts.cname, allow=policy.cname_allow, deny=policy.cname_deny)


def _check_sname(
    _request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, policy: PolicyConfig
) -> str | None:
    if facts.kind not in _TICKETS or facts.sname is None or traits.is_krbtgt(facts.sname):
        return None
    return find_objection(facts.sname, allow=policy.sname_allow, deny=policy.sname_deny)


REPLY_RULES: Mapping[Rule, ReplyRule] = {
    Rule.REALM_MISMATCH: _check_realm,
    Rule.REQUIRE_ARMOR: _check_armor,
    Rule.UNPROVEN_TICKET: _check_proof,
    Rule.CNAME: _check_cname,
    Rule.SNAME: _check_sname,
    Rule.INITIAL_SERVICE: _check_initial_service,
}
