"""Tests of each rule about replies: replies that keep the rule, and replies that break it."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config import PolicyConfig, PrincipalPattern
from kkdcpd.guard.names import RealmNames
from kkdcpd.guard.reply_rules import REPLY_RULES, service_of
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.values import MessageKind, PrincipalName, ProxyMessage, ProxyRequest, ReplyFacts, Rule
from tests.support import messages
from tests.support.strategies import replies, requests

ANONYMOUS = (11, ("WELLKNOWN", "ANONYMOUS"))
NAMES = RealmNames(["EXAMPLE.COM", "CORP"])
LISTS = PolicyConfig(
    cname_allow=(PrincipalPattern("al*"),),
    cname_deny=(PrincipalPattern("*/admin"),),
    sname_allow=(PrincipalPattern("HTTP/*"),),
    sname_deny=(PrincipalPattern("HTTP/dc*"),),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, its reply, and a part of the finding, or None."""

    name: str
    request: bytes
    reply: bytes
    finding: str | None = None


def _padata(*types: int) -> list[tuple[int, bytes]]:
    return [(number, b"x") for number in types]


FIRST = messages.as_req(padata=_padata(150, 149))
TIMESTAMP = messages.as_req(padata=_padata(133, 2, 150, 149))
FAST = messages.as_req(padata=_padata(136))
PKINIT = messages.as_req(padata=_padata(133, 16, 150, 149))
TGS = messages.tgs_req(padata=_padata(136))
PLAIN_REP = messages.as_rep(padata=_padata(19))
FAST_REP = messages.as_rep(padata=_padata(136))
PKINIT_REP = messages.as_rep(padata=_padata(17))
HOST_REP = messages.as_rep(cname=(1, ("host", "web.example.com")))
ELSEWHERE = "EXAMPLE.ORG"

CASES: dict[Rule, list[Case]] = {
    Rule.REALM_MISMATCH: [
        Case(name="armor, and this realm", request=FAST, reply=FAST_REP),
        Case(
            name="armor, and this realm by another name",
            request=FAST,
            reply=messages.as_rep(realm="CORP", padata=_padata(136)),
        ),
        Case(
            name="anonymity, and this realm",
            request=FAST,
            reply=messages.as_rep(realm="WELLKNOWN:ANONYMOUS", cname=ANONYMOUS, srealm="EXAMPLE.COM"),
        ),
        Case(
            name="a client from elsewhere",
            request=TGS,
            reply=messages.tgs_rep(realm=ELSEWHERE, srealm="EXAMPLE.COM"),
        ),
        Case(
            name="the way to another realm",
            request=TGS,
            reply=messages.tgs_rep(sname=(2, ("krbtgt", ELSEWHERE))),
        ),
        Case(name="an error", request=FAST, reply=messages.krb_error(68, crealm=ELSEWHERE)),
        Case(name="no armor to hide in", request=TIMESTAMP, reply=messages.as_rep(realm=ELSEWHERE)),
        Case(
            name="armor that hid another realm",
            request=FAST,
            reply=messages.as_rep(realm=ELSEWHERE, padata=_padata(136)),
            finding="requested EXAMPLE.COM, but the ticket is of EXAMPLE.ORG",
        ),
        Case(
            name="armor that hid another realm's service",
            request=TGS,
            reply=messages.tgs_rep(srealm=ELSEWHERE),
            finding="of EXAMPLE.ORG",
        ),
    ],
    Rule.REQUIRE_ARMOR: [
        Case(name="FAST", request=FAST, reply=FAST_REP),
        Case(name="PKINIT", request=PKINIT, reply=PKINIT_REP),
        Case(name="a host", request=FIRST, reply=HOST_REP),
        Case(name="a TGS-REP", request=TGS, reply=messages.tgs_rep()),
        Case(name="an error", request=FIRST, reply=messages.krb_error(25)),
        Case(
            name="a ticket on the first request",
            request=FIRST,
            reply=PLAIN_REP,
            finding="a ticket for alice without armor",
        ),
        Case(name="FAST that the KDC ignored", request=FAST, reply=PLAIN_REP, finding="without armor"),
        Case(name="PKINIT that the KDC ignored", request=PKINIT, reply=PLAIN_REP, finding="without armor"),
        Case(
            name="a user with the name of a host",
            request=messages.as_req(cname=(10, ("host/x",)), padata=_padata(2)),
            reply=PLAIN_REP,
            finding="a ticket for alice",
        ),
    ],
    Rule.UNPROVEN_TICKET: [
        Case(name="a proof", request=TIMESTAMP, reply=PLAIN_REP),
        Case(name="SPAKE", request=messages.as_req(padata=_padata(133, 151)), reply=PLAIN_REP),
        Case(name="FAST", request=FAST, reply=FAST_REP),
        Case(name="PKINIT", request=PKINIT, reply=PKINIT_REP),
        Case(name="a host", request=FIRST, reply=HOST_REP),
        Case(name="a TGS-REP", request=TGS, reply=messages.tgs_rep()),
        Case(name="an error", request=FIRST, reply=messages.krb_error(25)),
        Case(
            name="no proof",
            request=FIRST,
            reply=PLAIN_REP,
            finding="a ticket for alice without preauthentication",
        ),
        Case(
            name="no proof for a service",
            request=messages.as_req(padata=(), sname=(2, ("HTTP", "web"))),
            reply=messages.as_rep(sname=(2, ("HTTP", "web"))),
            finding="without preauthentication",
        ),
        Case(
            name="unknown padata",
            request=messages.as_req(padata=_padata(149, -77)),
            reply=PLAIN_REP,
            finding="without preauthentication",
        ),
        Case(name="FAST that the KDC ignored", request=FAST, reply=PLAIN_REP, finding="without"),
        Case(name="PKINIT that the KDC ignored", request=PKINIT, reply=PLAIN_REP, finding="without"),
    ],
    Rule.INITIAL_SERVICE: [
        Case(name="a ticket-granting ticket", request=FAST, reply=FAST_REP),
        Case(
            name="a password change", request=FAST, reply=messages.as_rep(sname=(1, ("kadmin", "changepw")))
        ),
        Case(name="a service's ticket by a TGS-REQ", request=TGS, reply=messages.tgs_rep()),
        Case(name="an error", request=FAST, reply=messages.krb_error(7, sname=(1, ("bob",)))),
        Case(
            name="another user's ticket, requested within armor",
            request=FAST,
            reply=messages.as_rep(sname=(1, ("bob",))),
            finding="AS-REP for bob",
        ),
    ],
    Rule.CNAME: [
        Case(name="an allowed client", request=FAST, reply=FAST_REP),
        Case(name="an error", request=FAST, reply=messages.krb_error(24, cname=(1, ("bob",)))),
        Case(name="a password change", request=messages.kpasswd_req(), reply=messages.kpasswd_rep()),
        Case(
            name="a denied client",
            request=FAST,
            reply=messages.as_rep(cname=(1, ("alice", "admin"))),
            finding='denied by "*/admin"',
        ),
        Case(
            name="a denied client in a TGS-REQ",
            request=TGS,
            reply=messages.tgs_rep(cname=(1, ("alice", "admin"))),
            finding="denied",
        ),
        Case(
            name="a client that the KDC hides",
            request=FAST,
            reply=messages.as_rep(cname=ANONYMOUS),
            finding="not among the allowed names",
        ),
    ],
    Rule.SNAME: [
        Case(name="a ticket-granting ticket", request=FAST, reply=FAST_REP),
        Case(name="a referral", request=TGS, reply=messages.tgs_rep(sname=(2, ("krbtgt", ELSEWHERE)))),
        Case(name="a service that is allowed", request=TGS, reply=messages.tgs_rep()),
        Case(name="an error", request=TGS, reply=messages.krb_error(7, sname=(2, ("cifs", "x")))),
        Case(
            name="a service that is denied",
            request=TGS,
            reply=messages.tgs_rep(sname=(2, ("HTTP", "dc1"))),
            finding='denied by "HTTP/dc*"',
        ),
        Case(
            name="other services, in an AS-REP",
            request=FAST,
            reply=messages.as_rep(sname=(2, ("kadmin", "changepw"))),
            finding="not among the allowed names",
        ),
    ],
}


