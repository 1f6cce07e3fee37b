"""The rules about requests: functions of the request, the realm's names and the realm's policy.

A rule returns a detail for the log if the request breaks it, else None. Modes make no difference here.
"""

from collections.abc import Callable, Mapping

from kkdcpd.config import PolicyConfig
from kkdcpd.guard import traits
from kkdcpd.guard.names import RealmNames, find_objection
from kkdcpd.protocol.kpasswd import SET_VERSION
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.protocol.resending import is_repeatable
from kkdcpd.values import MessageKind, ProxyRequest, Rule

__all__ = ["REQUEST_RULES", "RequestRule"]

RequestRule = Callable[[ProxyRequest, RealmNames, PolicyConfig], str | None]


def _check_kind(request: ProxyRequest, _names: RealmNames, policy: PolicyConfig) -> str | None:
    return None if request.kind in policy.message_kinds else f"{request.kind.value} is not relayed"


def _check_kpasswd_version(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    # The purpose of the message is encrypted: Heimdal also changes its user's own password with this version.
    return "kpasswd version 0xff80" if request.kpasswd_version == SET_VERSION else None


def _check_realm(request: ProxyRequest, names: RealmNames, _policy: PolicyConfig) -> str | None:
    # Most clients write the realm as in the envelope, and by the envelope the realm was found.
    if request.realm == request.target_domain or request.realm in names:
        return None
    # Heimdal names the anonymous realm outside of its armor. The reply shows which realm it meant.
    if request.is_armored and fold_realm(request.realm) == fold_realm(traits.ANONYMOUS_REALM):
        return None
    return f"requested {request.target_domain}, but the message names {request.realm}"


def _check_armor(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    """Do as DisallowUnprotectedPasswordAuth of Windows' KPSSVC.

    A request without a proof passes: its error shows that the KDC has FAST, and MIT's client uses armor only
    then. An AS-REP is checked for armor itself.
    """
    if request.kind is not MessageKind.AS_REQ or is_repeatable(request):
        return None
    if traits.has_password_proof(request):
        problem = "a proof of a password in clear"
    elif request.is_armored or traits.has_pkinit(request):
        return None
    else:
        problem = "a possible proof of a password in clear"
    if request.cname and traits.is_machine(request.cname):
        return None
    return problem


def _check_etypes(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    if request.kind is MessageKind.KPASSWD_REQ or traits.has_strong_etype(request):
        return None
    # Heimdal offers no encryption type outside of its armor.
    if request.is_armored and not request.etypes:
        return None
    return f"offers only etypes {','.join(map(str, request.etypes)) or '(none)'}"


def _check_initial_service(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    # MIT's KDC gives a client without a proof, such as kadmin/changepw, tickets in any user's key.
    if request.kind is not MessageKind.AS_REQ or request.sname is None:
        return None
    return None if traits.is_logon_service(request.sname) else f"AS-REQ for {request.sname}"


def _check_s4u2self(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    return f"S4U2Self by {request.kind.value}" if traits.is_s4u2self(request) else None


def _check_s4u2proxy(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    return f"S4U2Proxy to {request.sname}" if traits.is_s4u2proxy(request) else None


def _check_cname(request: ProxyRequest, _names: RealmNames, policy: PolicyConfig) -> str | None:
    if request.cname is None or traits.hides_its_client(request):
        return None
    return find_objection(request.cname, allow=policy.cname_allow, deny=policy.cname_deny)


def _check_sname(request: ProxyRequest, _names: RealmNames, policy: PolicyConfig) -> str | None:
    # A kpasswd request requests no ticket. The AS-REQ for the ticket in it was checked.
    requests_ticket = request.kind is not MessageKind.KPASSWD_REQ
    if request.sname is None or not requests_ticket or traits.is_krbtgt(request.sname):
        return None
    return find_objection(request.sname, allow=policy.sname_allow, deny=policy.sname_deny)


REQUEST_RULES: Mapping[Rule, RequestRule] = {
    Rule.MESSAGE_KIND: _check_kind,
    Rule.KPASSWD_SET: _check_kpasswd_version,
    Rule.REALM_MISMATCH: _check_realm,
    Rule.REQUIRE_ARMOR: _check_armor,
    Rule.WEAK_ETYPES: _check_etypes,
    Rule.S4U2SELF: _check_s4u2self,
    Rule.S4U2PROXY: _check_s4u2proxy,
    Rule.CNAME: _check_cname,
    Rule.SNAME: _check_sname,
    Rule.INITIAL_SERVICE: _check_initial_service,
}
