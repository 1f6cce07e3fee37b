"""KRB-ERRORs of our own: as pyasn1 reads them, and as our reader does."""

import pytest

from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.krb_error import build_error
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.values import MessageKind, PrincipalName, ProxyMessage, ProxyRequest
from tests.support import kerberos_asn1 as asn1
from tests.support import messages

TEXT = "This proxy takes no passwords without FAST armor."
NOON = 1767268800.25  # 2026-01-01 12:00:00.25 UTC


def _request(payload: bytes) -> ProxyRequest:
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain="corp"))


def _policy_error(request: ProxyRequest) -> bytes:
    return build_error(KrbErrorCode.KDC_ERR_POLICY, TEXT, request=request, now=NOON)


@pytest.mark.parametrize(
    ("request_", "sname"),
    [
        (messages.as_req(), ["krbtgt", "EXAMPLE.COM"]),
        (messages.as_req(sname=None), ["krbtgt", "EXAMPLE.COM"]),
        (messages.tgs_req(), ["HTTP", "www.example.com"]),
    ],
    ids=["AS-REQ", "AS-REQ without sname", "TGS-REQ"],
)
def test_reply_to_a_request_is_a_krb_error_of_the_requested_service(
    request_: bytes, sname: list[str]
) -> None:
    error = asn1.decode(_policy_error(_request(request_)), asn1.KRB_ERROR)

    assert int(error["error-code"]) == 12
    assert bytes(error["e-text"]).decode() == TEXT
    assert bytes(error["realm"]) == b"EXAMPLE.COM"
    assert [bytes(component).decode() for component in error["sname"]["name-string"]] == sname
    assert (str(error["stime"]), int(error["susec"])) == ("20260101120000Z", 250000)
    assert not error["e-data"].isValue


@pytest.mark.parametrize("version", [1, 0xFF80])
def test_kpasswd_request_is_answered_within_its_frame(version: int) -> None:
    payload = _policy_error(_request(messages.kpasswd_req(version=version)))

    assert payload[:6] == len(payload).to_bytes(2, "big") + b"\x00\x01\x00\x00"
    error = asn1.decode(payload[6:], asn1.KRB_ERROR)
    assert int(error["error-code"]) == 12
    assert bytes(error["e-data"]) == b"\x00\x05" + TEXT.encode()
    assert [bytes(component) for component in error["sname"]["name-string"]] == [b"kadmin", b"changepw"]


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (messages.as_req(), MessageKind.KRB_ERROR),
        (messages.tgs_req(), MessageKind.KRB_ERROR),
        (messages.kpasswd_req(), MessageKind.KPASSWD_REP),
    ],
)
def test_answer_fits_the_request(request_: bytes, kind: MessageKind) -> None:
    request = _request(request_)
    facts = inspect_reply(request.kind, _policy_error(request))

    assert (facts.kind, facts.error_code) == (kind, 12)


def test_no_byte_of_a_name_is_lost() -> None:
    name = (1, ("HTTP", "b\udcfccher"))
    request = _request(messages.tgs_req(realm="B\udcdcCHER", sname=name))
    payload = _policy_error(request)

    assert inspect_reply(MessageKind.TGS_REQ, payload).sname == PrincipalName(name_type=1, components=name[1])
    assert b"B\xdcCHER" in payload


@pytest.mark.parametrize(
    "code", [KrbErrorCode.KDC_ERR_SVC_UNAVAILABLE, KrbErrorCode.KRB_ERR_GENERIC], ids=lambda code: code.name
)
@pytest.mark.parametrize("version", [1, 0xFF80])
def test_failure_of_a_password_change_is_a_server_error_with_its_text(
    code: KrbErrorCode, version: int
) -> None:
    request = _request(messages.kpasswd_req(version=version))
    payload = build_error(code, TEXT, request=request, now=NOON)

    error = asn1.decode(payload[6:], asn1.KRB_ERROR)
    assert int(error["error-code"]) == code
    assert bytes(error["e-data"]) == b"\x00\x02" + TEXT.encode()


def test_error_without_a_text_has_neither_text_nor_result_code() -> None:
    """MIT's kpasswd reads the error code only if there is no result code."""
    request = _request(messages.kpasswd_req())
    payload = build_error(KrbErrorCode.KRB_ERR_RESPONSE_TOO_BIG, request=request, now=NOON)

    error = asn1.decode(payload[6:], asn1.KRB_ERROR)
    assert int(error["error-code"]) == 52
    assert not error["e-text"].isValue
    assert not error["e-data"].isValue


def test_error_that_answers_no_request_has_an_empty_realm() -> None:
    payload = build_error(KrbErrorCode.KRB_ERR_FIELD_TOOLONG, TEXT, now=NOON)

    error = asn1.decode(payload, asn1.KRB_ERROR)
    assert (int(error["error-code"]), bytes(error["realm"])) == (61, b"")
    assert inspect_reply(MessageKind.AS_REQ, payload).error_code == 61
