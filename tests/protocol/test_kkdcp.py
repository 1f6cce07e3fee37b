import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.kkdcp import decode_proxy_message, encode_proxy_message
from kkdcpd.values import ProxyMessage
from tests.support import messages, oracle
from tests.support.captured import CAPTURED, captured

PAYLOAD = messages.as_req()


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_body_is_encoded_again_to_the_same_bytes(name: str) -> None:
    message = decode_proxy_message(captured(name))

    assert message.target_domain == "FREEIPA.LOCAL"
    assert message.dclocator_hint is None
    assert message.has_length_prefix
    assert encode_proxy_message(message) == captured(name)


@pytest.mark.parametrize("name", CAPTURED)
def test_body_without_length_as_apple_sent_it_gives_the_same_message(name: str) -> None:
    message = decode_proxy_message(captured(name))
    body = messages.envelope(message.kerb_message[4:], "FREEIPA.LOCAL", has_prefix=False)

    assert decode_proxy_message(body) == dataclasses.replace(message, has_length_prefix=False)


def test_body_that_an_iphone_sends_is_understood() -> None:
    """The request in latchset/kdcproxy#61, element for element, with other names of the same lengths."""
    realm = "SITE.EXAMPLE.TEST"
    request = messages.as_req(
        realm=realm,
        cname=(1, ("00000000-1111-2222-3333-444444444444",)),
        padata=[(149, b"")],
        options=b"\x50\x81\x00\x00",
        renew="20240418203515Z",
        etypes=(18, 17, 16, 23),
    )
    body = messages.envelope(request, realm, has_prefix=False)
    assert len(body) == 251

    message = decode_proxy_message(body)

    assert not message.has_length_prefix
    assert message.target_domain == realm
    assert message.kerb_message == messages.prefixed(request)


@pytest.mark.parametrize("realm_type", ["general", "utf8", "ia5"])
def test_target_domain_may_be_any_of_three_string_types(realm_type: str) -> None:
    body = messages.envelope(PAYLOAD, "Example.com", realm_type=realm_type)

    assert decode_proxy_message(body).target_domain == "Example.com"


@pytest.mark.parametrize("tag", [0x04, 0x13, 0x14, 0x1A, 0x1E, 0x30, 0x3B])
def test_target_domain_may_be_nothing_else(tag: int) -> None:
    body = messages.envelope(PAYLOAD, "EXAMPLE.COM")
    retagged = body.replace(b"\x1b\x0bEXAMPLE.COM", bytes([tag]) + b"\x0bEXAMPLE.COM")[-13:]

    with pytest.raises(MalformedError, match=r"field \[1\] has the wrong type"):
        decode_proxy_message(body[:-13] + retagged)


def test_absent_target_domain_is_none_and_an_empty_one_is_empty() -> None:
    assert decode_proxy_message(messages.envelope(PAYLOAD, None)).target_domain is None
    assert decode_proxy_message(messages.envelope(PAYLOAD, "")).target_domain == ""


def test_bytes_of_the_target_domain_that_are_not_utf8_are_kept() -> None:
    body = messages.envelope(PAYLOAD, "B\udcdcCHER.EXAMPLE")

    message = decode_proxy_message(body)

    assert message.target_domain == "B\udcdcCHER.EXAMPLE"
    assert encode_proxy_message(message) == body


@pytest.mark.parametrize(
    "hint",
    [0, 0x600, 0x200600, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, -1, -0x80000000],
    ids=hex,
)
def test_hint_of_32_bits_is_read_with_or_without_sign(hint: int) -> None:
    assert decode_proxy_message(messages.envelope(PAYLOAD, hint=hint)).dclocator_hint == hint


def test_hint_with_its_top_bit_set_comes_in_four_bytes_or_in_five() -> None:
    unsigned = messages.envelope(PAYLOAD, hint=0x80000600)
    signed = messages.envelope(PAYLOAD, hint=0x80000600 - 2**32)

    assert unsigned.endswith(b"\x02\x05\x00\x80\x00\x06\x00")
    assert signed.endswith(b"\x02\x04\x80\x00\x06\x00")
    for body in (unsigned, signed):
        hint = decode_proxy_message(body).dclocator_hint
        assert hint is not None
        assert hint & 0xFFFFFFFF == 0x80000600


@pytest.mark.parametrize("hint", [2**32, -(2**31) - 1, 2**64])
def test_hint_of_more_than_32_bits_is_refused(hint: int) -> None:
    body = encode_proxy_message(ProxyMessage(kerb_message=b"x", target_domain="X", dclocator_hint=hint))

    with pytest.raises(MalformedError):
        decode_proxy_message(body)


def test_hint_needs_no_target_domain_before_it() -> None:
    message = decode_proxy_message(messages.envelope(PAYLOAD, None, hint=0x600))

    assert (message.target_domain, message.dclocator_hint) == (None, 0x600)


