"""Tests of each rule about requests: messages of real clients that keep the rule, and that break it."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.config import PolicyConfig, PrincipalPattern
from kkdcpd.guard.names import RealmNames
from kkdcpd.guard.request_rules import REQUEST_RULES
from kkdcpd.protocol.messages import classify
from kkdcpd.values import MessageKind, ProxyMessage, ProxyRequest, Rule
from tests.support import messages
from tests.support.strategies import requests

ANONYMOUS = (11, ("WELLKNOWN", "ANONYMOUS"))
ADMIN = (1, ("alice", "admin"))
HOST = (1, ("host", "web.example.com"))
MACHINE = (1, ("WEB$",))
HIDDEN_BODY: dict[str, Any] = {
    "realm": "WELLKNOWN:ANONYMOUS",
    "cname": ANONYMOUS,
    "sname": None,
    "etypes": (),
    "till": "19700101000000Z",
    "options": b"\x00" * 4,
}
"""The fields that Heimdal leaves outside of its armor."""

DELEGATION: dict[str, Any] = {"options": b"\x40\x83\x00\x00", "tickets": [(1, ("host", "web.example.com"))]}

NAMES = RealmNames(["EXAMPLE.COM", "CORP"])


def _patterns(*texts: str) -> tuple[PrincipalPattern, ...]:
    return tuple(map(PrincipalPattern, texts))


LISTS = PolicyConfig(
    message_kinds=(MessageKind.AS_REQ, MessageKind.TGS_REQ),
    cname_allow=_patterns("al*", "host/*"),
    cname_deny=_patterns("*/admin"),
    sname_allow=_patterns("HTTP/*", "cifs/*"),
    sname_deny=_patterns("cifs/dc*"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request, and a part of the finding, or None."""

    name: str
    payload: bytes
    finding: str | None = None
    target_domain: str = "EXAMPLE.COM"


def _padata(*types: int) -> list[tuple[int, bytes]]:
    return [(number, b"x") for number in types]


FIRST = _padata(150, 149)

