"""Applies a realm's policy: access to the realm, and the rules about messages that the policy turns on.

The mode of a rule is the setting of the same name.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeVar

from kkdcpd.config import PolicyConfig, RealmConfig
from kkdcpd.frozen import frozen
from kkdcpd.guard.access import check_access
from kkdcpd.guard.names import names_of
from kkdcpd.guard.reply_rules import REPLY_RULES, service_of
from kkdcpd.guard.request_rules import REQUEST_RULES
from kkdcpd.guard.store import Store
from kkdcpd.values import (
    ClientConnection,
    MessageKind,
    Mode,
    Outcome,
    ProxyRequest,
    Refusal,
    ReplyFacts,
    Rule,
)

__all__ = ["Finding", "RealmPolicy", "found"]

_TEXTS: Mapping[Rule, str] = {
    Rule.MESSAGE_KIND: "This proxy does not relay requests of this kind: "
    "send them to the realm's servers directly, from inside the network.",
    Rule.KPASSWD_SET: "Passwords can't be changed through this proxy by the set protocol (RFC 3244): "
    "use a client that speaks version 1, or change them from inside the network.",
    Rule.REALM_MISMATCH: "The message and the request to the proxy name different realms: "
    "correct the client's mapping of realms to proxies.",
    Rule.REQUIRE_ARMOR: "This proxy takes no passwords without FAST armor: let the client use FAST "
    "(kinit -T with a host's or an anonymous ticket), or log on with a certificate.",
    Rule.WEAK_ETYPES: "The client offers only deprecated encryption types such as RC4 and DES: "
    "let the client use AES.",
    Rule.UNPROVEN_TICKET: "This proxy passes on no ticket that the KDC issued without preauthentication: "
    "the realm's administrator should require preauthentication for the account.",
    Rule.INITIAL_SERVICE: "This proxy relays no log-on that requests a service's ticket directly: "
    "log on first, then request the service's ticket (kinit without -S).",
    Rule.MANY_SERVICES: "This network requested tickets for too many services: "
    "wait some minutes, and request fewer.",
    Rule.S4U2SELF: "This proxy does not relay tickets for other users to oneself (S4U2Self): "
    "request them from inside the network.",
    Rule.S4U2PROXY: "This proxy does not relay tickets by constrained delegation (S4U2Proxy): "
    "request them from inside the network.",
    Rule.CNAME: "This principal gets no tickets through this proxy: "
    "use another principal, or log on from inside the network.",
    Rule.SNAME: "This proxy does not relay tickets for this service: request them from inside the network.",
}
"""Texts for the client's administrator. They are ASCII, because e-text of a KRB-ERROR is (RFC 4120 5.2.1)."""

_ACCESS_RULES = (Rule.CLIENT_CERTIFICATE, Rule.TOKEN)

_REQUESTS = frozenset({MessageKind.AS_REQ, MessageKind.TGS_REQ, MessageKind.KPASSWD_REQ})

_IS_MOOT: Mapping[Rule, Callable[[PolicyConfig], bool]] = {
    Rule.MESSAGE_KIND: lambda policy: _REQUESTS.issubset(policy.message_kinds),
    Rule.CNAME: lambda policy: not (policy.cname_allow or policy.cname_deny),
    Rule.SNAME: lambda policy: not (policy.sname_allow or policy.sname_deny),
}
"""Rules with a list, each with a test that the list allows all requests."""

MOST_KNOWN = 256
"""Realms below a wildcard with cached names."""

_Check = TypeVar("_Check")


@frozen
class Finding:
    """A broken rule. If the rule is not enforced, the refusal is only reported."""

    refusal: Refusal
    is_enforced: bool


class RealmPolicy:
    """One realm's policy, ready for its requests and replies."""

    def __init__(self, realm: RealmConfig) -> None:
        self._realm = realm
        self._policy = realm.policy
        self._names = None if realm.is_wildcard else names_of(realm, realm.name)
        self._names_below = lru_cache(MOST_KNOWN)(partial(names_of, realm))
        self.is_open = not (realm.client_certificates or realm.tokens)
        """Whether `check_access` allows every client."""
        self.counted_as = None if realm.is_wildcard else realm.name
        """The name by which the realm is counted. Each realm below a wildcard is counted by its own name."""
        self._modes = {rule: _mode_of(rule, realm.policy) for rule in (*_TEXTS, *_ACCESS_RULES)}
        self._request_rules = self._active(REQUEST_RULES)
        self._reply_rules = self._active(REPLY_RULES)
        self._counts_services = self._modes[Rule.MANY_SERVICES] is not Mode.OFF

    def check_access(self, client: ClientConnection) -> list[Finding]:
        """Return the broken rules about access to the realm."""
        return [
            found(refusal, mode)
            for refusal in check_access(client, self._realm)
            if (mode := self._modes[refusal.rule]) is not Mode.OFF
        ]

    def check_request(self, request: ProxyRequest) -> list[Finding]:
        """Return the rules that the request breaks, the gravest first."""
        names = self._names or self._names_below(request.target_domain)
        findings = []
        for rule, check in self._request_rules:
            detail = check(request, names, self._policy)
            if detail:
                findings.append(self._finding(rule, detail))
        return findings

    def check_reply(self, request: ProxyRequest, facts: ReplyFacts) -> list[Finding]:
        """Return the rules that the reply breaks."""
        names = self._names or self._names_below(request.target_domain)
        findings = []
        for rule, check in self._reply_rules:
            detail = check(request, facts, names, self._policy)
            if detail:
                findings.append(self._finding(rule, detail))
        return findings

    def check_services(
        self, facts: ReplyFacts, realm: str, network: str, store: Store, now: float
    ) -> Finding | None:
        """Count the service of the ticket in a reply, and judge how many services the network has."""
        service = service_of(facts) if self._counts_services else None
        if service is None:
            return None
        key = "services", realm, network
        window = self._policy.services_window
        count = store.tally(key, 0, service, window=window, now=now).counts[0]
        if count <= self._policy.services:
            return None
        detail = f"tickets for {count} services within {window:g} s"
        return self._finding(Rule.MANY_SERVICES, detail, retry_after=window)

    def _active(self, rules: Mapping[Rule, _Check]) -> list[tuple[Rule, _Check]]:
        """Leave out rules that are off, and rules with a list that allows all requests."""
        return [
            (rule, check)
            for rule, check in rules.items()
            if self._modes[rule] is not Mode.OFF and not (rule in _IS_MOOT and _IS_MOOT[rule](self._policy))
        ]

    def _finding(self, rule: Rule, detail: str, *, retry_after: float | None = None) -> Finding:
        refusal = Refusal(
            rule=rule, outcome=Outcome.REFUSED, text=_TEXTS[rule], retry_after=retry_after, detail=detail
        )
        return found(refusal, self._modes[rule])


def found(refusal: Refusal, mode: Mode) -> Finding:
    """Return the finding of a rule that is not off."""
    return Finding(refusal=refusal, is_enforced=mode is Mode.ENFORCE)


def _mode_of(rule: Rule, policy: PolicyConfig) -> Mode:
    mode = getattr(policy, rule.value)
    assert isinstance(mode, Mode)
    return mode
