"""The probe, a well-formed AS-REQ that gets no ticket, and the meaning of its answers."""

import pytest

from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify
from kkdcpd.protocol.probe import build_kpasswd_probe, build_probe, judge_probe
from kkdcpd.values import FailureReason, MessageKind, ProxyMessage
from tests.support import kerberos_asn1 as asn1
from tests.support import messages, oracle


@pytest.mark.parametrize(
    ("principal", "cname"),
    [
        ("krbtgt", "krbtgt/EXAMPLE.COM"),
        ("probe", "probe"),
        ("host/kkdcpd.example.com", "host/kkdcpd.example.com"),
    ],
)
def test_probe_is_an_as_req_for_the_principal(principal: str, cname: str) -> None:
    probe = build_probe("EXAMPLE.COM", principal)
    message = decode_proxy_message(messages.envelope(probe.payload))
    request = classify(message)
    assert request == oracle.proxy_request(message)
    assert (request.kind, request.realm, request.padata_types) == (MessageKind.AS_REQ, "EXAMPLE.COM", ())
    assert (str(request.cname), str(request.sname)) == (cname, "krbtgt/EXAMPLE.COM")


def test_probe_requests_a_ticket_with_an_end_long_ago() -> None:
    request = asn1.decode(build_probe("EXAMPLE.COM", "krbtgt").payload, asn1.AS_REQ)
    assert str(request["req-body"]["till"]) == "19700102000000Z"


def test_kpasswd_probe_is_a_request_to_the_realms_password_server() -> None:
    request = classify(decode_proxy_message(messages.envelope(build_kpasswd_probe("EXAMPLE.COM"))))
    assert (request.kind, request.realm) == (MessageKind.KPASSWD_REQ, "EXAMPLE.COM")
    assert str(request.sname) == "kadmin/changepw"


def test_probe_has_its_length_before_it() -> None:
    probe = build_probe("EXAMPLE.COM", "krbtgt")
    assert classify(ProxyMessage(kerb_message=probe.kerb_message, target_domain="EXAMPLE.COM")).realm


@pytest.mark.parametrize("code", [6, 11, 14, 18, 25, 68])
def test_kdc_with_any_answer_is_healthy(code: int) -> None:
    assert judge_probe(messages.krb_error(code)) is None
    assert judge_probe(messages.as_rep()) is None


def test_kdc_with_the_error_svc_unavailable_is_unhealthy() -> None:
    assert judge_probe(messages.krb_error(29)) is FailureReason.SERVICE_UNAVAILABLE


@pytest.mark.parametrize("payload", [b"", b"garbage", messages.tgs_rep(), messages.as_req()])
def test_other_bytes_than_an_answer_are_a_bad_reply(payload: bytes) -> None:
    assert judge_probe(payload) is FailureReason.BAD_REPLY