@pytest.mark.parametrize("length", range(4))
def test_kerb_message_too_short_for_a_length_is_taken_for_one_without(length: int) -> None:
    message = decode_proxy_message(messages.envelope(bytes(length), has_prefix=False))

    assert message.kerb_message == messages.prefixed(bytes(length))
    assert not message.has_length_prefix


def test_length_of_zero_with_nothing_after_it_is_no_length() -> None:
    message = decode_proxy_message(messages.envelope(b""))

    assert message.kerb_message == b"\x00\x00\x00\x04\x00\x00\x00\x00"
    assert not message.has_length_prefix


@pytest.mark.parametrize("difference", [-1, 1])
def test_wrong_length_is_taken_for_part_of_the_message(difference: int) -> None:
    wrong = (len(PAYLOAD) + difference).to_bytes(4, "big") + PAYLOAD

    message = decode_proxy_message(messages.envelope(wrong, has_prefix=False))

    assert message.kerb_message == messages.prefixed(wrong)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "ends within an element's header"),
        (b"\x30", "ends within an element's header"),
        (b"\x30\x00", r"field \[0\] is missing"),
        (b"\x31\x05\xa0\x03\x04\x01x", "tag 0x31 where 0x30 belongs"),
        (b"\x30\x80\xa0\x03\x04\x01x\x00\x00", "indefinite"),
        (b"\x30\x81\x05\xa0\x03\x04\x01x", "shortest form"),
        (b"\x30\x82\x00\x85" + bytes(133), "shortest form"),
        (b"\x30\x85\x00\x00\x00\x00\x05\xa0\x03\x04\x01x", "oversized"),
        (b"\x30\x84\xff\xff\xff\xff\xa0\x03\x04\x01x", "reaches past"),
        (b"\x30\x05\xa0\x03\x04\x01x\x00", "1 bytes after the KDC-PROXY-MESSAGE"),
        (b"\x30\x06\xa0\x03\x04\x01x", "reaches past"),
        (b"\x30\x06\xa0\x03\x04\x01x\x00", "unknown or misplaced field"),
        (b"\x30\x05\xa0\x03\x24\x01x", "wrong type"),
        (b"\x30\x07\xa0\x05\x04\x01x\x05\x00", "wrong type or length"),
        (b"\x30\x05\xa1\x03\x1b\x01X", r"field \[0\] is missing"),
        (b"\x30\x0a\xa1\x03\x1b\x01X\xa0\x03\x04\x01x", r"field \[0\] is missing"),
        (b"\x30\x0a\xa0\x03\x04\x01x\xa0\x03\x04\x01x", "unknown or misplaced field"),
        (b"\x30\x0a\xa0\x03\x04\x01x\xa3\x03\x02\x01\x05", "unknown or misplaced field"),
        (b"\x30\x09\xa0\x03\x04\x01x\xa2\x02\x02\x00", "INTEGER of 0 bytes"),
        (b"\x30\x0b\xa0\x03\x04\x01x\xa2\x04\x02\x02\x00\x01", "shortest form"),
        (b"\x30\x0b\xa0\x03\x04\x01x\xa2\x04\x02\x02\xff\xff", "shortest form"),
        (b"\x30\x06\xbf\x00\x03\x04\x01x", r"field \[0\] is missing"),
        (b"POST /KdcProxy HTTP/1.1\r\n", "tag 0x50|reaches past"),
    ],
)
def test_other_bytes_than_a_kdc_proxy_message_are_refused(body: bytes, problem: str) -> None:
    with pytest.raises(MalformedError, match=problem):
        decode_proxy_message(body)


def test_reply_has_only_the_kerb_message() -> None:
    body = encode_proxy_message(ProxyMessage(kerb_message=messages.prefixed(b"reply")))

    assert body == b"\x30\x0d\xa0\x0b\x04\x09\x00\x00\x00\x05reply"


@given(
    st.binary(min_size=1, max_size=300) | st.integers(200, 70_000).map(bytes),
    st.none()
    | st.text(max_size=20)
    | st.binary(max_size=20).map(lambda o: o.decode("utf-8", "surrogateescape")),
    st.none() | st.integers(-(2**31), 2**32 - 1),
)
def test_what_is_encoded_is_der_and_decoded_to_the_same(
    payload: bytes, target_domain: str | None, hint: int | None
) -> None:
    message = ProxyMessage(
        kerb_message=messages.prefixed(payload), target_domain=target_domain, dclocator_hint=hint
    )

    body = encode_proxy_message(message)

    assert decode_proxy_message(body) == message
    assert oracle.proxy_message(body) == message


def test_target_domain_has_a_maximum_length() -> None:
    assert decode_proxy_message(messages.envelope(PAYLOAD, "d" * 4096)).target_domain == "d" * 4096
    with pytest.raises(MalformedError, match="a target-domain of more than 4096 bytes"):
        decode_proxy_message(messages.envelope(PAYLOAD, "d" * 4097))
