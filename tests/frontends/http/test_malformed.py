"""Each kind of malformed request has a detail of its own in the log, on a running daemon."""

import pytest
from aiohttp import web

from kkdcpd.frontends.http.malformed import name_rule, name_start
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, Site
from tests.support.http_client import post
from tests.support.messages import as_req, prefixed


def head(*headers: str, line: str = "POST /KdcProxy HTTP/1.1") -> bytes:
    return "\r\n".join((line, "Host: localhost", *headers, "", "")).encode()


def chunked(data: bytes, *headers: str) -> bytes:
    return head("Transfer-Encoding: chunked", *headers) + data


KINDS = {
    "TLS instead of HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SSH instead of HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a Kerberos message without HTTP": as_req(),
    "a Kerberos message of TCP without HTTP": prefixed(as_req()),
    "a KDC-PROXY-MESSAGE without HTTP": GOOD_BODY,
    "request line: HTTP/2 without negotiation": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "request line: unknown method": b"This is no HTTP at all.\r\n\r\n",
    "request line: no HTTP version": head(line="POST /KdcProxy HTPP/1.1"),
    "request line: unknown HTTP version": head(line="POST /KdcProxy HTTP/9.9"),
    "request line: no CRLF after the version": head(line="POST /KdcProxy HTTP/1.1 x"),
    "request line: space before the first header": b"POST /KdcProxy HTTP/1.1\r\n Host: x\r\n\r\n",
    "request line or header: a line is too long": post(GOOD_BODY, f"X: {'a' * 5000}"),
    "target: neither a path nor a URL": head(line="POST \x01 HTTP/1.1"),
    "target: bad scheme": head(line="POST ht1tp://x/ HTTP/1.1"),
    "target: bad host or port": head(line="POST http://a:99999999/KdcProxy HTTP/1.1"),
    "head of more than 8192 bytes": post(GOOD_BODY, *(f"X{n}: {'a' * 3000}" for n in range(3))),
    "header: bad character in a name": post(GOOD_BODY, "X Y: a"),
    "header: bad character in a value": post(GOOD_BODY, "X: a\0b"),
    "header: a line ends without CR": head("X: a\nY: b"),
    "header: a line ends without LF": head("X: a\rY: b"),
    "header: a folded line": head("X: a", " b"),
    "header: too many lines": post(GOOD_BODY, *(f"X-{n}: a" for n in range(100))),
    "Host: missing in HTTP/1.1": b"POST /KdcProxy HTTP/1.1\r\nContent-Length: 1\r\n\r\nA",
    "Host: more than one": post(GOOD_BODY, "Host: other"),
    "Content-Type: more than one": post(GOOD_BODY, "Content-Type: a", "Content-Type: b"),
    "POST without Content-Length and Transfer-Encoding": head() + GOOD_BODY,
    "Content-Length: not a number": head("Content-Length: many"),
    "Content-Length: empty": head("Content-Length: "),
    "Content-Length: too large a number": head(f"Content-Length: {'9' * 40}"),
    "Content-Length: more than one": post(GOOD_BODY, "Content-Length: 1"),
    "Content-Length beside Transfer-Encoding": chunked(b"0\r\n\r\n", "Content-Length: 1"),
    "Transfer-Encoding: not chunked": head("Transfer-Encoding: secret"),
    "chunk size: not a hexadecimal number": chunked(b"zz\r\nabc\r\n"),
    "chunk size: too large a number": chunked(b"4" + b"0" * 17 + b"\r\n"),
    "chunk size: the line ends without LF": chunked(b"1\rx"),
    "chunk data: longer than the chunk size": chunked(b"1\r\nabc\r\n"),
    "chunk extension: bad character in a name": chunked(b"1;\x01\r\na\r\n"),
    "chunk extension: bad character in a value": chunked(b"1;a=\x01\r\na\r\n"),
    "chunk extension: bad character in a quoted value": chunked(b'1;a="\x01"\r\na\r\n'),
    "HTTP/2.0 is neither 1.0 nor 1.1": head("Content-Length: 0", line="POST /KdcProxy HTTP/2.0"),
}


@pytest.mark.parametrize("detail", KINDS)
def test_each_kind_of_malformed_request_has_its_detail(site: Site, detail: str) -> None:
    with site.client() as client:
        client.send_until_closed(KINDS[detail])
        response = client.response()
        assert response.status == 400
        assert client.is_closed_in_time()
    line = site.line_of(response)
    assert (line["outcome"], line["detail"]) == ("malformed_http", detail)


def test_detail_gives_the_number_of_good_requests_before(site: Site) -> None:
    with site.client() as client:
        for _ in range(2):
            assert client.ask(post(GOOD_BODY)).body == GOOD_REPLY
        client.send_until_closed(as_req())
        detail = site.line_of(client.response())["detail"]
    assert detail == "request line: unknown method (after request 2 of the connection)"


def test_content_length_that_is_too_short_makes_a_malformed_message(site: Site) -> None:
    raw = post(GOOD_BODY).replace(
        b"Content-Length: %d" % len(GOOD_BODY), b"Content-Length: %d" % (len(GOOD_BODY) - 5)
    )
    line = site.line_of(site.ask(raw))
    assert line["outcome"] == "malformed_message"


class StrangeError(Exception):
    """An error that no table knows."""

    message = "Invalid method encountered in secret:\n\n  b'secret'"


class LineTooLong(Exception):  # noqa: N818 - as aiohttp names it
    message = "Got more than 5 bytes when reading: b'secret'."


class BadHttpMessage(Exception):  # noqa: N818 - as aiohttp names it
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def test_unknown_error_has_a_general_name() -> None:
    assert name_rule(StrangeError()) == "malformed"
    assert name_rule(None) == "malformed"
    assert name_rule(web.RequestPayloadError("secret")) == "malformed"
    assert name_rule(LineTooLong()) == "request line or header: a line is too long"


def test_name_of_a_header_comes_only_from_the_table() -> None:
    assert name_rule(BadHttpMessage("Duplicate 'HOST' header found.")) == "Host: more than one"
    assert name_rule(BadHttpMessage("Duplicate 'secret' header found.")) == "header: more than one"


@pytest.mark.parametrize("start", [b"", b"P", b"POST /Kd", b"GET / HT", b"\0", b"\0\0\0\0j", b"\r\n"])
def test_start_of_http_is_no_other_protocol(start: bytes) -> None:
    assert name_start(start) is None