CASES: dict[Rule, list[Case]] = {
    Rule.MESSAGE_KIND: [
        Case(name="an AS-REQ", payload=messages.as_req()),
        Case(name="a TGS-REQ", payload=messages.tgs_req()),
        Case(name="a kpasswd request", payload=messages.kpasswd_req(), finding="KPASSWD_REQ is not relayed"),
    ],
    Rule.KPASSWD_SET: [
        Case(name="version 1", payload=messages.kpasswd_req()),
        Case(name="version 0xff80", payload=messages.kpasswd_req(version=0xFF80), finding="0xff80"),
        Case(name="an AS-REQ", payload=messages.as_req()),
    ],
    Rule.REALM_MISMATCH: [
        Case(name="the same realm", payload=messages.as_req()),
        Case(name="another case and a root dot", payload=messages.as_req(), target_domain="example.Com."),
        Case(
            name="lower case from a user of MIT's client",
            payload=messages.as_req(realm="example.com"),
            target_domain="example.com",
        ),
        Case(
            name="a NetBIOS name on both sides",
            payload=messages.as_req(realm="CORP"),
            target_domain="CORP",
        ),
        Case(name="a NetBIOS name within", payload=messages.as_req(realm="CORP")),
        Case(name="a NetBIOS name without", payload=messages.as_req(), target_domain="CORP"),
        Case(name="a NetBIOS name that is not configured", payload=messages.as_req(realm="EXAMPLE")),
        Case(
            name="an enterprise name of another realm",
            payload=messages.as_req(cname=(10, ("a@corp.example",))),
        ),
        Case(name="a TGS-REQ", payload=messages.tgs_req()),
        Case(
            name="a TGS-REQ for the way to another realm",
            payload=messages.tgs_req(sname=(2, ("krbtgt", "EXAMPLE.ORG"))),
        ),
        Case(
            name="a TGS-REQ with a ticket from another realm",
            payload=messages.tgs_req(
                ticket=messages.ap_req(realm="EXAMPLE.ORG", sname=(2, ("krbtgt", "EXAMPLE.COM")))
            ),
        ),
        Case(name="a kpasswd request", payload=messages.kpasswd_req()),
        Case(
            name="anonymous PKINIT",
            payload=messages.as_req(cname=ANONYMOUS, options=b"\x00\x00\x80\x00", padata=_padata(16, 149)),
        ),
        Case(name="Heimdal's FAST", payload=messages.as_req(padata=_padata(136), **HIDDEN_BODY)),
        Case(
            name="the anonymous realm without FAST",
            payload=messages.as_req(**HIDDEN_BODY),
            finding="names WELLKNOWN:ANONYMOUS",
        ),
        Case(
            name="another realm",
            payload=messages.as_req(realm="EXAMPLE.ORG"),
            finding="requested EXAMPLE.COM, but the message names EXAMPLE.ORG",
        ),
        Case(
            name="another realm within armor",
            payload=messages.as_req(realm="EXAMPLE.ORG", padata=_padata(136)),
            finding="EXAMPLE.ORG",
        ),
        Case(
            name="a child domain",
            payload=messages.tgs_req(realm="SUB.EXAMPLE.COM"),
            finding="SUB.EXAMPLE.COM",
        ),
        Case(
            name="a kpasswd request with a ticket of another realm",
            payload=messages.kpasswd_req(realm="EXAMPLE.ORG"),
            finding="EXAMPLE.ORG",
        ),
    ],
    Rule.REQUIRE_ARMOR: [
        Case(name="a first AS-REQ", payload=messages.as_req(padata=FIRST)),
        Case(name="a first AS-REQ of Windows", payload=messages.as_req(padata=_padata(128, 167))),
        Case(name="an AS-REQ without padata", payload=messages.as_req(padata=())),
        Case(name="FAST", payload=messages.as_req(padata=_padata(136))),
        Case(name="Heimdal's FAST", payload=messages.as_req(padata=_padata(136), **HIDDEN_BODY)),
        Case(name="PKINIT", payload=messages.as_req(padata=_padata(133, 16, 150, 149))),
        Case(name="PKINIT of Windows 2000", payload=messages.as_req(padata=_padata(15))),
        Case(
            name="anonymous PKINIT",
            payload=messages.as_req(cname=ANONYMOUS, padata=_padata(133, 16, 150, 149)),
        ),
        Case(name="a computer's timestamp", payload=messages.as_req(cname=MACHINE, padata=_padata(2))),
        Case(name="a host's timestamp", payload=messages.as_req(cname=HOST, padata=_padata(133, 2, 149))),
        Case(name="a TGS-REQ", payload=messages.tgs_req()),
        Case(name="a kpasswd request", payload=messages.kpasswd_req()),
        Case(
            name="a user's timestamp",
            payload=messages.as_req(padata=_padata(133, 2, 150, 149)),
            finding="a proof of a password in clear",
        ),
        Case(
            name="SPAKE",
            payload=messages.as_req(padata=_padata(133, 151)),
            finding="a proof of a password",
        ),
        Case(
            name="an unknown proof",
            payload=messages.as_req(padata=_padata(-77, 149)),
            finding="a possible proof of a password",
        ),
        Case(
            name="a timestamp beside invalid FAST",
            payload=messages.as_req(padata=_padata(136, 2)),
            finding="a proof of a password",
        ),
        Case(
            name="a timestamp beside invalid PKINIT",
            payload=messages.as_req(padata=_padata(16, 2)),
            finding="a proof of a password",
        ),
        Case(
            name="a timestamp without a client name",
            payload=messages.as_req(cname=None, padata=_padata(2)),
            finding="a proof of a password",
        ),
    ],
    Rule.WEAK_ETYPES: [
        Case(name="MIT's etypes", payload=messages.as_req()),
        Case(name="RC4 beside AES", payload=messages.as_req(etypes=(23, 17))),
        Case(name="Windows' etypes", payload=messages.tgs_req(etypes=(18, 17, 23, 24, -135))),
        Case(name="Heimdal's FAST", payload=messages.as_req(padata=_padata(136), **HIDDEN_BODY)),
        Case(name="a kpasswd request", payload=messages.kpasswd_req()),
        Case(name="RC4", payload=messages.as_req(etypes=(23,)), finding="offers only etypes 23"),
        Case(name="RC4 for a service", payload=messages.tgs_req(etypes=(23,)), finding="etypes 23"),
        Case(
            name="Windows XP's etypes",
            payload=messages.as_req(etypes=(23, -133, -128, 3, 1, 24, -135)),
            finding="23,-133,-128,3,1,24,-135",
        ),
        Case(
            name="RC4 within armor",
            payload=messages.as_req(padata=_padata(136), etypes=(23,)),
            finding="etypes 23",
        ),
        Case(name="no etypes", payload=messages.as_req(etypes=()), finding="etypes (none)"),
    ],
    Rule.INITIAL_SERVICE: [
        Case(name="a log-on", payload=messages.as_req()),
        Case(name="a log-on elsewhere", payload=messages.as_req(sname=(2, ("krbtgt", "OTHER")))),
        Case(name="a password change", payload=messages.as_req(sname=(1, ("kadmin", "changepw")))),
        Case(name="nothing in clear", payload=messages.as_req(**HIDDEN_BODY)),
        Case(name="a service's ticket by a TGS-REQ", payload=messages.tgs_req()),
        Case(
            name="kadmin",
            payload=messages.as_req(sname=(1, ("kadmin", "admin"))),
            finding="AS-REQ for kadmin/admin",
        ),
        Case(
            name="a user's key",
            payload=messages.as_req(cname=(1, ("kadmin", "changepw")), sname=(1, ("bob",))),
            finding="AS-REQ for bob",
        ),
    ],
    Rule.S4U2SELF: [
        Case(name="a TGS-REQ", payload=messages.tgs_req(padata=_padata(136, 167))),
        Case(name="an AS-REQ", payload=messages.as_req()),
        Case(
            name="PA-FOR-USER", payload=messages.tgs_req(padata=_padata(129)), finding="S4U2Self by TGS_REQ"
        ),
        Case(
            name="MIT's kvno -U", payload=messages.tgs_req(padata=_padata(136, 130, 129)), finding="S4U2Self"
        ),
        Case(
            name="an AS-REQ by certificate",
            payload=messages.as_req(padata=_padata(130)),
            finding="S4U2Self by AS_REQ",
        ),
    ],
    Rule.S4U2PROXY: [
        Case(name="a TGS-REQ", payload=messages.tgs_req()),
        Case(
            name="user to user",
            payload=messages.tgs_req(options=b"\x00\x00\x00\x08", tickets=[(2, ("krbtgt", "EXAMPLE.COM"))]),
        ),
        Case(name="an old draft's anonymity", payload=messages.tgs_req(options=b"\x00\x02\x00\x00")),
        Case(
            name="delegation",
            payload=messages.tgs_req(**DELEGATION),
            finding="S4U2Proxy to HTTP/www.example.com",
        ),
    ],
    Rule.CNAME: [
        Case(name="an allowed client", payload=messages.as_req()),
        Case(name="a TGS-REQ", payload=messages.tgs_req()),
        Case(name="a kpasswd request", payload=messages.kpasswd_req()),
        Case(
            name="the anonymous client, in armor",
            payload=messages.as_req(padata=_padata(136), cname=ANONYMOUS),
        ),
        Case(name="no name", payload=messages.as_req(cname=None)),
        Case(name="a denied client", payload=messages.as_req(cname=ADMIN), finding='denied by "*/admin"'),
        Case(
            name="a denied client, in armor",
            payload=messages.as_req(cname=ADMIN, padata=_padata(136)),
            finding="denied",
        ),
        Case(
            name="others", payload=messages.as_req(cname=(1, ("bob",))), finding="not among the allowed names"
        ),
        Case(
            name="the anonymous client",
            payload=messages.as_req(cname=ANONYMOUS),
            finding="not among the allowed names",
        ),
    ],
    Rule.SNAME: [
        Case(name="the ticket-granting service", payload=messages.as_req()),
        Case(name="the way to another realm", payload=messages.tgs_req(sname=(2, ("krbtgt", "OTHER")))),
        Case(name="a service that is allowed", payload=messages.tgs_req()),
        Case(name="a kpasswd request", payload=messages.kpasswd_req()),
        Case(name="no name", payload=messages.tgs_req(sname=None)),
        Case(
            name="a service that is denied",
            payload=messages.tgs_req(sname=(2, ("CIFS", "DC1.example.com"))),
            finding='denied by "cifs/dc*"',
        ),
        Case(name="others", payload=messages.tgs_req(sname=HOST), finding="not among the allowed names"),
        Case(
            name="a password change",
            payload=messages.as_req(sname=(2, ("kadmin", "changepw"))),
            finding="not among the allowed names",
        ),
        Case(
            name="a ticket-granting service in one component",
            payload=messages.tgs_req(sname=(1, ("krbtgt/EXAMPLE.COM",))),
            finding="not among the allowed names",
        ),
    ],
}


def _request(payload: bytes, target_domain: str = "EXAMPLE.COM") -> ProxyRequest:
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain=target_domain))


@pytest.mark.parametrize(
    ("rule", "case"),
    [
        pytest.param(rule, case, id=f"{rule.value}-{case.name}")
        for rule, cases in CASES.items()
        for case in cases
    ],
)
def test_rule_finds_its_breaches_only(rule: Rule, case: Case) -> None:
    finding = REQUEST_RULES[rule](_request(case.payload, case.target_domain), NAMES, LISTS)

    if case.finding is None:
        assert finding is None
    else:
        assert finding is not None
        assert case.finding in finding


def test_every_rule_has_cases() -> None:
    assert set(CASES) == set(REQUEST_RULES)


@given(requests, st.sampled_from(["EXAMPLE.COM", "x", "\udcfc"]))
def test_no_rule_raises_on_any_request(payload: bytes, target_domain: str) -> None:
    request = _request(payload, target_domain)

    for check in REQUEST_RULES.values():
        finding = check(request, NAMES, LISTS)
        assert finding is None or finding
