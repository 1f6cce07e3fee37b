"""Heimdal's own form of HTTP, as its client writes and reads it."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.errors import BodyTooLargeError, MalformedError
from kkdcpd.protocol.heimdal_http import MAX_OTHER_BYTES, HttpReader
from tests.support.messages import as_req, prefixed, tgs_req


def request(payload: bytes) -> bytes:
    """Build a request as Heimdal's client does."""
    return b"GET /" + base64.b64encode(payload) + b" HTTP/1.0\r\n\r\n"


def read(data: bytes, max_bytes: int = 100_000) -> bytes | None:
    reader = HttpReader(max_bytes)
    reader.feed(data)
    return reader.next_message()


@pytest.mark.parametrize("payload", [as_req(), tgs_req(authorization=bytes(64_000))], ids=["small", "90 KiB"])
def test_message_is_in_the_target(payload: bytes) -> None:
    assert read(request(payload)) == prefixed(payload)


@given(st.binary(max_size=300))
def test_every_message_is_read_without_escapes_and_with_them(payload: bytes) -> None:
    """Base64 may begin with a slash, and have a plus at any position."""
    assert read(request(payload)) == prefixed(payload)
    encoded = base64.b64encode(payload).replace(b"+", b"%2B").replace(b"/", b"%2f").replace(b"=", b"%3D")
    assert read(b"GET /" + encoded + b" HTTP/1.0\r\n\r\n") == prefixed(payload)


def test_proxy_may_change_the_head() -> None:
    encoded = base64.b64encode(as_req())
    for head in (
        b"GET http://kdc.example.com/%s HTTP/1.0\r\n\r\n",
        b"GET /%s HTTP/1.1\r\nHost: kdc.example.com\r\nVia: 1.0 proxy\r\n\r\n",
    ):
        assert read(head % encoded) == prefixed(as_req())


def test_message_comes_once_and_the_rest_is_dropped() -> None:
    reader = HttpReader(1000)
    reader.feed(request(as_req()) + b"rest")
    assert reader.next_message() == prefixed(as_req())
    reader.feed(b"more")
    assert (reader.next_message(), reader.held_bytes) == (None, 0)


def test_request_may_arrive_in_pieces() -> None:
    reader = HttpReader(1000)
    *first, last = request(as_req())
    for byte in first:
        reader.feed(bytes((byte,)))
        assert reader.next_message() is None
    reader.feed(bytes((last,)))
    assert reader.next_message() == prefixed(as_req())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.0\r\n\r\n",
        b"GET *AAAA HTTP/1.0\r\n\r\n",
        b"G\r\n\r\n",
        b"GET /AAA HTTP/1.0\r\n\r\n",
        b"GET /%zz HTTP/1.0\r\n\r\n",
    ],
)
def test_other_requests_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read(data, 1000)


def test_message_over_the_limit_is_too_large() -> None:
    assert read(request(bytes(1000)), 1000) == prefixed(bytes(1000))
    with pytest.raises(BodyTooLargeError, match="a message of 1001 bytes, which is more than 1000"):
        read(request(bytes(1001)), 1000)


def test_head_without_an_end_has_a_limit() -> None:
    reader = HttpReader(1000)
    reader.feed(b"G" * (4 * 1000 + MAX_OTHER_BYTES))
    assert reader.next_message() is None
    reader.feed(b"G")
    with pytest.raises(BodyTooLargeError, match="more than 12192 bytes"):
        reader.next_message()


def test_response_has_the_message_with_its_length_after_the_first_empty_line() -> None:
    head, _, body = HttpReader(1000).frame(b"reply\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Content-Length: 13" in head
    assert body == prefixed(b"reply\r\n\r\n")


def test_only_http_begins_as_http() -> None:
    assert HttpReader.fits(b"G")
    assert not HttpReader.fits(prefixed(as_req()))
