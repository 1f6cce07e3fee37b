"""Decides which bytes of an HTTP connection the parser gets next, and how long the client may take.

The gate does no I/O and reads no clock: its owner reports events with the time, hands pieces to the parser
and asks for the deadline. The gate finds the end of a head. It never reads a length or a chunk, since two
readers of one framing can disagree (RFC 9112 11.2): the parser says where a body ends.

- A head goes to the parser by itself, so an error behind it cannot take the request with it.
- What follows a head waits until the parser has handed over the request. Then it goes on line by line, so no
  piece contains both the end of a body and a whole head behind it.
- What follows a body waits until the response is written.
"""

import enum

from kkdcpd.frozen import Word, frozen
from kkdcpd.values import ConnectionActivity

__all__ = ["Fault", "Gate", "Limits"]

_END_OF_LINE = b"\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_HTTP_2 = b"PRI "
"""How HTTP/2 begins (RFC 9113 3.4): like a head. The parser refuses it when it has what follows, too."""


@frozen
class Limits:
    """How many bytes and seconds a client may take.

    `body_lines` counts the line ends in one body: a chunk has two of them. `bytes_ahead` counts what follows
    a request that is not answered yet.
    """

    head_bytes: int
    body_lines: int
    bytes_ahead: int
    head_timeout: float
    body_timeout: float
    idle_timeout: float


class Fault(Word):
    """A limit that the client has passed. The value is for the log."""

    HEAD_TOO_LARGE = "head too large"
    TOO_MANY_LINES = "too many chunks"
    TOO_FAR_AHEAD = "too many requests ahead"
    HEAD_LATE = "head late"
    BODY_LATE = "body late"
    IDLE = "idle"


class _Stage(Word):
    """What the next bytes belong to."""

    HEAD = enum.auto()
    HANDED_ON = enum.auto()
    """The parser has a whole head and has not handed over the request yet."""

    BODY = enum.auto()
    BEHIND = enum.auto()
    """The request is whole, and its response is not written yet."""

    OVER = enum.auto()
    """Nothing that comes means anything."""


# Looked up once: Python 3.11 runs a function for each look-up of an enum's member.
_HEAD, _HANDED_ON, _BODY, _BEHIND, _OVER = _Stage
_SERVED = (_BEHIND, _HANDED_ON, _OVER)
_HEAD_LATE, _IDLE = Fault.HEAD_LATE, Fault.IDLE


