"""The byte gate, without sockets and without time. A parser that only counts stands where aiohttp's does."""

import re
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkdcpd.frontends.http.gate import Fault, Gate, Limits

LIMITS = Limits(
    head_bytes=100,
    body_lines=10,
    bytes_ahead=200,
    head_timeout=10.0,
    body_timeout=20.0,
    idle_timeout=60.0,
    write_timeout=5.0,
)
_LENGTH = re.compile(rb"Length: (\d+)\r\n")


def request(body: bytes, name: bytes = b"x") -> bytes:
    return b"POST /%b HTTP/1.1\r\nLength: %d\r\n\r\n" % (name, len(body)) + body


@dataclass
class Parser:
    """Takes pieces as aiohttp does: it knows where bodies end, and answers when the test says so."""

    gate: Gate
    pieces: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    _rest: bytes = b""
    _left: int | None = None

    def feed(self, now: float = 0.0) -> None:
        """Take what the gate gives."""
        while (piece := self.gate.next_piece()) is not None:
            self.pieces.append(piece)
            if self._left is None:
                self._take_head(piece)
            else:
                self._take_body(piece, now)

    def begin(self, now: float = 0.0) -> None:
        """Hand over the request."""
        found = _LENGTH.search(self.heads[-1])
        assert found
        self._left = int(found[1])
        self.bodies.append(b"")
        self.gate.request_begins()
        if not self._left:
            self._end(b"", now)
        self.feed(now)

    def answer(self, now: float = 0.0) -> None:
        """Write the response."""
        self.gate.response_written(now)
        self.feed(now)

    def _take_head(self, piece: bytes) -> None:
        self._rest += piece
        if b"\r\n\r\n" in self._rest.lstrip(b"\r\n"):
            assert self._rest.endswith(b"\r\n\r\n"), "there is more than a head"
            self.heads.append(self._rest.lstrip(b"\r\n"))
            self._rest = b""

    def _take_body(self, piece: bytes, now: float) -> None:
        assert self._left is not None
        self.bodies[-1] += piece[: self._left]
        overshoot = piece[self._left :]
        self._left -= len(piece) - len(overshoot)
        if not self._left:
            self._end(overshoot, now)

    def _end(self, overshoot: bytes, now: float) -> None:
        self._left = None
        self._rest = overshoot
        self.gate.body_ends(overshoot, now)


@pytest.fixture
def gate() -> Gate:
    return Gate(LIMITS, now=0.0)


@pytest.fixture
def parser(gate: Gate) -> Parser:
    return Parser(gate)


def test_head_goes_by_itself_and_the_body_waits_for_the_request(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"body"), 0.0)
    parser.feed()
    assert parser.pieces == [request(b"body").removesuffix(b"body")]
    assert (gate.is_parsing, gate.held_bytes) == (True, 4)
    parser.begin()
    assert parser.bodies == [b"body"]


def test_next_head_waits_for_the_response(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"1", b"a") + request(b"2", b"b"), 0.0)
    parser.feed()
    parser.begin()
    assert len(parser.heads) == 1
    parser.answer()
    assert [head.split()[1] for head in parser.heads] == [b"/a", b"/b"]


def test_junk_behind_a_body_is_given_to_the_parser_after_the_response(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"1\r\n") + b"\x00junk\r\n\r\n", 0.0)
    parser.feed()
    parser.begin()
    assert (parser.bodies, parser.pieces[-1]) == ([b"1\r\n"], b"1\r\n")
    parser.answer()
    assert parser.pieces[-1] == b"\x00junk\r\n\r\n"


@given(
    st.lists(
        st.binary(max_size=30) | st.sampled_from([b"", b"\r\n\r\n", b"a\r\n\r\nb", b"\r", b"\n"]),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.integers(1, 40), min_size=1),
    st.booleans(),
)
def test_requests_come_through_however_their_bytes_are_cut(
    bodies: list[bytes], cuts: list[int], has_empty_lines: bool
) -> None:
    gate = Gate(LIMITS, now=0.0)
    parser = Parser(gate)
    data = (b"\r\n" if has_empty_lines else b"").join(request(body) for body in bodies)
    answered = 0

    def work() -> None:
        nonlocal answered
        parser.feed()
        while len(parser.heads) > answered:
            if len(parser.bodies) < len(parser.heads):
                parser.begin()
            if gate.is_in_body:
                return
            answered += 1
            parser.answer()

    number = 0
    while data:
        cut = cuts[number % len(cuts)]
        number += 1
        gate.receive(data[:cut], 0.0)
        data = data[cut:]
        work()
    assert gate.fault is None
    assert parser.bodies == bodies
    assert answered == gate.requests == len(bodies)


