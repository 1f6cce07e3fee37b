"""The errors that local programs get, as pyasn1 and our reader read them."""

from dataclasses import replace

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.errors import MalformedError
from kkdcpd.frontends.local.requests import LocalRequest, refuse_uid
from kkdcpd.pipeline.joining import Answer
from kkdcpd.protocol.messages import inspect_reply
from kkdcpd.values import (
    ClientConnection,
    KdcReply,
    MessageKind,
    Outcome,
    Refusal,
    ReplyFacts,
    RequestResult,
    Rule,
)
from tests.support import kerberos_asn1 as asn1
from tests.support.messages import as_req, kpasswd_error, kpasswd_rep, kpasswd_req, prefixed, tgs_req

CLIENT = ClientConnection(address="unix", network="uid 1000", uid=1000)
ENDPOINT = KdcEndpoint(name="kdc", address="192.0.2.1", port=464, transport=Transport.TCP)

NEVER_LOCAL = {
    Outcome.ANSWERED,
    Outcome.BODY_TIMEOUT,
    Outcome.BODY_TOO_LARGE,
    Outcome.CLIENT_GONE,
    Outcome.MALFORMED_HTTP,
    Outcome.METHOD_NOT_ALLOWED,
    Outcome.NO_TARGET_DOMAIN,
    Outcome.PATH_NOT_FOUND,
}
LOCAL_OUTCOMES = [outcome for outcome in Outcome if outcome not in NEVER_LOCAL]
CODES = {Outcome.REFUSED: 12, Outcome.NO_KDC_REPLY: 60, Outcome.INTERNAL_ERROR: 60}
"""All other outcomes have 29: no KDC has the message."""

REQUESTS = {
    MessageKind.AS_REQ: as_req(),
    MessageKind.TGS_REQ: tgs_req(),
    MessageKind.KPASSWD_REQ: kpasswd_req(version=0xFF80),
}


def local_request(payload: bytes, *, has_next_kdc: bool = True) -> LocalRequest:
    return LocalRequest(CLIENT, prefixed(payload), has_next_kdc=has_next_kdc)


def replied(payload: bytes, error_code: int | None = None) -> RequestResult:
    facts = ReplyFacts(kind=MessageKind.KPASSWD_REP, error_code=error_code)
    reply = KdcReply(payload=payload, facts=facts, endpoint=ENDPOINT, attempts=1)
    return RequestResult(outcome=Outcome.ANSWERED, reply=reply)


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("outcome", LOCAL_OUTCOMES)
def test_error_code_says_whether_a_kdc_may_have_the_message(outcome: Outcome, kind: MessageKind) -> None:
    request = local_request(REQUESTS[kind])
    answer = request.respond(RequestResult(outcome=outcome), None)

    assert inspect_reply(kind, answer.payload).error_code == CODES.get(outcome, 29)
    assert f"(kkdcpd, request {request.id})".encode() in answer.payload
    assert request.bytes_out == len(answer.payload)


@pytest.mark.parametrize("outcome", LOCAL_OUTCOMES)
def test_program_without_another_kdc_is_not_sent_to_one(outcome: Outcome) -> None:
    request = local_request(as_req(), has_next_kdc=False)
    answer = request.respond(RequestResult(outcome=outcome), None)
    assert inspect_reply(MessageKind.AS_REQ, answer.payload).error_code == CODES.get(outcome, 60)


@pytest.mark.parametrize("outcome", LOCAL_OUTCOMES)
def test_sentence_of_an_error_does_not_name_http(outcome: Outcome) -> None:
    answer = local_request(as_req()).respond(RequestResult(outcome=outcome), None)
    text = bytes(asn1.decode(answer.payload, asn1.KRB_ERROR)["e-text"]).decode()
    assert not {"HTTP", "body", "KDC-PROXY-MESSAGE"} & set(text.replace(".", " ").split())


def test_refused_reply_of_a_kdc_is_code_12() -> None:
    refusal = Refusal(rule=Rule.UNPROVEN_TICKET, outcome=Outcome.REFUSED, text="no preauthentication")
    result = replace(replied(b"ticket"), outcome=Outcome.REFUSED, refusal=refusal)
    answer = local_request(as_req()).respond(result, None)
    assert inspect_reply(MessageKind.AS_REQ, answer.payload).error_code == 12
    assert b"No preauthentication. (kkdcpd, request" in answer.payload


def test_reply_is_passed_on_unchanged() -> None:
    answer = local_request(kpasswd_req()).respond(replied(b"reply"), b"reply")
    assert answer.payload == b"reply"


async def test_malformed_message_is_an_error_of_the_client() -> None:
    request = local_request(b"garbage")
    with pytest.raises(MalformedError):
        await request.read()
    answer = request.respond(RequestResult(outcome=Outcome.MALFORMED_MESSAGE), None)
    assert inspect_reply(MessageKind.AS_REQ, answer.payload).error_code == 29


async def test_message_is_read_with_its_facts_and_its_size() -> None:
    payload = kpasswd_req(realm="OTHER.TEST")
    request = local_request(payload)
    assert (await request.read()).target_domain == "OTHER.TEST"
    assert request.kind is MessageKind.KPASSWD_REQ
    assert request.bytes_in == len(payload)


def test_refused_user_is_named() -> None:
    request = local_request(as_req())
    result = refuse_uid(request, 1000)
    answer = request.respond(result, None)
    assert inspect_reply(MessageKind.AS_REQ, answer.payload).error_code == 12
    assert b"The user 1000 may not use this KDC proxy." in answer.payload
    assert (result.outcome, request.request) == (Outcome.REFUSED, request.parsed)


def test_newer_password_change_gets_the_error_of_the_first() -> None:
    """No key protects an error, so each client takes it."""
    answer = Answer(payload=kpasswd_error(3), result=replied(kpasswd_error(3), error_code=3))
    assert local_request(kpasswd_req()).answer_newer(answer) == answer


def test_newer_password_change_gets_a_text_if_the_first_has_an_encrypted_result() -> None:
    answer = Answer(payload=kpasswd_rep(), result=replied(kpasswd_rep()))
    newer = local_request(kpasswd_req()).answer_newer(answer).payload
    assert inspect_reply(MessageKind.KPASSWD_REQ, newer).error_code == 60
    error = asn1.decode(newer[6:], asn1.KRB_ERROR)
    assert bytes(error["e-data"]).startswith(b"\x00\x02The server has answered an earlier request")


@pytest.mark.parametrize("kind", REQUESTS)
def test_too_big_reply_demands_tcp(kind: MessageKind) -> None:
    assert inspect_reply(kind, local_request(REQUESTS[kind]).too_big()).error_code == 52
