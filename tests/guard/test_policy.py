"""Tests of a realm's policy as a whole: active rules, modes, and texts."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from kkdcpd.config import PolicyConfig, PrincipalPattern, RealmConfig
from kkdcpd.guard.policy import Finding, RealmPolicy
from kkdcpd.guard.reply_rules import REPLY_RULES
from kkdcpd.guard.request_rules import REQUEST_RULES
from kkdcpd.guard.store import Block, Growth, Key, Limit, Shortage, Tally
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.values import MessageKind, Mode, Outcome, ProxyMessage, ProxyRequest, ReplyFacts, Rule
from tests.support import messages
from tests.support.captured import CAPTURED, captured
from tests.support.strategies import replies, requests

REALM = RealmConfig(name="EXAMPLE.COM", aliases=("CORP",))
POLICY_RULES = {*REQUEST_RULES, *REPLY_RULES, Rule.MANY_SERVICES}
NETWORK = "192.0.2.1"

SET_PASSWORD = messages.kpasswd_req(version=0xFF80)
RC4_TIMESTAMP = messages.as_req(padata=[(2, b"x")], etypes=(23,), realm="EXAMPLE.ORG")
S4U = messages.tgs_req(padata=[(129, b"")], options=b"\x00\x02\x00\x00", tickets=[(1, ("host", "x"))])
UNPROVEN = messages.as_req()

BREACHES = {
    Rule.KPASSWD_SET: (SET_PASSWORD, None),
    Rule.REALM_MISMATCH: (RC4_TIMESTAMP, None),
    Rule.REQUIRE_ARMOR: (RC4_TIMESTAMP, None),
    Rule.WEAK_ETYPES: (RC4_TIMESTAMP, None),
    Rule.S4U2SELF: (S4U, None),
    Rule.S4U2PROXY: (S4U, None),
    Rule.UNPROVEN_TICKET: (UNPROVEN, messages.as_rep()),
    Rule.INITIAL_SERVICE: (messages.as_req(sname=(1, ("bob",))), None),
    Rule.MESSAGE_KIND: (SET_PASSWORD, None),
    Rule.CNAME: (UNPROVEN, None),
    Rule.SNAME: (S4U, None),
}
RESTRICTIONS = {
    "message_kinds": (MessageKind.AS_REQ, MessageKind.TGS_REQ),
    "cname_deny": (PrincipalPattern("alice"),),
    "sname_deny": (PrincipalPattern("HTTP/*"),),
}
"""Lists for the rules that need a list, because the default lists allow all requests."""


class OneTally:
    """A store with a single tally. It keeps the arguments of its calls."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self.members: set[str | None] = set()
        self.windows: set[float] = set()
        self.times: set[float] = set()

    def tally(self, key: Key, column: int, member: str | None, *, window: float, now: float) -> Tally:
        is_new = member not in self.members
        self.keys.add(key)
        self.members.add(member)
        self.windows.add(window)
        self.times.add(now)
        counts = [0, 0, 0]
        counts[column] = len(self.members)
        return Tally(counts=(counts[0], counts[1], counts[2]), is_new=is_new)

    def take(self, buckets: Sequence[tuple[Key, Limit]], now: float) -> Shortage | None:
        raise NotImplementedError

    def has_blocks(self, now: float) -> bool:
        raise NotImplementedError

    def blocked(self, key: Key, now: float) -> Block | None:
        raise NotImplementedError

    def block(self, key: Key, reason: int, growth: Growth, now: float) -> float:
        raise NotImplementedError


def _policy(realm: RealmConfig = REALM, /, **settings: Any) -> RealmPolicy:
    return RealmPolicy(replace(realm, policy=PolicyConfig(**settings)))


def _request(payload: bytes, target_domain: str = "EXAMPLE.COM") -> ProxyRequest:
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain=target_domain))


def _check(policy: RealmPolicy, payload: bytes, reply: bytes | None = None) -> dict[Rule, Finding]:
    request = _request(payload)
    findings = (
        policy.check_request(request)
        if reply is None
        else policy.check_reply(request, inspect_reply(request.kind, reply))
    )
    return {finding.refusal.rule: finding for finding in findings}


def _service(name: str) -> ReplyFacts:
    return inspect_reply(MessageKind.TGS_REQ, messages.tgs_rep(sname=(2, ("HTTP", name))))


@pytest.mark.parametrize("rule", BREACHES, ids=lambda rule: rule.value)
def test_rule_follows_its_mode(rule: Rule) -> None:
    payload, reply = BREACHES[rule]

    def check(mode: Mode) -> dict[Rule, Finding]:
        return _check(_policy(**RESTRICTIONS, **{rule.value: mode}), payload, reply)

    assert rule not in check(Mode.OFF)
    assert not check(Mode.MONITOR)[rule].is_enforced
    assert check(Mode.ENFORCE)[rule].is_enforced


@pytest.mark.parametrize("rule", [Rule.CNAME, Rule.SNAME], ids=lambda rule: rule.value)
def test_list_of_names_follows_its_mode_in_replies_too(rule: Rule) -> None:
    for mode in Mode:
        policy = _policy(**RESTRICTIONS, **{rule.value: mode})
        found = _check(policy, messages.tgs_req(), messages.tgs_rep())
        assert (rule in found) is (mode is not Mode.OFF)
        assert rule not in found or found[rule].is_enforced is (mode is Mode.ENFORCE)


