import random
import re
from pathlib import Path

import pytest

from kkdcpd.errors import MalformedError
from kkdcpd.protocol.tunnel import (
    MAX_EXCHANGES,
    SUBPROTOCOL,
    Accepted,
    Event,
    FrameKind,
    GoneAway,
    Refusal,
    Refused,
    Replied,
    Requester,
    Responder,
    TunnelRequest,
)

PAGE = (Path(__file__).parent.parent.parent / "docs" / "tunnel.md").read_text()
EXAMPLES = dict(re.findall(r"^\| `(\d\d [0-9a-f .]+)` \| (.+) \|$", PAGE, re.MULTILINE))

TOO_MANY = Refusal(status=429, may_be_delivered=False, retry_after=2, text="too many requests")


def exchange(requester: Requester, responder: Responder, envelope: bytes) -> int:
    """Bring a request to the responder; return its number."""
    number, frame = requester.request(envelope)
    assert responder.receive(frame) == TunnelRequest(number=number, envelope=envelope)
    return number


def test_frames_have_a_kind_a_number_and_contents() -> None:
    requester, responder = Requester(), Responder()
    _, frame = requester.request(b"envelope")
    assert frame == b"\x01\x00\x00\x00\x01envelope"
    responder.receive(frame)
    assert responder.accept(1) == b"\x04\x00\x00\x00\x01"
    assert responder.reply(1, b"reply") == b"\x02\x00\x00\x00\x01reply"
    exchange(requester, responder, b"second")
    assert responder.refuse(2, TOO_MANY) == b"\x03\x00\x00\x00\x02\x01\xad\x00\x02\x00too many requests"
    assert responder.go_away() == b"\x05\x00\x00\x00\x02"


def test_replies_in_any_order_belong_to_their_requests() -> None:
    requester, responder = Requester(), Responder()
    numbers = [exchange(requester, responder, bytes([number])) for number in range(200)]
    random.Random(1).shuffle(numbers)
    for number in numbers:
        assert requester.receive(responder.accept(number)) == Accepted(number=number)
        envelope = number.to_bytes(2, "big")
        assert requester.receive(responder.reply(number, envelope)) == Replied(
            number=number, envelope=envelope
        )
    assert requester.is_idle
    assert responder.is_idle


@pytest.mark.parametrize("may_be_delivered", [False, True])
def test_refusal_says_whether_a_kdc_may_have_the_message(*, may_be_delivered: bool) -> None:
    requester, responder = Requester(), Responder()
    number = exchange(requester, responder, b"request")
    refusal = Refusal(status=503, may_be_delivered=may_be_delivered, text="no KDC replies")
    assert requester.receive(responder.refuse(number, refusal)) == Refused(number=number, refusal=refusal)


def test_refusal_with_an_unknown_flag_permits_no_repetition() -> None:
    requester, responder = Requester(), Responder()
    number = exchange(requester, responder, b"request")
    frame = bytearray(responder.refuse(number, TOO_MANY))
    frame[9] = 0x80
    event = requester.receive(bytes(frame))
    assert isinstance(event, Refused)
    assert event.refusal.may_be_delivered


def test_long_sentence_of_a_refusal_is_cut() -> None:
    requester, responder = Requester(), Responder()
    number = exchange(requester, responder, b"request")
    refusal = Refusal(status=503, may_be_delivered=True, retry_after=10**6, text="é" * 5000)
    frame = responder.refuse(number, refusal)
    assert len(frame) == 5 + 5 + 512
    event = requester.receive(frame)
    assert isinstance(event, Refused)
    assert event.refusal.retry_after == 65535


def test_requests_after_go_away_are_untouched() -> None:
    requester, responder = Requester(), Responder()
    exchange(requester, responder, b"taken")
    going_away = responder.go_away()
    late = [requester.request(b"late") for _ in range(2)]
    assert [responder.receive(frame) for _, frame in late] == [None, None]
    assert requester.receive(going_away) == GoneAway(untouched=(2, 3))
    assert not requester.has_room
    assert requester.receive(going_away) is None
    assert requester.receive(responder.reply(1, b"reply")) == Replied(number=1, envelope=b"reply")
    assert requester.is_idle


