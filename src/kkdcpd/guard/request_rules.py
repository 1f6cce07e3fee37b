"""The policy's rules about requests, each a function of the request, the realm's names and its policy. Pure.

A rule tells what is against it, in words for the operator's log, or None. Modes are not asked here.
"""

from collections.abc import Callable, Mapping

from kkdcpd.config import PolicyConfig
from kkdcpd.guard import traits
from kkdcpd.guard.name_patterns import find_objection
from kkdcpd.guard.realm_names import RealmNames
from kkdcpd.protocol.exchange import is_repeatable
from kkdcpd.protocol.kpasswd import SET_VERSION
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import MessageKind, ProxyRequest, Rule

__all__ = ["REQUEST_RULES", "RequestRule"]

RequestRule = Callable[[ProxyRequest, RealmNames, PolicyConfig], str | None]


def _check_kind(request: ProxyRequest, _names: RealmNames, policy: PolicyConfig) -> str | None:
    return None if request.kind in policy.message_kinds else f"{request.kind.value} is not relayed"


def _check_kpasswd_version(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    # What the version is used for is encrypted: Heimdal changes its user's own password with it, too.
    return "kpasswd version 0xff80" if request.kpasswd_version == SET_VERSION else None


def _check_realm(request: ProxyRequest, names: RealmNames, _policy: PolicyConfig) -> str | None:
    # Most clients write it as in the envelope, and by that the realm was found.
    if request.realm == request.target_domain or request.realm in names:
        return None
    # Heimdal names nobody's realm outside of its armor. The reply tells which one was meant.
    if request.is_armored and fold_realm(request.realm) == fold_realm(traits.ANONYMOUS_REALM):
        return None
    return f"asked for {request.target_domain}, but the message names {request.realm}"


def _check_armor(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    """KPSSVC's DisallowUnprotectedPasswordAuth.

    What proves nothing passes: by its answer a client learns that there is FAST, and MIT's clients armor
    themselves only then. An AS-REP in answer is checked for armor itself.
    """
    if request.kind is not MessageKind.AS_REQ or is_repeatable(request):
        return None
    if traits.bears_password_proof(request):
        problem = "a password's proof in clear"
    elif request.is_armored or traits.bears_pkinit(request):
        return None
    else:
        problem = "what may be a password's proof, in clear"
    if request.cname and traits.is_machine(request.cname):
        return None
    return problem


def _check_etypes(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    if request.kind is MessageKind.KPASSWD_REQ or traits.has_strong_etype(request):
        return None
    # Heimdal offers nothing outside of its armor.
    if request.is_armored and not request.etypes:
        return None
    return f"offers only etypes {','.join(map(str, request.etypes)) or '(none)'}"


def _check_initial_service(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    # Clients that prove nothing, such as kadmin/changepw, get tickets in any user's key from MIT's KDC.
    if request.kind is not MessageKind.AS_REQ or request.sname is None:
        return None
    return None if traits.is_ticket_for_logon(request.sname) else f"AS-REQ for {request.sname}"


def _check_s4u2self(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    return f"S4U2Self by {request.kind.value}" if traits.asks_s4u2self(request) else None


def _check_s4u2proxy(request: ProxyRequest, _names: RealmNames, _policy: PolicyConfig) -> str | None:
    return f"S4U2Proxy to {request.sname}" if traits.asks_s4u2proxy(request) else None


def _check_cname(request: ProxyRequest, _names: RealmNames, policy: PolicyConfig) -> str | None:
    if request.cname is None or traits.hides_its_client(request):
        return None
    return find_objection(request.cname, allow=policy.cname_allow, deny=policy.cname_deny)


def _check_sname(request: ProxyRequest, _names: RealmNames, policy: PolicyConfig) -> str | None:
    # A kpasswd request asks for no ticket; the AS-REQ for the one that it bears was checked.
    is_for_ticket = request.kind is not MessageKind.KPASSWD_REQ
    if request.sname is None or not is_for_ticket or traits.is_krbtgt(request.sname):
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