@pytest.mark.parametrize(
    ("settings", "payload", "rule"),
    [
        ({"message_kinds": (MessageKind.AS_REQ,)}, messages.tgs_req(), Rule.MESSAGE_KIND),
        ({"cname_deny": (PrincipalPattern("alice"),)}, messages.as_req(), Rule.CNAME),
        ({"cname_allow": (PrincipalPattern("bob"),)}, messages.as_req(), Rule.CNAME),
        ({"sname_deny": (PrincipalPattern("HTTP/*"),)}, messages.tgs_req(), Rule.SNAME),
        ({"sname_allow": (PrincipalPattern("cifs/*"),)}, messages.tgs_req(), Rule.SNAME),
    ],
)
def test_lists_that_restrict_are_enforced_by_default(
    settings: dict[str, Any], payload: bytes, rule: Rule
) -> None:
    assert _check(_policy(**settings), payload)[rule].is_enforced
    assert rule not in _check(_policy(), payload)


def test_finding_has_a_text_with_the_remedy_and_a_detail() -> None:
    refusal = _check(_policy(), messages.as_req(etypes=(23,)))[Rule.WEAK_ETYPES].refusal

    assert refusal.outcome is Outcome.REFUSED
    assert refusal.detail == "offers only etypes 23"
    assert "AES" in refusal.text


def test_all_broken_rules_are_found() -> None:
    policy = _policy(require_armor=Mode.ENFORCE)

    assert set(_check(policy, RC4_TIMESTAMP)) == {
        Rule.REALM_MISMATCH,
        Rule.REQUIRE_ARMOR,
        Rule.WEAK_ETYPES,
    }


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_request_breaks_no_rule_by_default(name: str) -> None:
    request = classify(decode_proxy_message(captured(name)))

    assert RealmPolicy(RealmConfig(name="FREEIPA.LOCAL")).check_request(request) == []


def test_realm_under_a_wildcard_is_the_requested_realm() -> None:
    policy = _policy(RealmConfig(name="*.EXAMPLE.COM"))
    payload = messages.as_req(realm="SUB.EXAMPLE.COM")

    assert not policy.check_request(_request(payload, "sub.example.com"))
    (finding,) = policy.check_request(_request(payload, "other.example.com"))
    assert finding.refusal.rule is Rule.REALM_MISMATCH


def test_each_service_counts_once_and_the_limit_holds() -> None:
    policy, store = _policy(services=3, services_window=60.0), OneTally()

    def check(facts: ReplyFacts) -> Finding | None:
        return policy.check_services(facts, REALM.name, NETWORK, store, 1.0)

    for name in ("a", "b", "c", "C"):
        assert check(_service(name)) is None
    finding = check(_service("d"))

    assert finding is not None
    assert (finding.refusal.rule, finding.refusal.retry_after) == (Rule.MANY_SERVICES, 60.0)
    assert finding.refusal.detail == "tickets for 4 services within 60 s"
    assert not finding.is_enforced
    assert store.keys == {("services", "EXAMPLE.COM", NETWORK)}
    assert (store.windows, store.times) == ({60.0}, {1.0})


def test_many_services_follow_the_mode() -> None:
    for mode in Mode:
        policy, store = _policy(services=1, many_services=mode), OneTally()
        for name in ("a", "b"):
            finding = policy.check_services(_service(name), REALM.name, NETWORK, store, 1.0)
        assert (finding is not None) is (mode is not Mode.OFF)
        assert finding is None or finding.is_enforced is (mode is Mode.ENFORCE)
        assert bool(store.members) is (mode is not Mode.OFF)


@pytest.mark.parametrize(
    "facts",
    [
        inspect_reply(MessageKind.AS_REQ, messages.as_rep()),
        inspect_reply(MessageKind.TGS_REQ, messages.krb_error(7)),
        inspect_reply(MessageKind.KPASSWD_REQ, messages.kpasswd_rep()),
    ],
    ids=["a ticket-granting ticket", "an error", "a password change"],
)
def test_only_tickets_for_services_are_counted(facts: ReplyFacts) -> None:
    store = OneTally()

    assert _policy().check_services(facts, REALM.name, NETWORK, store, 1.0) is None
    assert not store.members


@given(requests, replies)
def test_no_message_raises_with_every_rule_enforced(payload: bytes, reply: tuple[MessageKind, bytes]) -> None:
    lists = ("cname_allow", "cname_deny", "sname_allow", "sname_deny")
    policy = _policy(
        message_kinds=(MessageKind.AS_REQ,),
        **{rule.value: Mode.ENFORCE for rule in POLICY_RULES},
        **{name: (PrincipalPattern("*a*"), PrincipalPattern("x")) for name in lists},
    )
    request, facts = _request(payload), inspect_reply(*reply)

    for finding in (*policy.check_request(request), *policy.check_reply(request, facts)):
        assert finding.is_enforced
        assert finding.refusal.detail


def test_texts_are_one_ascii_sentence_each() -> None:
    texts = {
        rule: _check(_policy(**RESTRICTIONS, **{rule.value: Mode.ENFORCE}), *breach)[rule].refusal.text
        for rule, breach in BREACHES.items()
    }

    for text in texts.values():
        assert text.isascii()
        assert text[0].isupper()
        assert text.endswith(".")
        assert text.count(". ") == 0
    assert len(set(texts.values())) == len(texts)


@pytest.mark.parametrize(
    "rule", [*sorted(POLICY_RULES, key=lambda rule: rule.value), Rule.CLIENT_CERTIFICATE, Rule.TOKEN]
)
def test_default_of_each_rule_is_documented(rule: Rule) -> None:
    document = (Path(__file__).parents[2] / "docs" / "guard.md").read_text()
    rows = re.findall(rf"^\| `{rule.value}` \| (\w+) \|", document, re.MULTILINE)
    mode: Mode = getattr(PolicyConfig(), rule.value)

    assert rows == [mode.value]
