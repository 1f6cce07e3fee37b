"""The policy's rules about replies, each a function of request, reply, the realm's names and policy. Pure.

They see to what a request doesn't show: what FAST hides, who a ticket is for, and whether a proof was asked
for at all. As in `request_rules`, a rule tells what is against it or None, and modes are not asked here.
"""

from collections.abc import Callable, Mapping

from kkdcpd.config import PolicyConfig
from kkdcpd.guard import traits
from kkdcpd.guard.name_patterns import find_objection
from kkdcpd.guard.realm_names import RealmNames
from kkdcpd.values import MessageKind, ProxyRequest, ReplyFacts, Rule

__all__ = ["REPLY_RULES", "ReplyRule", "service_of"]

ReplyRule = Callable[[ProxyRequest, ReplyFacts, RealmNames, PolicyConfig], str | None]

_TICKETS = (MessageKind.AS_REP, MessageKind.TGS_REP)


def service_of(facts: ReplyFacts) -> str | None:
    """Return the service that a reply bears a ticket for, equal for equal ones; None if there is none.

    Ticket-granting tickets are for nobody's service. An AS-REP counts like a TGS-REP: a service's ticket can
    be asked for by an AS-REQ as well.
    """
    if facts.kind not in _TICKETS or facts.sname is None or traits.is_krbtgt(facts.sname):
        return None
    return f"{facts.sname}@{facts.srealm}".lower()


def _check_realm(
    request: ProxyRequest, facts: ReplyFacts, names: RealmNames, _policy: PolicyConfig
) -> str | None:
    if not request.is_armored or facts.srealm is None or facts.srealm in names:
        return None
    return f"asked for {request.target_domain}, but the ticket is of {facts.srealm}"


def _check_armor(
    request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, _policy: PolicyConfig
) -> str | None:
    if facts.kind is not MessageKind.AS_REP or traits.shows_armor(facts):
        return None
    cname = facts.cname or request.cname
    return None if cname and traits.is_machine(cname) else f"a ticket for {cname} without armor"


def _check_proof(
    request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, _policy: PolicyConfig
) -> str | None:
    """Find AS-REPs that any client can get, with something in them that is made of the user's password.

    Whether armor hides a proof can't be told. A machine's key is not made of a password.
    """
    if facts.kind is not MessageKind.AS_REP or traits.bears_possible_proof(request):
        return None
    cname = facts.cname or request.cname
    if traits.shows_armor(facts) or (cname and traits.is_machine(cname)):
        return None
    return f"a ticket for {cname} without preauthentication"


def _check_initial_service(
    _request: ProxyRequest, facts: ReplyFacts, _names: RealmNames, _policy: PolicyConfig
) -> str | None:
    if facts.kind is not MessageKind.AS_REP or facts.sname is None:
        return None
    return None if traits.is_ticket_for_logon(facts.sname) else f"AS-REP for {facts.sname}"


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
