"""Limits the bytes that an HTTP connection takes in, and the client's time.

The gate does no I/O and reads no clock. The connection reports events with the time, passes pieces of the
input to the parser, and reads the deadline. The gate finds the end of a head. It never reads a length or a
chunk, because two readers of one framing can disagree (RFC 9112 11.2): the parser finds the end of a body.

- A head goes to the parser by itself, so an error behind it cannot take the request with it.
- Bytes behind a head wait until the parser has delivered the request. Then they go on line by line, so no
  piece contains both the end of a body and a whole head behind it.
- Bytes behind a body wait until the response is written.
"""

import enum

from kkdcpd.frozen import Word, frozen
from kkdcpd.values import ConnectionActivity

__all__ = ["Fault", "Gate", "Limits"]

_END_OF_LINE = b"\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_HTTP_2 = b"PRI "
"""The start of HTTP/2 (RFC 9113 3.4) looks like a head. The parser refuses it after the bytes behind it."""


@frozen
class Limits:
    """The limits of one connection, in bytes and seconds.

    `body_lines` limits the line ends in one body: a chunk has two of them. `bytes_ahead` limits the bytes
    behind a request that is not answered yet. `write_timeout` limits the time to read the last response.
    """

    head_bytes: int
    body_lines: int
    bytes_ahead: int
    head_timeout: float
    body_timeout: float
    idle_timeout: float
    write_timeout: float


class Fault(Word):
    """A limit that the client has passed. The value is for the log."""

    HEAD_TOO_LARGE = "head too large"
    TOO_MANY_LINES = "too many lines in a body"
    TOO_FAR_AHEAD = "too many requests ahead"
    HEAD_LATE = "head late"
    BODY_LATE = "body late"
    IDLE = "idle"
    RESPONSE_NOT_READ = "the client does not read its reply"
    BODY_NOT_ENDED = "too many chunks"


class _Stage(Word):
    """The part of a request that the next bytes belong to."""

    HEAD = enum.auto()
    PARSING = enum.auto()
    """The parser has a whole head and has not delivered the request yet."""

    BODY = enum.auto()
    BEHIND = enum.auto()
    """The request is whole, and its response is not written yet."""

    OVER = enum.auto()
    """All bytes are dropped."""


# Python 3.11 calls a function for each look-up of an enum's member.
_HEAD, _PARSING, _BODY, _BEHIND, _OVER = _Stage
_SERVED = (_BEHIND, _PARSING, _OVER)
_HEAD_LATE, _IDLE = Fault.HEAD_LATE, Fault.IDLE


