import dataclasses

import pytest

from kkdcpd.errors import MalformedError, NoTargetDomainError
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify, classify_bare, inspect_reply
from kkdcpd.values import KdcService, MessageKind, PrincipalName, ProxyMessage, ProxyRequest
from tests.support import messages
from tests.support.captured import CAPTURED, captured

FREEIPA = "FREEIPA.LOCAL"
ADMIN = PrincipalName(name_type=1, components=("admin",))
KRBTGT = PrincipalName(name_type=2, components=("krbtgt", FREEIPA))
ETYPES = (18, 17, 16, 23, 25, 26)

REQUESTS = {
    MessageKind.AS_REQ: messages.as_req(),
    MessageKind.TGS_REQ: messages.tgs_req(),
    MessageKind.KPASSWD_REQ: messages.kpasswd_req(),
}
REPLIES = {
    "AS_REP": messages.as_rep(),
    "TGS_REP": messages.tgs_rep(),
    "KRB_ERROR": messages.krb_error(25),
    "KPASSWD_REP": messages.kpasswd_rep(),
    "framed KRB_ERROR": messages.kpasswd_error(60),
}
FITTING = {
    MessageKind.AS_REQ: {"AS_REP": MessageKind.AS_REP, "KRB_ERROR": MessageKind.KRB_ERROR},
    MessageKind.TGS_REQ: {"TGS_REP": MessageKind.TGS_REP, "KRB_ERROR": MessageKind.KRB_ERROR},
    MessageKind.KPASSWD_REQ: {
        "KPASSWD_REP": MessageKind.KPASSWD_REP,
        "framed KRB_ERROR": MessageKind.KPASSWD_REP,
        "KRB_ERROR": MessageKind.KRB_ERROR,
    },
}


def _classify(body: bytes) -> ProxyRequest:
    return classify(decode_proxy_message(body))


def _message(payload: bytes, target_domain: str | None = "EXAMPLE.COM") -> ProxyMessage:
    return ProxyMessage(kerb_message=messages.prefixed(payload), target_domain=target_domain)


def _expected(name: str) -> ProxyRequest:
    """The facts of each captured request by their README."""
    message = decode_proxy_message(captured(name))
    request = ProxyRequest(
        kind=MessageKind.AS_REQ,
        service=KdcService.KDC,
        target_domain=FREEIPA,
        realm=FREEIPA,
        kerb_message=message.kerb_message,
        cname=ADMIN,
        sname=KRBTGT,
        etypes=ETYPES,
        padata_types=(149,),
        kdc_options=0x40000010,
    )
    match name:
        case "asreq2":
            return dataclasses.replace(request, padata_types=(133, 2, 149))
        case "tgsreq":
            return dataclasses.replace(
                request,
                kind=MessageKind.TGS_REQ,
                cname=None,
                sname=PrincipalName(name_type=1, components=("http", "ipasrv.freeipa.local")),
                padata_types=(1, 136),
                kdc_options=0x40010000,
                is_armored=True,
                ticket_sname=PrincipalName(name_type=2, components=("krbtgt", "FREEIPA.LOCAL")),
            )
        case "kpasswdreq":
            return dataclasses.replace(
                request,
                kind=MessageKind.KPASSWD_REQ,
                service=KdcService.KPASSWD,
                cname=None,
                sname=PrincipalName(name_type=1, components=("kadmin", "changepw")),
                etypes=(),
                padata_types=(),
                kdc_options=0,
                kpasswd_version=1,
            )
    return request


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_request_is_known_in_all_its_parts(name: str) -> None:
    assert _classify(captured(name)) == _expected(name)


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_request_without_length_is_the_same_request(name: str) -> None:
    body = messages.envelope(_expected(name).payload, FREEIPA, has_prefix=False)

    assert _classify(body) == _expected(name)


@pytest.mark.parametrize(
    ("kind", "service"),
    [
        (MessageKind.AS_REQ, KdcService.KDC),
        (MessageKind.TGS_REQ, KdcService.KDC),
        (MessageKind.KPASSWD_REQ, KdcService.KPASSWD),
    ],
)
def test_each_kind_of_request_goes_to_its_service(kind: MessageKind, service: KdcService) -> None:
    request = classify(_message(REQUESTS[kind]))

    assert (request.kind, request.service) == (kind, service)


def test_set_password_request_of_rfc_3244_is_a_kpasswd_request() -> None:
    request = classify(_message(messages.kpasswd_req(version=0xFF80)))

    assert (request.kind, request.kpasswd_version) == (MessageKind.KPASSWD_REQ, 0xFF80)


def test_target_domain_stays_unchanged_beside_the_realm_in_the_message() -> None:
    request = classify(_message(messages.as_req(realm="EXAMPLE.COM"), "example"))

    assert (request.target_domain, request.realm) == ("example", "EXAMPLE.COM")


@pytest.mark.parametrize("kind", REQUESTS)
def test_hint_is_handed_on(kind: MessageKind) -> None:
    message = dataclasses.replace(_message(REQUESTS[kind]), dclocator_hint=-2147482112)

    assert classify(message).dclocator_hint == -2147482112


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("target_domain", [None, ""])
def test_request_without_target_domain_is_refused_as_such(
    target_domain: str | None, kind: MessageKind
) -> None:
    with pytest.raises(NoTargetDomainError):
        classify(_message(REQUESTS[kind], target_domain))