class Gate:
    """The gate of one connection. After each event its owner takes pieces until there is none, or a fault."""

    __slots__ = (
        "_head_bytes",
        "_held",
        "_is_answered",
        "_late",
        "_limits",
        "_lines",
        "_position",
        "_stage",
        "_start",
        "_tail",
        "body_bytes",
        "deadline",
        "fault",
        "held_bytes",
        "is_in_body",
        "is_input_over",
        "requests",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._stage = _HEAD
        self._held = b""
        self._position = 0  # Of the first byte in `_held` that the parser does not have.
        self._start = b""  # The first bytes of this head that the parser has.
        self._tail = b""  # The last bytes of this head or body that the parser has.
        self._head_bytes = 0
        self._lines = 0
        self._is_answered = False
        self._late = _HEAD_LATE
        self.deadline: float | None = now + limits.head_timeout
        """When the client's time is over; None while the connection does not wait for the client."""
        self.body_bytes = 0
        """How many bytes of an unanswered request's unfinished body the parser has."""
        self.requests = 0
        """How many requests there have been."""
        self.fault: Fault | None = None
        """The limit that the client has passed, if any."""
        self.is_input_over = False
        """Whether no more bytes come. What has come still counts."""
        self.held_bytes = 0
        """How many bytes wait here."""
        self.is_in_body = False
        """Whether the request's body is not whole yet."""

    # -- Events ----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes in."""
        if self._stage is _OVER:
            return
        self._held = self._held[self._position :] + data if self._held else data
        self._position = 0
        self.held_bytes += len(data)
        if self._stage is _HEAD and self._late is _IDLE:
            self._wait(now + self._limits.head_timeout, _HEAD_LATE)

    def request_begins(self) -> None:
        """Let the next bytes be the body's: the parser has handed over the request."""
        self._stage = _BODY
        self.is_in_body = True
        self.deadline = None
        self._head_bytes = self._lines = 0
        self._start = self._tail = b""
        self._is_answered = False
        self.requests += 1

    def body_is_awaited(self, now: float) -> None:
        """Give the rest of the body its time."""
        self._wait(now + self._limits.body_timeout, Fault.BODY_LATE)

    def body_ends(self, overshoot: bytes, now: float) -> None:
        """Hold what follows a body, except the `overshoot`: the parser has these bytes already."""
        self._stage = _BEHIND
        self.is_in_body = False
        self.deadline = None
        self.body_bytes = 0
        self._head_bytes = len(overshoot)
        start_of_head = overshoot.lstrip(_END_OF_LINE) if overshoot else b""
        self._start = start_of_head[: len(_HTTP_2)]
        self._tail = start_of_head[-3:]
        if self._is_answered:
            self._expect_head(now)

    def response_written(self, now: float) -> None:
        """Let the next head go on once the body is over too."""
        self._is_answered = True
        if self._stage is _BEHIND:
            self._expect_head(now)
        else:
            self.body_bytes = 0  # The rest of the body is dropped.
            self.deadline = None

    def input_ends(self) -> None:
        """Note that no more bytes come. What has come still counts."""
        self.is_input_over = True

    def take_held(self) -> bytes:
        """Return the bytes that came behind the request, and close: another protocol reads them."""
        held = self._held[self._position :]
        self.close()
        return held

    def close(self) -> None:
        """Drop what is held, and whatever comes."""
        self._stage = _OVER
        self.is_in_body = False
        self._held = b""
        self._position = self.held_bytes = 0
        self.body_bytes = 0
        self.deadline = self.fault = None

    # -- What follows from them ------------------------------------------------------------------------------

    def next_piece(self) -> bytes | None:
        """Return the bytes that the parser gets next, None if it has to wait or if they pass a limit."""
        if not self._held:
            return None
        if self._stage is _HEAD:
            return self._piece_of_head()
        if self._stage is _BODY:
            return self._piece_of_body()
        if self._stage is _BEHIND and self.held_bytes > self._limits.bytes_ahead:
            self.fault = Fault.TOO_FAR_AHEAD
        return None

    def look_at_clock(self, now: float) -> None:
        """Find out whether the client is late."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.fault = self._late

    @property
    def is_handed_on(self) -> bool:
        """Whether the parser has a whole head and has not handed over the request yet."""
        return self._stage is _HANDED_ON

    @property
    def is_request_unfinished(self) -> bool:
        """Whether the parser has a part of a request that has no response yet."""
        if self._stage is _BODY:
            return not self._is_answered
        return self._stage is _HEAD and bool(self._tail)

    @property
    def activity(self) -> ConnectionActivity:
        """What the connection does at this moment.

        A request is served once its body is known to be whole. That is not known yet of one whose head was
        handed on a moment ago: it may be whole, too.
        """
        if self._stage is _HEAD and self._late is _IDLE:
            return ConnectionActivity.IDLE
        is_served = self._stage in _SERVED
        return ConnectionActivity.SERVING if is_served else ConnectionActivity.RECEIVING

    @property
    def can_go_on(self) -> bool:
        """Whether the client may still complete a request, or has completed one that is not answered yet."""
        return not self.is_input_over or self._stage in (_HANDED_ON, _BEHIND)

    # -- Steps -----------------------------------------------------------------------------------------------

    def _piece_of_head(self) -> bytes | None:
        if not self._tail and self._held[self._position] in _END_OF_LINE:
            self._skip_empty_lines()
        end = None if self._is_http_2() else self._end_of_head()
        stop = end or len(self._held)
        self._head_bytes += stop - self._position
        if self._head_bytes > self._limits.head_bytes:
            self.fault = Fault.HEAD_TOO_LARGE
            return None
        piece = self._take(stop)
        if end:
            self._stage = _HANDED_ON
            # The parser answers in its own time; this deadline is only for a parser that does not answer.
            self._wait((self.deadline or 0.0) + self._limits.head_timeout, _HEAD_LATE)
        else:
            self._start = (self._start + piece)[: len(_HTTP_2)]
            self._tail = (self._tail + piece)[-3:]
        return piece or None

    def _skip_empty_lines(self) -> None:
        """Drop empty lines before a request line (RFC 9112 2.2): they are no end of a head."""
        rest = self._held[self._position :].lstrip(_END_OF_LINE)
        self._head_bytes += self.held_bytes - len(rest)
        self._held = rest
        self._position = 0
        self.held_bytes = len(rest)

    def _is_http_2(self) -> bool:
        """Whether the head begins as HTTP/2 does."""
        if not self._tail:
            return self._held.startswith(_HTTP_2, self._position)
        return (self._start + self._held[self._position : self._position + len(_HTTP_2)]).startswith(_HTTP_2)

    def _end_of_head(self) -> int | None:
        """Return where the head ends in what is held."""
        if self._tail and (end := self._end_across_pieces()):
            return end
        found = self._held.find(_END_OF_HEAD, self._position)
        return found + len(_END_OF_HEAD) if found >= 0 else None

    def _end_across_pieces(self) -> int | None:
        """Return where the head ends, if the bytes that end it have come apart."""
        seam = self._tail + self._held[self._position : self._position + 3]
        found = seam.find(_END_OF_HEAD)
        return self._position + found + len(_END_OF_HEAD) - len(self._tail) if found >= 0 else None

    def _piece_of_body(self) -> bytes | None:
        start = self._position
        if self._tail == b"\r" and self._held.startswith(b"\n", start):
            stop = start + 1  # The two bytes that end a line have come apart.
        else:
            found = self._held.find(_END_OF_LINE, start)
            stop = found + len(_END_OF_LINE) if found >= 0 else len(self._held)
            if found >= 0 and self._is_line_too_many():
                self.fault = Fault.TOO_MANY_LINES
                return None
        piece = self._take(stop)
        self._tail = piece[-1:]
        if not self._is_answered:
            self.body_bytes += len(piece)
        return piece

    def _is_line_too_many(self) -> bool:
        self._lines += 1
        return self._lines > self._limits.body_lines

    def _take(self, stop: int) -> bytes:
        if stop == len(self._held):
            piece = self._held[self._position :] if self._position else self._held
            self._held = b""
            self._position = self.held_bytes = 0
        else:
            piece = self._held[self._position : stop]
            self._position = stop
            self.held_bytes -= len(piece)
        return piece

    def _expect_head(self, now: float) -> None:
        self._stage = _HEAD
        if self._tail or self._held:
            self._wait(now + self._limits.head_timeout, _HEAD_LATE)
        else:
            self._wait(now + self._limits.idle_timeout, _IDLE)

    def _wait(self, until: float, late: Fault) -> None:
        self.deadline = until
        self._late = late