def test_head_of_the_limit_is_taken_and_a_longer_one_is_not() -> None:
    for length, fault in ((100, None), (101, Fault.HEAD_TOO_LARGE)):
        for cut in (1, 7, 200):
            gate = Gate(LIMITS, now=0.0)
            head = request(b"")[:-2] + b"X: "
            head += b"a" * (length - len(head) - 4) + b"\r\n\r\n"
            assert len(head) == length
            for start in range(0, length, cut):
                gate.receive(head[start : start + cut], 0.0)
                while gate.next_piece():
                    pass
            assert gate.fault is fault
            assert gate.is_parsing == (fault is None)


def test_later_head_that_begins_in_the_piece_of_a_body_has_the_same_limit(gate: Gate, parser: Parser) -> None:
    second = b"POST /" + b"a" * 60 + b" HTTP/1.1\r\nLength: 0\r\n"
    second += b"X: " + b"a" * (100 - len(second) - 7 + 1) + b"\r\n\r\n"
    assert len(second) == 101
    gate.receive(request(b"1") + second, 0.0)
    parser.feed()
    parser.begin()
    parser.answer()
    assert gate.fault is Fault.HEAD_TOO_LARGE


def test_empty_lines_count_and_end_no_head(gate: Gate) -> None:
    for _ in range(50):
        gate.receive(b"\r\n", 0.0)
        assert gate.next_piece() is None
    assert not gate.is_parsing
    gate.receive(b"\r\n", 0.0)
    gate.next_piece()
    assert gate.fault is Fault.HEAD_TOO_LARGE


HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.mark.parametrize("cut", range(len(HTTP_2)))
def test_start_of_http_2_is_no_head_however_it_is_cut(gate: Gate, cut: int) -> None:
    pieces = b""
    for segment in (HTTP_2[:cut], HTTP_2[cut:]):
        gate.receive(segment, 0.0)
        pieces += gate.next_piece() or b""
    assert (pieces, gate.is_parsing) == (HTTP_2, False)


def test_start_of_http_2_behind_a_body_is_no_head(gate: Gate) -> None:
    gate.receive(request(b"body") + HTTP_2, 0.0)
    gate.next_piece()
    gate.request_begins()
    piece = gate.next_piece() or b""
    gate.body_ends(piece.removeprefix(b"body"), 0.0)
    gate.response_written(0.0)
    assert piece + (gate.next_piece() or b"") == b"body" + HTTP_2
    assert not gate.is_parsing


def test_connection_serves_from_the_end_of_the_head_to_the_response(gate: Gate, parser: Parser) -> None:
    activities = [gate.activity]
    gate.receive(request(b""), 0.0)
    for step in (parser.feed, parser.begin, parser.answer):
        step()
        activities.append(gate.activity)
    assert [activity.value for activity in activities] == ["receiving", "serving", "serving", "idle"]


def test_bytes_far_ahead_of_the_response_are_a_fault(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"1"), 0.0)
    parser.feed()
    parser.begin()
    gate.receive(bytes(200), 0.0)
    parser.feed()
    assert gate.fault is None
    gate.receive(b"1", 0.0)
    parser.feed()
    assert gate.fault is Fault.TOO_FAR_AHEAD


def test_body_in_too_many_lines_is_a_fault(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"\r\n" * 11), 0.0)
    parser.feed()
    parser.begin()
    assert gate.fault is Fault.TOO_MANY_LINES
    assert len(parser.bodies[0]) == 20


def test_lines_are_counted_for_each_body(gate: Gate, parser: Parser) -> None:
    for _ in range(3):
        gate.receive(request(b"\r\n" * 9), 0.0)
        parser.feed()
        parser.begin()
        parser.answer()
    assert gate.fault is None


def is_late(gate: Gate, now: float, fault: Fault) -> bool:
    """Whether the client is late at this time, and not before."""
    gate.look_at_clock(now - 0.001)
    assert gate.fault is None
    gate.look_at_clock(now)
    return gate.fault is fault


def test_first_head_has_its_time_from_the_beginning(gate: Gate, parser: Parser) -> None:
    for now in range(9):
        gate.receive(b"P", now)
        parser.feed(now)
    assert is_late(gate, 10.0, Fault.HEAD_LATE)


def test_empty_lines_give_no_more_time(gate: Gate, parser: Parser) -> None:
    for now in range(9):
        gate.receive(b"\r\n", now)
        parser.feed(now)
    assert is_late(gate, 10.0, Fault.HEAD_LATE)


