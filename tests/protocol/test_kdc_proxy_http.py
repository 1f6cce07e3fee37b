"""HTTP/1.1 to a KDC proxy, as bytes in and out."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.protocol import kdc_proxy_http
from kkdcpd.protocol.kdc_proxy_http import HttpClient, HttpResponse, ResponseError, judge
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify
from kkdcpd.values import FailureFacts, FailureReason
from tests.support import messages
from tests.support.fake_kdc_proxy import PORTAL, response

REPLY = messages.as_rep()
BODY = messages.envelope(REPLY, None)


def waiting_client(*, max_reply_bytes: int = 65536) -> HttpClient:
    client = HttpClient(max_reply_bytes=max_reply_bytes)
    client.request("POST", "/KdcProxy", kdc_proxy_http.post_headers("proxy.test", 443, 1, "1.1 a"), b"x")
    return client


def test_request_has_the_headers_that_policies_know() -> None:
    client = HttpClient(max_reply_bytes=1024)
    headers = kdc_proxy_http.post_headers("proxy.test", 8443, 4, "1.1 a")
    data = client.request("POST", "/TENANT/kerberos", headers, b"body")
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /TENANT/kerberos HTTP/1.1",
        b"Host: proxy.test:8443",
        b"User-Agent: kerberos/1.0",
        b"Content-Type: application/kerberos",
        b"Content-Length: 4",
        b"Cache-Control: no-cache",
        b"Via: 1.1 a",
    ]
    assert body == b"body"


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [("proxy.test", 443, "proxy.test"), ("::1", 443, "[::1]"), ("::1", 8443, "[::1]:8443")],
)
def test_host_has_the_port_if_it_is_not_443(host: str, port: int, expected: str) -> None:
    assert dict(kdc_proxy_http.post_headers(host, port, 0, "1.1 a"))["Host"] == expected


def test_body_has_the_message_the_target_domain_and_the_hint_of_the_client() -> None:
    envelope = messages.envelope(messages.as_req(), "CORP", hint=0x80000001)
    request = classify(decode_proxy_message(envelope))
    sent = decode_proxy_message(kdc_proxy_http.encode_body(request))
    assert sent == decode_proxy_message(envelope)


def test_request_without_a_message_has_an_empty_body() -> None:
    request = classify(decode_proxy_message(messages.envelope(messages.as_req())))
    assert kdc_proxy_http.encode_body(replace(request, kerb_message=b"")) == b""


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_response_is_whole_with_its_last_byte_however_it_arrives(size: int) -> None:
    client, data = waiting_client(), response(200, BODY)
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    results = [client.receive(part) for part in parts]
    assert [result.body for result in results if result] == [BODY]
    assert results[-1]


def test_connection_is_reusable_after_a_whole_response_only() -> None:
    cases = {
        response(200, BODY): True,
        response(200, BODY, "Connection: close"): False,
        response(200, BODY) + b"x": False,
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n": False,
    }
    for data, is_reusable in cases.items():
        result = waiting_client().receive(data)
        assert result
        assert result.is_reusable is is_reusable


def test_several_requests_use_one_connection() -> None:
    client = HttpClient(max_reply_bytes=65536)
    for number in range(3):
        client.request("POST", "/", kdc_proxy_http.post_headers("proxy.test", 443, 1, "1.1 a"), b"x")
        result = client.receive(response(200, bytes(number)))
        assert result
        assert result.body == bytes(number)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"garbage\r\n\r\n", FailureReason.BAD_REPLY),
        (b"HTTP/1.1 200 OK\r\nX: " + bytes(kdc_proxy_http.MAX_HEAD_BYTES), FailureReason.BAD_REPLY),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 9, FailureReason.BAD_REPLY),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", FailureReason.BAD_REPLY),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", FailureReason.BAD_REPLY),
        (response(200, bytes(1089)), FailureReason.REPLY_TOO_BIG),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1089\r\n\r\n", FailureReason.REPLY_TOO_BIG),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1089), FailureReason.REPLY_TOO_BIG),
    ],
)
def test_response_beyond_the_limits_is_refused(data: bytes, reason: FailureReason) -> None:
    with pytest.raises(ResponseError) as caught:
        waiting_client(max_reply_bytes=1024).receive(data)
    assert caught.value.reason is reason


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", response(200, BODY)[:-1]])
def test_end_before_the_end_of_the_response_is_a_closed_connection(sent: bytes) -> None:
    client = waiting_client()
    if sent:
        assert client.receive(sent) is None
    with pytest.raises(ResponseError) as caught:
        client.receive(b"")
    assert caught.value.reason is FailureReason.CLOSED


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ((), 0.0),
        (("Retry-After: 30",), 30.0),
        (("Retry-After: -1",), 0.0),
        (("Retry-After: 1e9",), 0.0),
        (("Retry-After: " + "9" * 400,), 0.0),
        (("Retry-After: soon",), 0.0),
        (("Date: Fri, 27 Nov 2026 10:00:00 GMT", "Retry-After: Fri, 27 Nov 2026 10:02:00 GMT"), 120.0),
        (("Date: Fri, 27 Nov 2026 10:00:00 GMT", "Retry-After: Fri, 27 Nov 2026 09:00:00 GMT"), 0.0),
        (("Retry-After: Fri, 27 Nov 2026 10:02:00 GMT",), 0.0),
    ],
)
def test_retry_after_is_read_in_both_forms(headers: tuple[str, ...], seconds: float) -> None:
    result = waiting_client().receive(response(503, b"", *headers))
    assert result
    assert judge(result).facts.retry_after == seconds


def test_retry_after_of_a_refused_message_is_not_about_the_proxy() -> None:
    assert judge(HttpResponse(status=403, retry_after=30.0)).facts == FailureFacts()


@pytest.mark.parametrize(
    ("headers", "is_undelivered"),
    [
        ((), False),
        (("Kdc-Has-Message: no",), True),
        (("kdc-has-message: NO",), True),
        (("Kdc-Has-Message: maybe",), False),
        (("Kdc-Has-Message: none",), False),
        (("Kdc-Has-Message: maybe", "Kdc-Has-Message: no"), False),
        (("Kdc-Has-Message: no", "Kdc-Has-Message: maybe"), False),
        (("Kdc-Has-Message: no, maybe",), False),
    ],
)
def test_only_the_word_no_says_that_no_kdc_has_the_message(
    headers: tuple[str, ...], is_undelivered: bool
) -> None:
    result = waiting_client().receive(response(503, b"", *headers))
    assert result
    assert judge(result).facts.is_undelivered is is_undelivered


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, FailureReason.PROXY_REFUSED),
        (429, FailureReason.PROXY_RATE_LIMITED),
        (503, FailureReason.PROXY_UNAVAILABLE),
        (508, FailureReason.PROXY_LOOP),
        *(
            (status, FailureReason.PROXY_ERROR)
            for status in (201, 204, 302, 400, 401, 404, 500, 502, 504, 599)
        ),
    ],
)
def test_every_status_has_its_reason(status: int, reason: FailureReason) -> None:
    assert judge(HttpResponse(status=status, body=BODY)).failure is reason


def test_only_a_kdc_proxy_message_is_a_reply() -> None:
    assert judge(HttpResponse(status=200, body=BODY)).payload == REPLY
    for body in (b"", PORTAL, BODY[:-1], BODY + b"x"):
        assert judge(HttpResponse(status=200, body=body)).failure is FailureReason.NOT_A_KDC_PROXY


def test_any_200_answers_a_request_without_a_message() -> None:
    assert judge(HttpResponse(status=200), is_empty=True).failure is None
    assert judge(HttpResponse(status=503), is_empty=True).failure is FailureReason.PROXY_UNAVAILABLE


@pytest.mark.parametrize(
    ("header", "request_id"),
    [("0123abcd", "0123abcd"), ("a b", None), ("x" * 65, None), ('"; rm', None), ("", None)],
)
def test_request_id_is_read_if_it_is_one_plain_word(header: str, request_id: str | None) -> None:
    result = waiting_client().receive(response(503, b"", f"x-ms-request-id: {header}"))
    assert result
    assert result.request_id == request_id


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("timeout=5", 5.0), ("max=100, Timeout=7", 7.0), ("x", None), ("timeout=-1", None)],
)
def test_keep_alive_time_is_read(header: str, seconds: float | None) -> None:
    result = waiting_client().receive(response(200, b"", f"Keep-Alive: {header}"))
    assert result
    assert result.keep_alive == seconds


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_any_bytes_are_a_response_or_an_error_of_this_module(parts: list[bytes]) -> None:
    client = waiting_client()
    try:
        for part in parts:
            if client.receive(part):
                return
    except ResponseError:
        return