def _request(payload: bytes) -> ProxyRequest:
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain="EXAMPLE.COM"))


@pytest.mark.parametrize(
    ("rule", "case"),
    [
        pytest.param(rule, case, id=f"{rule.value}-{case.name}")
        for rule, cases in CASES.items()
        for case in cases
    ],
)
def test_rule_finds_its_breaches_only(rule: Rule, case: Case) -> None:
    request = _request(case.request)
    finding = REPLY_RULES[rule](request, inspect_reply(request.kind, case.reply), NAMES, LISTS)

    if case.finding is None:
        assert finding is None
    else:
        assert finding is not None
        assert case.finding in finding


def test_every_rule_has_cases() -> None:
    assert set(CASES) == set(REPLY_RULES)


@pytest.mark.parametrize(
    ("reply", "service"),
    [
        (messages.tgs_rep(), "http/www.example.com@example.com"),
        (messages.tgs_rep(sname=(2, ("HTTP", "WWW.example.com"))), "http/www.example.com@example.com"),
        (messages.tgs_rep(srealm="EXAMPLE.ORG"), "http/www.example.com@example.org"),
        (messages.as_rep(sname=(2, ("HTTP", "web"))), "http/web@example.com"),
        (messages.tgs_rep(sname=(2, ("krbtgt", "OTHER"))), None),
        (messages.as_rep(), None),
        (messages.krb_error(7, sname=(2, ("HTTP", "web"))), None),
    ],
)
def test_service_of_a_ticket_is_folded(reply: bytes, service: str | None) -> None:
    kind = MessageKind.AS_REQ if reply[0] == 0x6B else MessageKind.TGS_REQ

    assert service_of(inspect_reply(kind, reply)) == service


@given(requests, replies)
def test_no_rule_raises_on_any_reply(payload: bytes, reply: tuple[MessageKind, bytes]) -> None:
    request, facts = _request(payload), inspect_reply(*reply)

    for check in REPLY_RULES.values():
        finding = check(request, facts, NAMES, LISTS)
        assert finding is None or finding


@given(requests, st.sampled_from([MessageKind.AS_REP, MessageKind.TGS_REP]))
def test_no_rule_raises_for_an_empty_reply(payload: bytes, kind: MessageKind) -> None:
    facts = ReplyFacts(kind=kind)

    for check in REPLY_RULES.values():
        check(_request(payload), facts, NAMES, LISTS)
    assert service_of(facts) is None
    assert service_of(ReplyFacts(kind=kind, sname=PrincipalName(name_type=1, components=("a",))))