def test_what_is_no_request_is_malformed_even_without_target_domain() -> None:
    with pytest.raises(MalformedError):
        classify(_message(b"no request", None))


@pytest.mark.parametrize("name", REPLIES)
def test_reply_is_no_request(name: str) -> None:
    with pytest.raises(MalformedError):
        classify(_message(REPLIES[name]))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x",
        bytes(4),
        messages.ap_req(),
        messages.krb_priv(),
        messages.as_req() + b"\x00",
        messages.prefixed(messages.as_req()),
        messages.kpasswd_req(version=2),
        messages.kpasswd_frame(messages.ap_req(), messages.krb_priv(), length_error=1),
        messages.kpasswd_frame(messages.ap_req(), messages.krb_priv(), length_error=-1),
        messages.kpasswd_frame(messages.ap_req(), b""),
    ],
    ids=[
        "nothing",
        "an byte",
        "a length of zero",
        "AP-REQ",
        "KRB-PRIV",
        "an byte after an AS-REQ",
        "a second length",
        "kpasswd version 2",
        "kpasswd length too long",
        "kpasswd length too short",
        "kpasswd without KRB-PRIV",
    ],
)
def test_nothing_else_is_a_request(payload: bytes) -> None:
    with pytest.raises(MalformedError):
        classify(_message(payload))


@pytest.mark.parametrize("length", range(4))
def test_kerb_message_shorter_than_its_length_field_is_malformed(length: int) -> None:
    with pytest.raises(MalformedError):
        classify(ProxyMessage(kerb_message=bytes(length), target_domain="EXAMPLE.COM"))
    with pytest.raises(MalformedError):
        _classify(messages.envelope(bytes(length), has_prefix=False))


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("kind", REQUESTS)
def test_reply_fits_its_request_or_is_refused(kind: MessageKind, name: str) -> None:
    if name in FITTING[kind]:
        assert inspect_reply(kind, REPLIES[name]).kind is FITTING[kind][name]
    else:
        with pytest.raises(MalformedError):
            inspect_reply(kind, REPLIES[name])


@pytest.mark.parametrize(
    "reply", [messages.krb_error(60), messages.kpasswd_error(60)], ids=["bare", "framed"]
)
def test_code_of_a_kpasswd_servers_error_is_known_bare_or_framed(reply: bytes) -> None:
    assert inspect_reply(MessageKind.KPASSWD_REQ, reply).error_code == 60


def test_kpasswd_reply_may_have_another_version_than_the_request() -> None:
    for version in (1, 0xFF80):
        reply = messages.kpasswd_rep(version=version)
        assert inspect_reply(MessageKind.KPASSWD_REQ, reply).kind is MessageKind.KPASSWD_REP


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("payload", [b"", b"\x00", b"HTTP/1.1 400 Bad Request\r\n\r\n", *REQUESTS.values()])
def test_what_is_no_reply_is_refused(payload: bytes, kind: MessageKind) -> None:
    with pytest.raises(MalformedError):
        inspect_reply(kind, payload)


def test_requests_with_one_ticket_have_the_mark_of_the_reply_that_issued_it() -> None:
    marks = set()
    for cipher in (b"one" * 100, b"two" * 100):
        mark = inspect_reply(MessageKind.AS_REQ, messages.as_rep(cipher=cipher)).ticket_affinity
        assert inspect_reply(MessageKind.TGS_REQ, messages.tgs_rep(cipher=cipher)).ticket_affinity == mark
        tgs_req = messages.tgs_req(ticket=messages.ap_req(cipher=cipher))
        for request in (tgs_req, messages.kpasswd_req(cipher=cipher)):
            assert _classify(messages.envelope(request)).affinity == mark
        marks.add(mark)
    assert len(marks) == 2


def test_reply_without_a_ticket_has_no_mark() -> None:
    assert inspect_reply(MessageKind.AS_REQ, messages.krb_error(25)).ticket_affinity is None


@pytest.mark.parametrize(
    "payload",
    [
        messages.as_req(realm="OTHER.TEST"),
        messages.tgs_req(realm="OTHER.TEST"),
        messages.kpasswd_req(realm="OTHER.TEST"),
        messages.kpasswd_req(realm="OTHER.TEST", version=0xFF80),
    ],
    ids=["AS_REQ", "TGS_REQ", "kpasswd version 1", "kpasswd version 0xff80"],
)
def test_message_without_an_envelope_is_for_the_realm_in_the_message(payload: bytes) -> None:
    """The realm of a kpasswd request is in the ticket of its AP-REQ."""
    request = classify_bare(messages.prefixed(payload))

    assert request == classify(_message(payload, "OTHER.TEST"))
    assert request.target_domain == "OTHER.TEST"


def test_reply_without_an_envelope_is_no_request() -> None:
    with pytest.raises(MalformedError):
        classify_bare(messages.prefixed(messages.krb_error(25)))
