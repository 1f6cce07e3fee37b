from dataclasses import replace

import pytest

from kkdcpd.guard import traits
from kkdcpd.protocol.messages import classify
from kkdcpd.values import MessageKind, PrincipalName, ProxyMessage, ProxyRequest, ReplyFacts
from tests.support import messages

CNAME_IN_ADDL_TKT = b"\x00\x02\x00\x00"
TICKETS = [(1, ("host", "web"))]


def _request(payload: bytes) -> ProxyRequest:
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain="EXAMPLE.COM"))


def _name(*components: str) -> PrincipalName:
    return PrincipalName(name_type=1, components=components)


@pytest.mark.parametrize(
    ("components", "is_krbtgt"),
    [
        (("krbtgt", "EXAMPLE.COM"), True),
        (("KRBTGT", "OTHER"), True),
        (("krbtgt",), False),
        (("krbtgt/EXAMPLE.COM",), False),
        (("krbtgt", "a", "b"), False),
        (("HTTP", "krbtgt"), False),
        ((), False),
    ],
)
def test_krbtgt_has_two_components(components: tuple[str, ...], is_krbtgt: bool) -> None:
    assert traits.is_krbtgt(_name(*components)) is is_krbtgt


@pytest.mark.parametrize(
    ("components", "is_machine"),
    [
        (("WEB$",), True),
        (("web$@EXAMPLE.COM",), True),
        (("host", "web.example.com"), True),
        (("HOST", "web"), True),
        (("host/web.example.com",), True),
        (("alice",), False),
        (("alice@evil$",), False),
        (("alice", "admin$"), False),
        (("host",), False),
        (("hosting", "web"), False),
        (("HTTP", "web"), False),
        ((), False),
    ],
)
def test_machine_is_recognized_by_its_name(components: tuple[str, ...], is_machine: bool) -> None:
    assert traits.is_machine(_name(*components)) is is_machine


@pytest.mark.parametrize("cname", [("WELLKNOWN", "ANONYMOUS"), ("alice",)])
@pytest.mark.parametrize("padata", [[], [(136, b"fast")]])
def test_client_hides_behind_armor_and_the_anonymous_name(
    cname: tuple[str, ...], padata: list[tuple[int, bytes]]
) -> None:
    request = _request(messages.as_req(cname=(11, cname), padata=padata))

    assert traits.hides_its_client(request) is (bool(padata) and cname == ("WELLKNOWN", "ANONYMOUS"))


@pytest.mark.parametrize(
    ("padata_type", "is_password", "is_pkinit"),
    [
        (2, True, False),
        (13, True, False),
        (31, True, False),
        (151, True, False),
        (14, False, True),
        (15, False, True),
        (16, False, True),
        (128, False, False),
        (133, False, False),
        (136, False, False),
        (149, False, False),
        (142, False, False),
        (-999, False, False),
    ],
)
def test_proofs_are_recognized_by_their_padata(padata_type: int, is_password: bool, is_pkinit: bool) -> None:
    request = _request(messages.as_req(padata=[(149, b""), (padata_type, b"")]))

    assert traits.has_password_proof(request) is is_password
    assert traits.has_pkinit(request) is is_pkinit


@pytest.mark.parametrize(
    ("padata", "reply", "proves"),
    [
        ((2,), (19,), True),
        ((16,), (17,), True),
        ((15,), (15,), True),
        ((16,), (19,), False),
        ((2, 136), (136,), False),
        ((136,), (136,), False),
        ((151,), (19,), False),
        ((12, 13, 14, 30, 31), (19,), False),
        ((), (19,), False),
        ((), (17,), False),
    ],
)
def test_ticket_proves_its_client_by_padata_that_kdcs_never_ignore(
    padata: tuple[int, ...], reply: tuple[int, ...], proves: bool
) -> None:
    request = _request(messages.as_req(padata=[(kind, b"") for kind in padata]))
    facts = ReplyFacts(kind=MessageKind.AS_REP, padata_types=reply)

    assert traits.proves_client(request, facts) is proves


@pytest.mark.parametrize(
    ("padata_type", "may_have", "is_possible"),
    [
        (2, True, True),
        (13, True, False),
        (16, True, False),
        (136, True, False),
        (149, False, False),
        (151, True, True),
    ],
)
def test_request_may_have_a_proof(padata_type: int, may_have: bool, is_possible: bool) -> None:
    request = _request(messages.as_req(padata=[(padata_type, b"")]))

    assert traits.may_have_proof(request) is may_have
    assert traits.has_possible_proof(request) is is_possible


@pytest.mark.parametrize(
    ("components", "is_for_logon"),
    [
        (("krbtgt", "EXAMPLE.COM"), True),
        (("kadmin", "changepw"), True),
        (("KADMIN", "ChangePW"), True),
        (("kadmin", "admin"), False),
        (("krbtgt",), False),
        (("alice",), False),
        ((), False),
    ],
)
def test_log_ons_request_two_services(components: tuple[str, ...], is_for_logon: bool) -> None:
    assert traits.is_logon_service(_name(*components)) is is_for_logon


@pytest.mark.parametrize(
    ("padata_types", "is_armored"),
    [((), False), ((19,), False), ((19, 136), True), ((17,), True), ((15,), True), ((16, 133), False)],
)
def test_armor_of_a_reply_is_recognized_by_its_padata(
    padata_types: tuple[int, ...], is_armored: bool
) -> None:
    assert traits.has_armor(ReplyFacts(kind=MessageKind.AS_REP, padata_types=padata_types)) is is_armored


@pytest.mark.parametrize(
    ("etypes", "is_strong"),
    [
        (messages.ETYPES, True),
        ((23, 18), True),
        ((20,), True),
        ((26,), True),
        ((23,), False),
        ((23, -133, -128, 24, 3, 1, 2), False),
        ((16,), False),
        ((23, 999), False),
        ((), False),
    ],
)
def test_etypes_that_are_not_deprecated_are_strong(etypes: tuple[int, ...], is_strong: bool) -> None:
    assert traits.has_strong_etype(_request(messages.as_req(etypes=etypes))) is is_strong


@pytest.mark.parametrize("padata_type", [129, 130])
@pytest.mark.parametrize("build", [messages.tgs_req, messages.as_req])
def test_s4u2self_is_recognized_by_its_padata(build: type, padata_type: int) -> None:
    assert traits.is_s4u2self(_request(build(padata=[(padata_type, b"")])))
    assert not traits.is_s4u2self(_request(build(padata=[(128, b"")])))


def test_s4u2proxy_is_recognized_by_its_option_and_ticket() -> None:
    request = _request(messages.tgs_req(options=CNAME_IN_ADDL_TKT, tickets=TICKETS))

    assert traits.is_s4u2proxy(request)
    assert not traits.is_s4u2proxy(replace(request, kind=MessageKind.AS_REQ))
    assert not traits.is_s4u2proxy(_request(messages.tgs_req(options=CNAME_IN_ADDL_TKT)))
    assert not traits.is_s4u2proxy(_request(messages.tgs_req(options=b"\x00\x00\x00\x08", tickets=TICKETS)))
