"""HTTP requests, good and bad, to a real kkdcpd over real sockets."""

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from kkdcpd.config import Config
from kkdcpd.frontends.kdc_proxy import KdcProxyFrontend
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.pipeline.relay import Relay
from kkdcpd.values import ClientConnection, ProxyRequest, RequestResult
from lab.authority import Authority
from tests.frontends.inside import Talk, listening, running_acceptor
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD, Site
from tests.support.captured import CAPTURED, captured
from tests.support.fake_kdc import Link, garbage, reply
from tests.support.http_client import HttpClient, post
from tests.support.messages import as_rep, as_req, envelope, kpasswd_req, krb_error, prefixed, tgs_req
from tests.support.shared import own_counts, own_table

ODD_BODY = envelope(as_req(realm="ODD.TEST"), "ODD.TEST")
MAX_BODY_BYTES = 262144
TEN_MEGABYTES = bytes(10_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A request that is refused, with its expected status, outcome and connection."""

    name: str
    raw: bytes = field(repr=False)
    status: int
    outcome: str
    keeps_connection: bool = False
    method: str = "POST"


def malformed_http(name: str, raw: bytes) -> Row:
    return Row(name=name, raw=raw, status=400, outcome="malformed_http")


def malformed_message(name: str, body: bytes) -> Row:
    return Row(name=name, raw=post(body), status=400, outcome="malformed_message")


def wrong_method(method: str) -> Row:
    raw = post(b"", method=method)
    return Row(name=method, raw=raw, status=405, outcome="method_not_allowed", method=method)


def wrong_path(path: str) -> Row:
    return Row(name=f"path {path}", raw=post(GOOD_BODY, path=path), status=404, outcome="path_not_found")


def unserved(name: str, realm: str) -> Row:
    body = envelope(as_req(), realm)
    return Row(name=name, raw=post(body), status=503, outcome="realm_not_served", keeps_connection=True)


def no_kdc(outcome: str, body: bytes) -> Row:
    return Row(name=outcome, raw=post(body), status=503, outcome=outcome, keeps_connection=True)


def chunked(*chunks: bytes, headers: tuple[str, ...] = ()) -> bytes:
    head = "\r\n".join(
        ("POST /KdcProxy HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked", *headers, "", "")
    )
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def head(*headers: str, line: str = "POST /KdcProxy HTTP/1.1") -> bytes:
    return "\r\n".join((line, "Host: localhost", *headers, "", "")).encode()


def kerb_message_of(raw: bytes) -> bytes:
    return envelope(raw, has_prefix=False)


AS_REQ = captured("asreq1")
assert AS_REQ[:3] == b"\x30\x81\xc4"

ROWS = (
    *map(wrong_method, ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND")),
    Row(
        name="CONNECT",
        raw=head(line="CONNECT 192.0.2.1:88 HTTP/1.1"),
        status=404,
        outcome="path_not_found",
    ),
    *map(
        wrong_path,
        (
            "/%4bdcProxy",
            "/KdcProxy%2f",
            "/other",
            "/KdcProxy/more",
            "/KdcProxyy",
            "//KdcProxy",
            "/%00",
            "/Kdc%0aProxy",
        ),
    ),
    malformed_message("empty body", b""),
    malformed_message("garbage", b"\x00\xff" * 100),
    malformed_message("text", b"kerberos, please"),
    malformed_message("BER indefinite length", b"\x30\x80" + AS_REQ[3:] + b"\x00\x00"),
    malformed_message("length not minimal", b"\x30\x82\x00\xc4" + AS_REQ[3:]),
    malformed_message("trailing byte", AS_REQ + b"\x00"),
    malformed_message("two messages", AS_REQ + AS_REQ),
    malformed_message("prefix too long", kerb_message_of(b"\x00\x00\x00\xff" + as_req())),
    malformed_message("prefix too short", kerb_message_of(b"\x00\x00\x00\x05" + as_req())),
    malformed_message("prefix of 4 GiB", kerb_message_of(b"\xff\xff\xff\xff" + as_req())),
    malformed_message("trailing byte inside", envelope(as_req() + b"\x00")),
    *(malformed_message(f"kerb-message of {n} bytes", kerb_message_of(bytes(n))) for n in range(5)),
    malformed_message("prefix and nothing", kerb_message_of(b"\x00\x00\x00\x00")),
    malformed_message("KRB-ERROR as a request", envelope(krb_error(25))),
    malformed_message("AS-REP as a request", envelope(as_rep())),
    malformed_message("our own reply", GOOD_REPLY),
    Row(
        name="no target-domain",
        raw=post(envelope(as_req(), None)),
        status=400,
        outcome="no_target_domain",
    ),
    Row(
        name="empty target-domain",
        raw=post(envelope(as_req(), "")),
        status=400,
        outcome="no_target_domain",
    ),
    Row(
        name="length of 5,000 digits",
        raw=head(f"Content-Length: {'0' * 4999}1") + b"A",
        status=400,
        outcome="malformed_http",
    ),
    Row(name="10 MB body", raw=post(TEN_MEGABYTES), status=413, outcome="body_too_large"),
    Row(name="10 MB in one chunk", raw=chunked(TEN_MEGABYTES), status=413, outcome="body_too_large"),
    Row(
        name="10 MB in chunks",
        raw=chunked(*[TEN_MEGABYTES[:50_000]] * 200),
        status=413,
        outcome="body_too_large",
    ),
    Row(
        name="one byte over the limit",
        raw=post(bytes(MAX_BODY_BYTES + 1)),
        status=413,
        outcome="body_too_large",
    ),
    malformed_message("body of the limit", bytes(MAX_BODY_BYTES)),
    unserved("unknown realm", "OTHER.TEST"),
    unserved("realm with NUL", "EXAMPLE.COM\x00"),
    unserved("realm with newline", 'EXAMPLE.COM\n2026-01-01T00:00:00.000Z info exchange id="0"'),
    unserved("realm with control characters", "\x1b[31m\x7f\x85\u2028"),
    unserved("realm with slash", "../../EXAMPLE.COM"),
    unserved("realm that isn't UTF-8", "\udcff\udc80"),
    unserved("realm of 4,000 characters", "A" * 4_000),
    malformed_message("realm of 10,000 characters", envelope(as_req(), "A" * 10_000)),
    unserved("realm called global", "global"),
    no_kdc("no_kdc_known", envelope(kpasswd_req())),
    no_kdc("no_kdc_reached", envelope(as_req(realm="DEAD.TEST"), "DEAD.TEST")),
    no_kdc("no_kdc_reply", envelope(as_req(realm="MUTE.TEST"), "MUTE.TEST")),
    Row(
        name="way of sixteen proxies",
        raw=post(GOOD_BODY, "Via: " + ", ".join(f"1.1 proxy{number}" for number in range(16))),
        status=508,
        outcome="loop_detected",
        keeps_connection=True,
    ),
    malformed_http("not HTTP", b"This is no HTTP at all.\r\n\r\n"),
    malformed_http("binary", bytes(range(256))),
    malformed_http("TLS within TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    malformed_http("SSH", b"SSH-2.0-OpenSSH_9.9\r\n"),
    malformed_http("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    malformed_http("HTTP/1.1 without Host", b"POST /KdcProxy HTTP/1.1\r\nContent-Length: 1\r\n\r\nA"),
    malformed_http("two Hosts", post(GOOD_BODY, "Host: other")),
    malformed_http("HTTP/9.9", head(line="POST /KdcProxy HTTP/9.9")),
    malformed_http("unknown method", head(line="KERBEROS /KdcProxy HTTP/1.1")),
    malformed_http("over-long request line", head(line=f"POST /{'a' * 20_000} HTTP/1.1")),
    malformed_http("over-long header line", post(GOOD_BODY, f"X-Long: {'a' * 20_000}")),
    malformed_http("over-long header name", post(GOOD_BODY, f"{'X' * 20_000}: a")),
    malformed_http("ten thousand headers", post(GOOD_BODY, *(f"X-{n}: a" for n in range(10_000)))),
    malformed_http("header with NUL", post(GOOD_BODY, "X: a\0b")),
    malformed_http("header without colon", post(GOOD_BODY, "X")),
    malformed_http("header name with space", post(GOOD_BODY, "X Y: a")),
    malformed_http("Content-Length that is no number", head("Content-Length: many")),
    malformed_http("negative Content-Length", head("Content-Length: -1")),
    malformed_http("two Content-Lengths", post(GOOD_BODY, "Content-Length: 1")),
    malformed_http("Content-Length and chunks", chunked(GOOD_BODY, headers=("Content-Length: 1",))),
    malformed_http("unknown Transfer-Encoding", head("Transfer-Encoding: secret")),
    malformed_http("compressed chunks", chunked(GOOD_BODY).replace(b": chunked", b": gzip, chunked")),
    malformed_http("chunk length that is no number", head("Transfer-Encoding: chunked") + b"zz\r\nabc\r\n"),
    malformed_http("negative chunk length", head("Transfer-Encoding: chunked") + b"-1\r\nabc\r\n"),
    malformed_http("chunk longer than it said", head("Transfer-Encoding: chunked") + b"1\r\nabc\r\n"),
    malformed_http("chunk length of 2^70", head("Transfer-Encoding: chunked") + b"4" + b"0" * 17 + b"\r\n"),
    malformed_http("URI with an impossible port", head(line="POST http://a:99999999/KdcProxy HTTP/1.1")),
    malformed_message("compressed body", b"\x1f\x8b\x08\x00" + bytes(20)),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bad_request_is_refused_and_logged_once_and_disturbs_no_other(site: Site, row: Row) -> None:
    with site.log() as lines, site.client() as client:
        client.send_until_closed(row.raw)
        response = client.response(method=row.method)
        assert response.status == row.status
        if row.keeps_connection:
            assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
        else:
            assert client.is_closed_in_time()
        # A KDC that fails has a line of its own.
        refused, *others = lines()
    assert (refused["event"], refused["outcome"]) == ("exchange", row.outcome)
    assert (refused["id"], int(refused["status"])) == (response.request_id, row.status)
    assert len(others) == (1 if row.keeps_connection else 0)


def test_request_that_ends_at_any_byte_is_refused(site: Site) -> None:
    with site.log() as lines:
        for length in range(len(AS_REQ)):
            with site.plain_client() as client:
                assert client.ask(post(AS_REQ[:length])).status == 400
                assert client.is_closed_in_time()
        outcomes = [line["outcome"] for line in lines()]
    assert outcomes == ["malformed_message"] * len(AS_REQ)


def test_request_with_any_byte_changed_gets_a_response(site: Site) -> None:
    with site.log() as lines:
        for position in range(len(AS_REQ)):
            raw = bytearray(AS_REQ)
            raw[position] ^= 0xFF
            with site.plain_client() as client:
                assert client.ask(post(bytes(raw))).status in {200, 400, 403, 503}
        assert len(lines()) == len(AS_REQ)


def test_get_shows_that_the_proxy_is_up_and_names_its_method(site: Site) -> None:
    response = site.ask(post(b"", method="GET"))
    assert response.headers["allow"] == "POST"
    assert b"Kerberos KDC proxy" in response.body


def test_method_is_not_checked_on_a_path_that_is_not_served(site: Site) -> None:
    response = site.ask(post(b"", method="GET", path="/other"))
    assert (response.status, "allow" in response.headers) == (404, False)


@pytest.mark.parametrize("row", [row for row in ROWS if row.method != "HEAD"], ids=lambda row: row.name)
def test_refusal_is_a_sentence_without_addresses_and_without_input_of_the_client(
    site: Site, row: Row
) -> None:
    with site.client() as client:
        client.send_until_closed(row.raw)
        response = client.response()
    sentence = response.body.decode("ascii")
    assert sentence.endswith(".\n")
    assert sentence.count("\n") == 1
    for secret in ("127.0.0.1", ".TEST", "EXAMPLE", "aiohttp", "Python", "byte"):
        assert secret not in sentence
    assert response.headers["server"] == "kkdcpd"


def test_input_of_the_client_is_shortened_in_the_log(site: Site) -> None:
    line = site.line_of(site.ask(post(envelope(as_req(), "A" * 4_000))))
    assert line["realm"] == "A" * 256 + "...(4000 characters)"


def test_input_of_the_client_is_escaped_in_the_log(site: Site) -> None:
    realm = 'E.COM\n\x00\x1b[0m outcome=answered "\u2028\udcff'
    assert site.line_of(site.ask(post(envelope(as_req(), realm))))["realm"] == realm


@pytest.mark.parametrize("name", CAPTURED[:3])
def test_captured_request_is_answered(site: Site, name: str) -> None:
    assert site.ask(post(captured(name))).body == GOOD_REPLY


def test_reply_is_an_envelope_of_its_own_type_and_length(site: Site) -> None:
    response = site.ask(GOOD_REQUEST)
    assert response.headers["content-type"] == "application/kerberos"
    assert response.headers["content-length"] == str(len(GOOD_REPLY))
    assert "transfer-encoding" not in response.headers
    assert response.body == GOOD_REPLY


def test_kerberos_message_reaches_the_kdc_as_it_came(site: Site) -> None:
    message = as_req(realm="ODD.TEST", nonce=4711)
    site.odd_kdc.play(tcp=reply(REPLY_PAYLOAD))
    site.ask(post(envelope(message, "odd.test.", hint=0x600)))
    assert site.odd_kdc.messages[-1] == message


def test_http_1_0_request_gets_a_complete_reply_and_close_notify_at_once(site: Site) -> None:
    with site.client() as client:
        response = client.ask(post(GOOD_BODY, version="HTTP/1.0"))
        assert (response.status, response.body) == (200, GOOD_REPLY)
        assert client.is_closed_in_time()


@pytest.mark.parametrize("header", ["Connection: keep-alive", "Connection: Keep-Alive", "Keep-Alive: 300"])
def test_http_1_0_connection_closes_even_if_it_asks_to_be_kept_alive(site: Site, header: str) -> None:
    with site.client() as client:
        response = client.ask(post(GOOD_BODY, header, version="HTTP/1.0"))
        assert response.headers.get("connection", "close") == "close"
        assert client.is_closed_in_time()


def test_http_1_0_connection_closes_after_a_refusal_too(site: Site) -> None:
    with site.client() as client:
        assert client.ask(post(envelope(as_req(), "OTHER"), version="HTTP/1.0")).status == 503
        assert client.is_closed_in_time()


def test_request_of_mit_is_answered(site: Site) -> None:
    headers = (
        "Host: kdc.example.com:443",
        "Cache-Control: no-cache",
        "Pragma: no-cache",
        "User-Agent: kerberos/1.0",
        "Content-type: application/kerberos",
    )
    assert site.ask(post(GOOD_BODY, *headers, version="HTTP/1.0")).body == GOOD_REPLY


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_no_header_but_content_length_is_needed(site: Site, version: str) -> None:
    # And the Host of HTTP/1.1 (RFC 9112 3.2). MIT's clients that sent none spoke HTTP/1.0.
    assert site.ask(post(GOOD_BODY, version=version)).status == 200


def test_http_1_1_connection_stays_for_further_requests(site: Site) -> None:
    with site.client() as client:
        ids = {client.ask(GOOD_REQUEST).request_id for _ in range(5)}
    assert len(ids) == 5


def test_connection_close_is_honoured(site: Site) -> None:
    with site.client() as client:
        response = client.ask(post(GOOD_BODY, "Connection: close"))
        assert (response.status, response.headers["connection"]) == (200, "close")
        assert client.is_closed_in_time()


def test_pipelined_requests_are_answered_in_order(site: Site) -> None:
    refused = post(envelope(as_req(), "OTHER"))
    with site.client() as client:
        client.send((GOOD_REQUEST + refused) * 20)
        assert [client.response().status for _ in range(40)] == [200, 503] * 20


def test_request_after_a_refused_request_is_not_answered(site: Site) -> None:
    with site.log() as lines, site.client() as client:
        client.send(post(b"bad") + GOOD_REQUEST)
        assert client.response().status == 400
        assert client.is_closed_in_time()
        assert len(lines()) == 1


@pytest.mark.parametrize("size", [1, 50, 1000])
def test_chunked_request_is_accepted(site: Site, size: int) -> None:
    chunks = [GOOD_BODY[start : start + size] for start in range(0, len(GOOD_BODY), size)]
    assert site.ask(chunked(*chunks)).body == GOOD_REPLY


def test_request_that_comes_byte_by_byte_is_accepted(site: Site) -> None:
    with site.client() as client:
        for byte in GOOD_REQUEST:
            client.send(bytes((byte,)))
        assert client.response().body == GOOD_REPLY


def test_client_that_waits_for_100_continue_gets_it(site: Site) -> None:
    with site.client() as client:
        client.send(head("Expect: 100-continue", f"Content-Length: {len(GOOD_BODY)}"))
        client.wait_for(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.ask(GOOD_BODY).body == GOOD_REPLY
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


@pytest.mark.parametrize(
    ("path", "length", "status"), [("/KdcProxy", MAX_BODY_BYTES + 1, 413), ("/other", 10, 404)]
)
def test_client_that_waits_for_100_continue_gets_the_refusal_instead(
    site: Site, path: str, length: int, status: int
) -> None:
    with site.client() as client:
        line = f"POST {path} HTTP/1.1"
        assert (
            client.ask(head("Expect: 100-continue", f"Content-Length: {length}", line=line)).status == status
        )


def test_http_1_0_client_is_never_sent_100_continue(site: Site) -> None:
    assert site.ask(post(GOOD_BODY, "Expect: 100-continue", version="HTTP/1.0")).status == 200


def test_proposed_upgrade_is_ignored(site: Site) -> None:
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
    assert site.ask(post(GOOD_BODY, *upgrade)).body == GOOD_REPLY


@pytest.mark.parametrize(
    "path",
    [
        "/KdcProxy",
        "/kdcproxy",
        "/KDCPROXY",
        "/KdcProxy/",
        "/",
        "/tenant-1/KERBEROS",
        "/KdcProxy?a=b",
        "http://kdc.example.com/KdcProxy",
        "https://kdc.example.com:443/kdcproxy",
        "https://kdc.example.com",
    ],
)
def test_path_is_served_in_any_spelling(site: Site, path: str) -> None:
    assert site.ask(post(GOOD_BODY, path=path)).status == 200


@pytest.mark.parametrize("content_type", ["application/kerberos", "application/byte-stream", "what/ever"])
def test_content_type_does_not_matter(site: Site, content_type: str) -> None:
    assert site.ask(post(GOOD_BODY, f"Content-Type: {content_type}")).status == 200


@pytest.mark.parametrize("message", [as_req(), tgs_req()], ids=["AS-REQ", "TGS-REQ"])
def test_apples_request_without_prefix_gets_a_reply_with_prefix(site: Site, message: bytes) -> None:
    body = site.ask(post(envelope(message, has_prefix=False))).body
    assert prefixed(REPLY_PAYLOAD) in body
    assert site.kdc.messages[-1] == message


@pytest.mark.parametrize("raw", [GOOD_REQUEST, post(b"bad"), head(line="GET / HTTP/1.1"), b"\0\r\n\r\n"])
def test_x_ms_request_id_is_the_id_of_the_log_line(site: Site, raw: bytes) -> None:
    response = site.ask(raw)
    assert site.line_of(response)["id"] == response.headers["x-ms-request-id"]


def test_line_of_an_answered_request_has_all_fields(site: Site) -> None:
    with site.client() as client:
        response = client.ask(GOOD_REQUEST)
        address, port = client.socket.getsockname()
    line = {name: str(value) for name, value in site.line_of(response).items()}
    assert float(line.pop("ms")) > 0
    del line["time"]
    assert line == {
        "level": "info",
        "event": "exchange",
        "id": response.request_id,
        "client": address,
        "port": str(port),
        "tls": "TLSv1.3",
        "realm": "EXAMPLE.COM",
        "kind": "AS_REQ",
        "cname": "alice",
        "sname": "krbtgt/EXAMPLE.COM",
        "padata": "149",
        "kdc": f"127.0.0.1:{site.kdc.port}",
        "transport": "tcp",
        "reply": "KRB_ERROR",
        "error": "25",
        "error_name": "KDC_ERR_PREAUTH_REQUIRED",
        "attempts": "1",
        "outcome": "answered",
        "status": "200",
        "in": str(len(GOOD_BODY)),
        "out": str(len(GOOD_REPLY)),
    }


def test_plain_http_is_served_on_a_unix_socket(site: Site) -> None:
    with site.unix_client() as client:
        response = client.ask(GOOD_REQUEST)
        assert client.ask(GOOD_REQUEST).body == response.body == GOOD_REPLY
    line = site.line_of(response)
    assert (line["client"], line["tls"], "port" in line) == ("unix", "none", False)


def test_plain_http_is_served_where_configured(site: Site) -> None:
    with site.plain_client() as client:
        response = client.ask(GOOD_REQUEST)
    assert (response.body, site.line_of(response)["tls"]) == (GOOD_REPLY, "none")


def test_tls_1_1_is_refused(site: Site, authority: Authority) -> None:
    old = ssl.create_default_context(cafile=str(authority.certificate))
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    after = len(site.daemon.lines)
    with pytest.raises(ssl.SSLError), HttpClient(site.daemon.ports[0], tls=old):
        pass
    site.daemon.wait_for_line(lambda line: "UNSUPPORTED_PROTOCOL" in line, after=after)


@pytest.mark.parametrize("reset", [False, True], ids=["close", "reset"])
def test_client_that_leaves_without_close_notify_is_not_logged(site: Site, reset: bool) -> None:
    with site.log() as lines:
        with site.client() as client:
            response = client.ask(GOOD_REQUEST)
            if reset:
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert [line["id"] for line in lines()] == [response.request_id]


def test_client_that_leaves_ends_its_exchange(site: Site) -> None:
    is_closed = threading.Event()

    async def script(link: Link) -> None:
        await link.message()
        await link.hold()
        is_closed.set()

    site.odd_kdc.play(tcp=script)
    with site.log() as lines:
        count = len(site.odd_kdc.messages)
        with site.client() as client:
            client.send(post(ODD_BODY))
            site.odd_kdc.wait_for_messages(count + 1)
        assert is_closed.wait(5)
        (gone,) = lines()
    assert (gone["outcome"], gone["realm"], "status" in gone) == ("client_gone", "ODD.TEST", False)


@pytest.mark.parametrize(
    "raw",
    [post(GOOD_BODY)[:-10], chunked(GOOD_BODY)[:-10]],
    ids=["Content-Length", "chunked"],
)
def test_client_that_leaves_during_its_body_is_logged_as_gone(site: Site, raw: bytes) -> None:
    with site.log() as lines:
        after = len(site.daemon.lines)
        with site.client() as client:
            client.send(raw)
        site.daemon.wait_for_line(lambda line: "client_gone" in line, after=after)
        (gone,) = lines()
    assert gone["outcome"] == "client_gone"


def test_client_that_leaves_during_its_head_is_not_logged(site: Site) -> None:
    with site.log() as lines:
        with site.client() as client:
            client.send(GOOD_REQUEST[:40])
        assert not lines()


def test_garbage_of_a_kdc_never_reaches_the_client(site: Site) -> None:
    site.odd_kdc.play(tcp=garbage())
    response = site.ask(post(ODD_BODY))
    line = site.line_of(response)
    assert (response.status, line["outcome"], line["level"]) == (503, "no_kdc_reply", "warning")
    assert line["detail"] == f"tcp://127.0.0.1:{site.odd_kdc.port} bad_reply"


def test_slow_exchange_does_not_delay_others(site: Site) -> None:
    may_answer = asyncio.Event()
    site.odd_kdc.play(tcp=reply(REPLY_PAYLOAD, when=may_answer))
    count = len(site.odd_kdc.messages)
    with site.client() as client:
        client.send(post(ODD_BODY))
        site.odd_kdc.wait_for_messages(count + 1)
        assert site.ask(GOOD_REQUEST).status == 200
        site.odd_kdc.set(may_answer)
        assert client.response().body == GOOD_REPLY


def test_bodies_slower_than_body_timeout_are_refused(hasty_site: Site) -> None:
    beginnings = (
        post(GOOD_BODY)[:-1],
        chunked(GOOD_BODY)[:-2],
        head("Transfer-Encoding: chunked") + b"0" * 20_000,
        head("Transfer-Encoding: chunked") + b"1;" + b"a" * 20_000,
        head("Content-Length: 10"),
    )
    with hasty_site.log() as lines, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(hasty_site.client()) for _ in beginnings]
        for client, beginning in zip(clients, beginnings, strict=True):
            client.send(beginning)
        assert [client.response().status for client in clients] == [408] * len(beginnings)
        assert all(client.is_closed_in_time() for client in clients)
        assert [line["outcome"] for line in lines()] == ["body_timeout"] * len(beginnings)


@pytest.mark.parametrize("raw", [b"", b"P", GOOD_REQUEST[:40]], ids=["none", "one byte", "half a head"])
def test_head_slower_than_head_timeout_ends_the_connection(hasty_site: Site, raw: bytes) -> None:
    with hasty_site.log() as lines, hasty_site.client() as client:
        client.send(raw)
        assert client.is_closed_in_time()
        assert not lines()


def test_later_head_slower_than_head_timeout_ends_the_connection(hasty_site: Site) -> None:
    with hasty_site.client() as client:
        client.ask(GOOD_REQUEST)
        client.send(b"POST /KdcProxy HT")
        assert client.is_closed_in_time()


def test_head_that_drips_in_ends_the_connection(hasty_site: Site) -> None:
    with hasty_site.client() as client:
        client.send(b"POST /KdcProxy HTTP/1.1\r\nX: ")
        client.socket.settimeout(0.02)
        for _ in range(500):
            client.send_until_closed(b"a")
            with contextlib.suppress(TimeoutError):
                assert client.socket.recv(1) == b""
                return
    pytest.fail("the connection is still open")


def test_idle_connection_ends_after_keepalive_timeout(hasty_site: Site) -> None:
    with hasty_site.log() as lines, hasty_site.client() as client:
        client.ask(GOOD_REQUEST)
        assert client.is_closed_in_time()
        assert len(lines()) == 1


def test_connection_ends_after_its_last_request(hasty_site: Site) -> None:
    with hasty_site.client() as client:
        connections = [client.ask(GOOD_REQUEST).headers.get("connection") for _ in range(3)]
        assert connections == [None, None, "close"]
        assert client.is_closed_in_time()


def test_body_without_end_ends_the_connection(site: Site) -> None:
    def send_without_end(client: HttpClient) -> None:
        while True:
            client.send(b"1000\r\n" + bytes(0x1000) + b"\r\n")

    with site.log() as lines:
        with site.plain_client() as client:
            client.send(head("Transfer-Encoding: chunked"))
            with pytest.raises(ConnectionError):
                send_without_end(client)
        (refused,) = lines()
    assert refused["outcome"] == "body_too_large"


class BrokenRelay(Relay):
    """A relay with a bug."""

    def __init__(self) -> None:
        pass

    async def relay(self, request: ProxyRequest, client: ClientConnection, **_: object) -> RequestResult:
        raise LookupError(f"a bug with {request.realm} of {client.address}")


async def test_bug_is_answered_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kkdcpd")
    counters = Counters.discarding()
    config = Config(realms=())
    guard = Guard(config, own_table(), own_counts(), time.monotonic)
    pipeline = Pipeline(guard=guard, relay=BrokenRelay(), counters=counters, config=config.guard)
    frontend = KdcProxyFrontend(config, pipeline, counters)
    async with (
        listening() as listener,
        running_acceptor(listener, make_connection=frontend.connection, counters=counters),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        status, body = await talk.response()
        assert await talk.rest() == b""
    await frontend.stop()
    assert (status, b"bug with" in body) == (500, False)
    bug, exchange = caplog.records
    assert (bug.message, bug.levelname) == ("bug_in_request", "ERROR")
    assert "LookupError: a bug with EXAMPLE.COM of 127.0.0.1" in caplog.text
    fields: dict[str, Any] = exchange.fields  # type: ignore[attr-defined]
    assert (fields["outcome"], fields["detail"], exchange.levelname) == (
        "internal_error",
        "LookupError",
        "ERROR",
    )
    assert fields["id"] == bug.fields["id"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", ["HTTP/2.0", "HTTP/0.9"])
def test_no_other_version_of_http_is_spoken(site: Site, version: str) -> None:
    with site.client() as client:
        client.send(head(f"Content-Length: {len(GOOD_BODY)}", line=f"POST /KdcProxy {version}") + GOOD_BODY)
        response = client.response()
        assert response.status == 400
        assert client.is_closed_in_time()
    line = site.line_of(response)
    assert (line["outcome"], line["detail"]) == ("malformed_http", f"{version} is neither 1.0 nor 1.1")


def test_bytes_after_a_requested_upgrade_are_ignored(site: Site) -> None:
    upgrade = "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    with site.client() as client:
        assert client.ask(post(GOOD_BODY, *upgrade)).body == GOOD_REPLY
        client.send_until_closed(b"\x81\x85" + bytes(1000))
        assert client.is_closed_in_time()