class Gate:
    """The gate of one connection. After each event, the connection takes pieces until none is left."""

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
        "is_parsing",
        "requests",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._stage = _HEAD
        self._held = b""
        self._position = 0  # The first byte in `_held` that the parser does not have.
        self._start = b""  # The first bytes of this head that the parser has.
        self._tail = b""  # The last bytes of this head or body that the parser has.
        self._head_bytes = 0
        self._lines = 0
        self._is_answered = False
        self._late = _HEAD_LATE
        self.deadline: float | None = now + limits.head_timeout
        """The end of the client's time; None while the connection does not wait for the client."""
        self.body_bytes = 0
        """The number of bytes that the parser has of the incomplete body of an unanswered request."""
        self.requests = 0
        """The number of requests until now."""
        self.fault: Fault | None = None
        """The limit that the client has passed, if any."""
        self.is_input_over = False
        """Whether the client has ended its data. Bytes that came before still count."""
        self.held_bytes = 0
        """The number of bytes that wait in the gate."""
        self.is_in_body = False
        """Whether the request's body is not whole yet."""
        self.is_parsing = False
        """Whether the parser has a whole head and has not delivered the request yet."""

    # -- Events ----------------------------------------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes in."""
        if self._stage is _OVER:
            return
        if self._held:
            data = self._held[self._position :] + data
        self._held = data
        self._position = 0
        self.held_bytes = len(data)
        if self._late is _IDLE and self._stage is _HEAD:
            self.deadline = now + self._limits.head_timeout
            self._late = _HEAD_LATE

    def request_begins(self) -> None:
        """Let the next bytes be the body's: the parser has delivered the request."""
        self._stage = _BODY
        self.is_in_body = True
        self.is_parsing = False
        self.deadline = None
        self._head_bytes = self._lines = 0
        self._start = self._tail = b""
        self._is_answered = False
        self.requests += 1

    def body_is_awaited(self, now: float) -> None:
        """Start the time of the rest of the body."""
        if self._stage is _OVER:
            return
        self.deadline = now + self._limits.body_timeout
        self._late = Fault.BODY_LATE

    def body_ends(self, overshoot: bytes, now: float) -> None:
        """Hold the bytes behind a body, except the `overshoot`, which the parser has already."""
        self._stage = _BEHIND
        self.is_in_body = False
        self.deadline = None
        self.body_bytes = 0
        self._tail = b""
        if overshoot:
            self._head_bytes = len(overshoot)
            start_of_head = overshoot.lstrip(_END_OF_LINE)
            self._start = start_of_head[: len(_HTTP_2)]
            self._tail = start_of_head[-3:]
        if self._is_answered:
            self._expect_head(now)

    def response_written(self, now: float) -> None:
        """Let the next head go on as soon as the body is over too."""
        self._is_answered = True
        if self._stage is _BEHIND:
            self._expect_head(now)
        else:
            self.body_bytes = 0  # The rest of the body is dropped.
            self.deadline = None

    def input_ends(self) -> None:
        """Note that the client has ended its data. Bytes that came before still count."""
        self.is_input_over = True

    def take_held(self) -> bytes:
        """Return the bytes that came behind the request, and close: another protocol reads them."""
        held = self._held[self._position :]
        self.close()
        return held

    def end_by(self, deadline: float, late: Fault) -> None:
        """Drop all bytes, and let the connection end until the deadline. The first deadline counts."""
        if self._stage is _OVER and self.deadline is not None:
            return
        self.close()
        self.deadline = deadline
        self._late = late

    def response_is_last(self, now: float) -> None:
        """Drop all bytes. The client has its time to read the response."""
        self.end_by(now + self._limits.write_timeout, Fault.RESPONSE_NOT_READ)

    def close(self) -> None:
        """Drop all bytes that are held and that come."""
        self._stage = _OVER
        self.is_in_body = self.is_parsing = False
        self._held = b""
        self._position = self.held_bytes = 0
        self.body_bytes = 0
        self.deadline = self.fault = None

    # -- Results ---------------------------------------------------------------------------------------------

    def next_piece(self) -> bytes | None:
        """Return the next bytes for the parser, None if they have to wait or pass a limit."""
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
        """Note a fault if the client is late."""
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            self.fault = self._late

    @property
    def is_request_unfinished(self) -> bool:
        """Whether the parser has a part of a request that has no response yet."""
        if self._stage is _BODY:
            return not self._is_answered
        return self._stage is _HEAD and bool(self._tail)

    @property
    def activity(self) -> ConnectionActivity:
        """The activity of the connection at this moment.

        A request is served as soon as its body is known to be whole. While the parser has only its head, the
        body may be whole too, so the request counts as served.
        """
        if self._stage is _HEAD and self._late is _IDLE:
            return ConnectionActivity.IDLE
        is_served = self._stage in _SERVED
        return ConnectionActivity.SERVING if is_served else ConnectionActivity.RECEIVING

    @property
    def can_go_on(self) -> bool:
        """Whether the client may still complete a request, or has completed one that is not answered yet."""
        return not self.is_input_over or self._stage in (_PARSING, _BEHIND)

    # -- Steps -----------------------------------------------------------------------------------------------

    def _piece_of_head(self) -> bytes | None:
        if not self._tail and self._held[self._position] in _END_OF_LINE:
            self._skip_empty_lines()
        end = self._end_of_head()
        stop = end or len(self._held)
        self._head_bytes += stop - self._position
        if self._head_bytes > self._limits.head_bytes:
            self.fault = Fault.HEAD_TOO_LARGE
            return None
        piece = self._take(stop)
        if end:
            self._stage = _PARSING
            self.is_parsing = True
            # The parser answers within a turn of the event loop. The deadline is for a parser that does not.
            self.deadline = (self.deadline or 0.0) + self._limits.head_timeout
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

    def _end_of_head(self) -> int:
        """Return the end of the head in the held bytes, 0 if there is none."""
        if self._tail:
            return self._end_across_pieces()
        if self._held.startswith(_HTTP_2, self._position):
            return 0
        found = self._held.find(_END_OF_HEAD, self._position)
        return found + len(_END_OF_HEAD) if found >= 0 else 0

    def _end_across_pieces(self) -> int:
        """Return the end of a head. The parser has its first bytes already."""
        held, start = self._held, self._position
        if (self._start + held[start : start + len(_HTTP_2)]).startswith(_HTTP_2):
            return 0
        seam = self._tail + held[start : start + 3]
        found = seam.find(_END_OF_HEAD)
        if found >= 0:
            return start + found + len(_END_OF_HEAD) - len(self._tail)
        found = held.find(_END_OF_HEAD, start)
        return found + len(_END_OF_HEAD) if found >= 0 else 0

    def _piece_of_body(self) -> bytes | None:
        start = self._position
        if self._tail == b"\r" and self._held.startswith(b"\n", start):
            stop = start + 1  # CR and LF are in different pieces.
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
            self.deadline = now + self._limits.head_timeout
            self._late = _HEAD_LATE
        else:
            self.deadline = now + self._limits.idle_timeout
            self._late = _IDLE
