"""The end of a ClientHello, and all that is none."""

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.client_hello import HEAD_BYTES, MAX_HELLO_BYTES, hello_bytes


def openssl_s() -> bytes:
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="kdc.example.com")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_end_of_a_real_client_hello_is_found() -> None:
    hello = openssl_s()
    assert hello_bytes(hello[:HEAD_BYTES]) == hello_bytes(hello) == len(hello)


@pytest.mark.parametrize(
    ("head", "count"),
    [
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", HEAD_BYTES),
        (b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc", MAX_HELLO_BYTES),
        (b"\x16\x03\x01\x40\x00\x01\x00\x00\x10", MAX_HELLO_BYTES),  # something follows it
        (b"\x16\x03\x01\x40\x01\x01\x00\x3f\xfc", 0),
        (b"\x16\x03\x01\x40\x00\x02\x00\x3f\xfc", 0),
        (b"\x17\x03\x01\x40\x00\x01\x00\x3f\xfc", 0),
        (b"GET / HTT", 0),
        (b"\x16\x03\x01\x40\x00\x01\x00\x3f", 0),
        (b"", 0),
    ],
)
def test_other_bytes_have_no_end_to_wait_for(head: bytes, count: int) -> None:
    assert hello_bytes(head) == count


@pytest.mark.parametrize(
    "head", [b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfd", b"\x16\x03\x01\x00\x02\x01\x00\xff\xff"]
)
def test_hello_in_several_records_is_refused(head: bytes) -> None:
    with pytest.raises(MalformedError, match="several records"):
        hello_bytes(head)


@given(head=st.binary(max_size=20) | st.binary(max_size=8).map(lambda rest: b"\x16\x03\x01" + rest))
def test_end_is_within_bounds(head: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert 0 <= hello_bytes(head) <= MAX_HELLO_BYTES