def test_requester_has_room_for_a_bounded_number_of_exchanges() -> None:
    requester, responder = Requester(2), Responder(2)
    exchange(requester, responder, b"")
    number = exchange(requester, responder, b"")
    assert not requester.has_room
    requester.receive(responder.reply(number, b""))
    assert requester.has_room


def test_responder_ends_a_connection_with_too_many_exchanges() -> None:
    requester, responder = Requester(3), Responder(2)
    frames = [requester.request(b"")[1] for _ in range(3)]
    for frame in frames[:2]:
        responder.receive(frame)
    with pytest.raises(MalformedError, match="more than 2"):
        responder.receive(frames[2])


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x01\x00\x00\x00",
        b"\x00\x00\x00\x00\x02",
        b"\x06\x00\x00\x00\x02",
        b"\x02\x00\x00\x00\x02reply",
        b"\x03\x00\x00\x00\x02refused",
        b"\x04\x00\x00\x00\x02",
        b"\x05\x00\x00\x00\x01",
        b"\x01\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x01",
    ],
)
def test_responder_takes_only_requests_with_rising_numbers(frame: bytes) -> None:
    requester, responder = Requester(), Responder()
    exchange(requester, responder, b"first")
    with pytest.raises(MalformedError):
        responder.receive(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x02\x00\x00\x00",
        b"\x07\x00\x00\x00\x01",
        b"\x01\x00\x00\x00\x01",
        b"\x02\x00\x00\x00\x00",
        b"\x02\x00\x00\x00\x02",
        b"\x04\x00\x00\x00\x02",
        b"\x05\x00\x00\x00\x02",
        b"\x03\x00\x00\x00\x01",
        b"\x03\x00\x00\x00\x01\x01\xf7\x00\x00",
        b"\x03\x00\x00\x00\x01\x00\xc8\x00\x00\x00",
    ],
)
def test_requester_takes_only_answers_to_its_requests(frame: bytes) -> None:
    requester = Requester()
    requester.request(b"first")
    with pytest.raises(MalformedError):
        requester.receive(frame)


def test_exchange_has_one_answer() -> None:
    requester, responder = Requester(), Responder()
    number = exchange(requester, responder, b"request")
    frame = responder.reply(number, b"reply")
    requester.receive(frame)
    with pytest.raises(MalformedError):
        requester.receive(frame)


def frame_of(example: str) -> bytes:
    return bytes.fromhex(example.replace(".", ""))


def test_documented_frames_are_the_frames_of_the_code() -> None:
    requester = Requester()
    for _ in range(3):
        requester.request(b"")
    sent, *received = map(frame_of, EXAMPLES)
    events: list[Event | None] = [requester.receive(frame) for frame in received]
    assert Responder().receive(sent) == TunnelRequest(number=1, envelope=bytes.fromhex("3081d0a0"))
    assert events == [
        Accepted(number=1),
        Replied(number=1, envelope=bytes.fromhex("3082019a")),
        Refused(number=2, refusal=Refusal(status=429, may_be_delivered=False, retry_after=2, text="slower!")),
        Refused(number=3, refusal=Refusal(status=503, may_be_delivered=True)),
        GoneAway(untouched=()),
    ]


def test_documented_kinds_are_the_kinds_of_the_code() -> None:
    kinds = re.findall(r"^\| (\d) \| ([a-z-]+) \| (?:client|server) \|", PAGE, re.MULTILINE)
    assert kinds == [(str(kind.value), kind.name.lower().replace("_", "-")) for kind in FrameKind]
    assert f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\n" in PAGE
    assert f"Up to {MAX_EXCHANGES} requests" in PAGE