def test_later_head_has_its_time_from_its_first_byte(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b""), 0.0)
    parser.feed()
    parser.begin()
    parser.answer(5.0)
    assert gate.deadline == 65.0
    gate.receive(b"P", 50.0)
    parser.feed(50.0)
    gate.receive(b"O", 55.0)
    parser.feed(55.0)
    assert is_late(gate, 60.0, Fault.HEAD_LATE)


def test_head_that_came_early_has_its_time_from_the_response(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"1") + b"POST", 0.0)
    parser.feed()
    parser.begin()
    assert gate.deadline is None
    parser.answer(100.0)
    assert is_late(gate, 110.0, Fault.HEAD_LATE)


def test_idle_connection_has_its_time_from_the_response(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"") + b"\r\n", 0.0)
    parser.feed()
    parser.begin()
    parser.answer(5.0)
    gate.receive(request(b""), 6.0)
    parser.feed(6.0)
    parser.begin(6.0)
    parser.answer(7.0)
    assert is_late(gate, 67.0, Fault.IDLE)


def test_body_has_its_time_while_it_is_awaited_alone(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"body")[:-1], 0.0)
    parser.feed()
    parser.begin()
    assert gate.deadline is None
    gate.body_is_awaited(3.0)
    assert is_late(gate, 23.0, Fault.BODY_LATE)


def test_response_has_all_the_time_that_it_needs(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"body")[:-1], 0.0)
    parser.feed()
    parser.begin()
    gate.body_is_awaited(0.0)
    gate.receive(b"y", 1.0)
    parser.feed(1.0)
    assert gate.deadline is None


def test_request_that_the_parser_does_not_hand_over_is_late(gate: Gate) -> None:
    gate.receive(request(b""), 9.0)
    assert gate.next_piece()
    assert is_late(gate, 20.0, Fault.HEAD_LATE)


def test_refused_body_goes_on_to_the_parser_and_holds_nothing(gate: Gate, parser: Parser) -> None:
    gate.receive(request(bytes(50))[:-40], 0.0)
    parser.feed()
    parser.begin()
    assert gate.body_bytes == 10
    parser.answer()
    gate.receive(bytes(39), 0.0)
    parser.feed()
    assert (gate.body_bytes, gate.held_bytes, gate.is_in_body) == (0, 0, True)
    gate.receive(b"\0" + request(b""), 0.0)
    parser.feed()
    assert len(parser.heads) == 2


@pytest.mark.parametrize(
    ("data", "can_go_on"),
    [
        (b"", False),
        (b"POST", False),
        (request(b"body")[:-1], False),
        (request(b"body"), True),
    ],
    ids=["nothing", "half a head", "half a body", "a request"],
)
def test_client_that_ends_its_side_is_served_if_its_request_is_whole(
    gate: Gate, parser: Parser, data: bytes, can_go_on: bool
) -> None:
    gate.receive(data, 0.0)
    parser.feed()
    gate.input_ends()
    if gate.is_parsing:
        assert gate.can_go_on
        parser.begin()
    assert gate.can_go_on == can_go_on
    if can_go_on:
        parser.answer()
        assert not gate.can_go_on


def test_requests_that_came_before_the_end_are_served_too(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"1") + request(b"2"), 0.0)
    parser.feed()
    gate.input_ends()
    parser.begin()
    parser.answer()
    assert gate.can_go_on
    parser.begin()
    parser.answer()
    assert not gate.can_go_on


def test_closed_gate_lets_nothing_through(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"1") + request(b"2"), 0.0)
    parser.feed()
    gate.close()
    gate.receive(b"more", 0.0)
    assert gate.next_piece() is None
    assert (gate.held_bytes, gate.deadline, gate.fault) == (0, None, None)


def test_ending_connection_has_a_deadline_and_the_first_one_counts(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"body")[:-1], 0.0)
    parser.feed()
    parser.begin()
    gate.end_by(2.0, Fault.BODY_NOT_ENDED)
    gate.response_is_last(1.0)
    gate.body_is_awaited(1.0)
    gate.receive(b"more", 1.0)
    assert (gate.deadline, gate.held_bytes) == (2.0, 0)
    gate.look_at_clock(2.0)
    assert gate.fault is Fault.BODY_NOT_ENDED


def test_last_response_starts_the_time_to_read(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"body"), 0.0)
    parser.feed()
    parser.begin()
    gate.response_is_last(3.0)
    assert gate.deadline == 3.0 + LIMITS.write_timeout
    gate.look_at_clock(8.0)
    assert gate.fault is Fault.RESPONSE_NOT_READ


def test_bytes_behind_a_request_are_taken_once(gate: Gate, parser: Parser) -> None:
    gate.receive(request(b"") + b"behind", 0.0)
    parser.feed()
    parser.begin()
    assert (gate.take_held(), gate.take_held(), gate.deadline) == (b"behind", b"", None)
