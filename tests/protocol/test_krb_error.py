"""KRB-ERRORs of our own: as pyasn1 reads them, and as our reader does."""

import pytest

from kkdcpd.protocol.krb_error import build_policy_error
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.values import MessageKind, PrincipalName, ProxyMessage, ProxyRequest
from tests.support import kerberos_asn1 as asn1
from tests.support import messages

TEXT = "This proxy takes no passwords without FAST armor."
NOON = 1767268800.25  # 2026-01-01 12:00:00.25 UTC


def _request(payload: bytes) -> ProxyRequest:
    return classify(ProxyMessage(kerb_message=messages.prefixed(payload), target_domain="corp"))


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
    error = asn1.decode(build_policy_error(_request(request_), TEXT, NOON), asn1.KRB_ERROR)

    assert int(error["error-code"]) == 12
    assert bytes(error["e-text"]).decode() == TEXT
    assert bytes(error["realm"]) == b"EXAMPLE.COM"
    assert [bytes(component).decode() for component in error["sname"]["name-string"]] == sname
    assert (str(error["stime"]), int(error["susec"])) == ("20260101120000Z", 250000)
    assert not error["e-data"].isValue


@pytest.mark.parametrize("version", [1, 0xFF80])
def test_kpasswd_request_is_answered_within_its_frame(version: int) -> None:
    payload = build_policy_error(_request(messages.kpasswd_req(version=version)), TEXT, NOON)

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
    facts = inspect_reply(request.kind, build_policy_error(request, TEXT, NOON))

    assert (facts.kind, facts.error_code) == (kind, 12)


def test_no_byte_of_a_name_is_lost() -> None:
    name = (1, ("HTTP", "b\udcfccher"))
    request = _request(messages.tgs_req(realm="B\udcdcCHER", sname=name))
    payload = build_policy_error(request, TEXT, NOON)

    assert inspect_reply(MessageKind.TGS_REQ, payload).sname == PrincipalName(name_type=1, components=name[1])
    assert b"B\xdcCHER" in payload
