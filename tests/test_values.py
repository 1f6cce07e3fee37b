import dataclasses
import inspect

import pytest

from kkdcpd import values
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.values import (
    KdcReply,
    KdcService,
    MessageKind,
    Outcome,
    PrincipalName,
    ProxyRequest,
    ReplyFacts,
    RequestResult,
)

DATACLASSES = [item for _, item in inspect.getmembers(values, dataclasses.is_dataclass)]


@pytest.mark.parametrize("value", DATACLASSES)
def test_values_cannot_be_changed_and_name_their_fields(value: type) -> None:
    assert inspect.getsource(value).startswith("@frozen\n")
    assert all(field.kw_only for field in dataclasses.fields(value))
    assert hasattr(value, "__slots__")


def test_all_public_names_are_exported() -> None:
    classes = [
        name
        for name, item in inspect.getmembers(values, inspect.isclass)
        if item.__module__ == values.__name__
    ]
    assert sorted(values.__all__) == sorted(classes)


@pytest.mark.parametrize(("service", "port"), [(KdcService.KDC, 88), (KdcService.KPASSWD, 464)])
def test_service_has_its_port(service: KdcService, port: int) -> None:
    assert service.default_port == port


@pytest.mark.parametrize("outcome", Outcome)
def test_outcomes_are_words_for_logs(outcome: Outcome) -> None:
    assert outcome.value == outcome.name.lower()


@pytest.mark.parametrize(
    ("components", "text"),
    [
        (("alice",), "alice"),
        (("HTTP", "www.example.com"), "HTTP/www.example.com"),
        (("alice@example.com",), "alice\\@example.com"),
        (("a/b",), "a\\/b"),
        (("a\\b",), "a\\\\b"),
        (("a\\", "b"), "a\\\\/b"),
        ((), ""),
        (("", ""), "/"),
    ],
)
def test_principal_is_printed_as_mit_prints_it(components: tuple[str, ...], text: str) -> None:
    assert str(PrincipalName(name_type=1, components=components)) == text


@pytest.mark.parametrize(
    ("name", "transport", "text"),
    [
        ("kdc.example.com", Transport.TCP, "tcp://kdc.example.com:88"),
        ("192.0.2.10", Transport.UDP, "udp://192.0.2.10:88"),
        ("2001:db8::1", Transport.TCP, "tcp://[2001:db8::1]:88"),
    ],
)
def test_endpoint_is_printed_as_in_the_configuration(name: str, transport: Transport, text: str) -> None:
    assert str(KdcEndpoint(name=name, address="192.0.2.10", port=88, transport=transport)) == text


def test_payload_is_the_message_without_its_length() -> None:
    request = ProxyRequest(
        kind=MessageKind.AS_REQ,
        service=KdcService.KDC,
        target_domain="A",
        realm="A",
        kerb_message=b"\x00\x00\x00\x03abc",
    )
    assert request.payload == b"abc"


@pytest.mark.parametrize(
    ("outcome", "may_be_delivered"),
    [
        (Outcome.NO_KDC_REACHED, False),
        (Outcome.RATE_LIMITED, False),
        (Outcome.REFUSED, False),
        (Outcome.NO_KDC_REPLY, True),
        (Outcome.CLIENT_GONE, True),
        (Outcome.INTERNAL_ERROR, True),
    ],
)
def test_result_says_whether_a_kdc_may_have_the_message(outcome: Outcome, *, may_be_delivered: bool) -> None:
    assert RequestResult(outcome=outcome).may_be_delivered == may_be_delivered


def test_kdc_has_the_message_of_a_reply_that_the_guard_refuses() -> None:
    facts = ReplyFacts(kind=MessageKind.AS_REP)
    endpoint = KdcEndpoint(name="kdc", address="192.0.2.10", port=88, transport=Transport.TCP)
    reply = KdcReply(payload=b"", endpoint=endpoint, facts=facts, attempts=1)
    assert RequestResult(outcome=Outcome.REFUSED, reply=reply).may_be_delivered
