"""The reader compared with pyasn1, and given random bytes."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kkdcpd.errors import MalformedError, NoTargetDomainError
from kkdcpd.protocol.kkdcp import decode_proxy_message, encode_proxy_message
from kkdcpd.protocol.messages import classify, inspect_reply
from kkdcpd.values import MessageKind, ProxyMessage, ProxyRequest
from tests.support import der_tree, messages, oracle
from tests.support.captured import CAPTURED, captured
from tests.support.der_tree import Node
from tests.support.strategies import broken, damaged, proxy_messages, replies, requests

T = TypeVar("T")

REPLY_TO = {
    MessageKind.AS_REQ: MessageKind.AS_REP,
    MessageKind.TGS_REQ: MessageKind.TGS_REP,
    MessageKind.KPASSWD_REQ: MessageKind.KPASSWD_REP,
}
REQUEST_KINDS = tuple(REPLY_TO)

captured_bodies = st.sampled_from(CAPTURED).map(captured)
any_reply = replies.map(lambda pair: pair[1])


def _read(body: bytes) -> ProxyRequest:
    return classify(decode_proxy_message(body))


def _accepted(read: Callable[[], T]) -> T | None:
    """Return the read value, or None. Any error except the two for malformed bytes fails the test."""
    try:
        return read()
    except (MalformedError, NoTargetDomainError):
        return None


def _expected(body: bytes) -> ProxyRequest | None:
    """Return the value that pyasn1 reads."""
    try:
        message = oracle.proxy_message(body)
        return oracle.proxy_request(message) if message.target_domain else None
    except oracle.NotDerError:
        return None


@given(requests, st.booleans())
def test_every_valid_request_is_read_as_pyasn1_reads_it(payload: bytes, has_prefix: bool) -> None:
    body = messages.envelope(payload, has_prefix=has_prefix)

    request = _read(body)

    assert request == oracle.proxy_request(oracle.proxy_message(body))
    assert request.payload == payload


@given(proxy_messages)
def test_every_valid_envelope_is_read_as_pyasn1_reads_it(body: bytes) -> None:
    assert decode_proxy_message(body) == oracle.proxy_message(body)


@given(replies)
def test_every_valid_reply_is_read_as_pyasn1_reads_it(reply: tuple[MessageKind, bytes]) -> None:
    assert inspect_reply(*reply) == oracle.reply(reply[1])


@given(broken())
def test_request_with_broken_elements_is_read_exactly_when_pyasn1_reads_it(body: bytes) -> None:
    assert _accepted(lambda: _read(body)) == _expected(body)


@given(damaged(captured_bodies | proxy_messages))
def test_damaged_request_is_read_exactly_when_pyasn1_reads_it(body: bytes) -> None:
    assert _accepted(lambda: _read(body)) == _expected(body)


def _flips(body: bytes, *, of_every_bit: bool) -> list[bytes]:
    """Yield the body with one bit of each byte flipped, or each bit in turn. Ciphertext stays as it is."""
    tree = der_tree.parse(body)
    ciphertexts = [node.contents for node in tree.walk() if not node.children and len(node.contents) > 40]
    opaque = {body.index(text) + i for text in ciphertexts for i in range(len(text))}
    return [
        body[:position] + bytes([body[position] ^ 1 << bit]) + body[position + 1 :]
        for position in range(len(body))
        if position not in opaque
        for bit in (range(8) if of_every_bit else (position % 8,))
    ]


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_request_with_a_flipped_bit_is_read_as_der_or_refused(name: str, is_nightly: bool) -> None:
    for body in _flips(captured(name), of_every_bit=is_nightly):
        request = _accepted(lambda body=body: _read(body))  # type: ignore[misc]
        assert request is None or request == _expected(body)


@given(damaged(any_reply), st.sampled_from(REQUEST_KINDS))
def test_damaged_reply_that_pyasn1_reads_gives_the_same_facts(payload: bytes, kind: MessageKind) -> None:
    facts = _accepted(lambda: inspect_reply(kind, payload))

    try:
        expected = oracle.reply(payload)
    except oracle.NotDerError:
        return  # a KDC's reply may say more, and else, than its specification has
    is_fitting = expected.kind in {REPLY_TO[kind], MessageKind.KRB_ERROR}
    assert facts == (expected if is_fitting else None)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\x30")
@example(b"\x30\x80\x00\x00")
@example(b"\x30\x84\xff\xff\xff\xff")
@example(b"\x30\xff" + bytes(127))
def test_random_bytes_raise_nothing_but_the_errors_of_a_request(encoded: bytes) -> None:
    _try_everything(encoded)


@given(damaged(proxy_messages | any_reply | captured_bodies | broken()))
def test_damaged_bytes_raise_nothing_but_the_errors_of_a_request(encoded: bytes) -> None:
    _try_everything(encoded)


def _try_everything(encoded: bytes) -> None:
    _accepted(lambda: _read(encoded))
    for message in (
        ProxyMessage(kerb_message=encoded),
        ProxyMessage(kerb_message=messages.prefixed(encoded), target_domain="EXAMPLE.COM"),
        ProxyMessage(kerb_message=messages.prefixed(messages.kpasswd_frame(encoded, b"")), target_domain="X"),
    ):
        _accepted(lambda message=message: classify(message))  # type: ignore[misc]
    for kind in REQUEST_KINDS:
        for payload in (
            encoded,
            messages.kpasswd_frame(b"", encoded),
            messages.kpasswd_frame(encoded, encoded),
        ):
            _accepted(lambda kind=kind, payload=payload: inspect_reply(kind, payload))  # type: ignore[misc]


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_body_is_refused_wherever_it_is_cut_off(name: str) -> None:
    body = captured(name)
    for length in range(len(body)):
        with pytest.raises(MalformedError):
            decode_proxy_message(body[:length])


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_kerb_message_is_refused_wherever_it_is_cut_off(name: str) -> None:
    kerb_message = decode_proxy_message(captured(name)).kerb_message
    for length in range(len(kerb_message)):
        for encoded in (kerb_message[:length], messages.prefixed(kerb_message[4 : 4 + length])):
            if encoded != kerb_message:
                with pytest.raises(MalformedError):
                    _read(encode_proxy_message(ProxyMessage(kerb_message=encoded, target_domain="X")))


@pytest.mark.parametrize(
    ("kind", "reply"),
    [
        (MessageKind.AS_REQ, messages.as_rep()),
        (MessageKind.TGS_REQ, messages.tgs_rep()),
        (MessageKind.TGS_REQ, messages.krb_error(7)),
        (MessageKind.KPASSWD_REQ, messages.kpasswd_rep()),
        (MessageKind.KPASSWD_REQ, messages.kpasswd_error()),
        (MessageKind.KPASSWD_REQ, messages.krb_error(60)),
    ],
    ids=["AS_REP", "TGS_REP", "KRB_ERROR", "KPASSWD_REP", "framed KRB_ERROR", "bare KRB_ERROR to kpasswd"],
)
def test_reply_is_refused_wherever_it_is_cut_off(kind: MessageKind, reply: bytes) -> None:
    for length in range(len(reply)):
        with pytest.raises(MalformedError):
            inspect_reply(kind, reply[:length])


def _long_length(node: Node) -> bytes:
    contents = der_tree.contents_of(node)
    return bytes([node.tag, 0x84]) + len(contents).to_bytes(4, "big") + contents


def _length_off_by(difference: int) -> Callable[[Node], bytes]:
    def lie(node: Node) -> bytes:
        contents = der_tree.contents_of(node)
        honest = der_tree.break_at(node)
        header = bytearray(honest[: len(honest) - len(contents)])
        header[-1] = (header[-1] + difference) & 0xFF
        return bytes(header) + contents

    return lie


VIOLATIONS: dict[str, Callable[[Node], bytes]] = {
    "an indefinite length": lambda node: bytes([node.tag, 0x80]) + der_tree.contents_of(node) + b"\x00\x00",
    "a length that isn't minimal": _long_length,
    "a length of five bytes": lambda node: (
        bytes([node.tag, 0x85, *len(der_tree.contents_of(node)).to_bytes(5, "big")])
        + der_tree.contents_of(node)
    ),
    "a length that is one too long": _length_off_by(1),
    "a length that is one too short": _length_off_by(-1),
    "a reserved length byte": lambda node: bytes([node.tag, 0xFF]) + der_tree.contents_of(node),
    "a tag number in high form": lambda node: (
        bytes([node.tag | 0x1F, node.tag & 0x1F]) + der_tree.break_at(node)[1:]
    ),
    "the next tag number": lambda node: bytes([node.tag + 1]) + der_tree.break_at(node)[1:],
    "another tag class": lambda node: bytes([node.tag ^ 0x80]) + der_tree.break_at(node)[1:],
    "the other of primitive and constructed": lambda node: (
        bytes([node.tag ^ 0x20]) + der_tree.break_at(node)[1:]
    ),
    "an element after it": lambda node: der_tree.break_at(node) + b"\x05\x00",
    "an byte after it": lambda node: der_tree.break_at(node) + b"\x00",
    "the end-of-contents bytes after it": lambda node: der_tree.break_at(node) + b"\x00\x00",
}


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("violation", VIOLATIONS)
def test_no_element_of_a_request_may_have(violation: str, name: str) -> None:
    tree = der_tree.parse(captured(name))
    for node in tree.walk():
        body = der_tree.break_at(tree, node, VIOLATIONS[violation](node))
        assert _accepted(lambda body=body: _read(body)) is None, node.path  # type: ignore[misc]


@pytest.mark.parametrize("name", CAPTURED)
def test_no_element_of_a_request_may_hold_one_more(name: str) -> None:
    tree = der_tree.parse(captured(name))
    for node in tree.walk():
        if node.children:
            extended = der_tree.element(node.tag, der_tree.contents_of(node) + b"\x05\x00")
            body = der_tree.break_at(tree, node, extended)
            assert _accepted(lambda body=body: _read(body)) is None, node.path  # type: ignore[misc]


@pytest.mark.parametrize("name", CAPTURED)
def test_no_integer_of_a_request_may_be_padded_or_empty_or_too_long(name: str) -> None:
    tree = der_tree.parse(captured(name))
    for node in tree.walk():
        if node.tag == 0x02:
            for contents in (
                b"\x00" + node.contents,
                b"",
                b"\xff\xff",
                b"\xff\x80",
                b"\x01" * 5,
                b"\x01" * 6,
            ):
                body = der_tree.break_at(tree, node, der_tree.element(0x02, contents))
                if contents != b"\x00" + node.contents or node.contents[0] < 0x80:
                    assert _accepted(lambda body=body: _read(body)) is None, node.path  # type: ignore[misc]


@given(broken() | requests.map(messages.envelope), st.sampled_from(REQUEST_KINDS))
def test_what_is_a_request_is_never_a_reply(body: bytes, kind: MessageKind) -> None:
    request = _accepted(lambda: _read(body))
    if request is not None:
        with pytest.raises(MalformedError):
            inspect_reply(kind, request.payload)
