"""The tunnel protocol `kkdcp.v1`: frames, and the state of both ends (docs/tunnel.md). Does no I/O.

Each binary WebSocket message is one frame: a kind of one byte, the number of the exchange in four bytes (big
endian), and contents. The *requester* sends requests. The *responder* answers each request with one reply or
refusal, in any order. Before it sends a message to a KDC, it says so (accepted).

So the requester knows whether it may send a message again elsewhere. It may do so after a refusal that says
that no KDC has the message, and if `go away` names a lower number. It may not do so after `accepted`, and
not when the connection is lost: the frame `accepted` may be lost with it.
"""

import enum
import struct
from collections.abc import Sequence

from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen

__all__ = [
    "HEADER_BYTES",
    "MAX_EXCHANGES",
    "SUBPROTOCOL",
    "Accepted",
    "Event",
    "FrameKind",
    "GoneAway",
    "Refusal",
    "Refused",
    "Replied",
    "Requester",
    "Responder",
    "TunnelRequest",
]

SUBPROTOCOL = "kkdcp.v1"

MAX_EXCHANGES = 1024
"""Exchanges in flight on one connection."""

MAX_NUMBER = 2**32 - 1
MAX_TEXT_BYTES = 512

_HEADER = struct.Struct(">BI")
HEADER_BYTES = _HEADER.size

_REFUSAL = struct.Struct(">HHB")
"""Status, seconds until a new request is worth while (0: unknown), and flags."""

_MAY_BE_DELIVERED = 0x01


class FrameKind(enum.IntEnum):
    """The kinds of frames, and their contents."""

    REQUEST = 1
    """From the requester: a KDC-PROXY-MESSAGE. Each number is higher than all before it."""

    REPLY = 2
    """A KDC-PROXY-MESSAGE. It ends the exchange."""

    REFUSED = 3
    """Status (2 bytes), retry-after (2), flags (1), and a sentence in UTF-8. It ends the exchange."""

    ACCEPTED = 4
    """Nothing. From here on a KDC may have the message."""

    GO_AWAY = 5
    """Nothing. The number is that of the last request that the responder took, 0 if it took none."""


@frozen
class TunnelRequest:
    """A request that the responder has received. `envelope` is a KDC-PROXY-MESSAGE."""

    number: int
    envelope: bytes


@frozen
class Refusal:
    """The reason why an exchange has no reply.

    `status` is the status that a POST would get, `retry_after` is in seconds (0: unknown), and `text` is a
    sentence for people. Unless `may_be_delivered`, the requester may send the message again elsewhere.
    """

    status: int
    may_be_delivered: bool
    retry_after: int = 0
    text: str = ""


@frozen
class Accepted:
    """A KDC may have the message of this exchange."""

    number: int


@frozen
class Replied:
    """The exchange has ended with this KDC-PROXY-MESSAGE."""

    number: int
    envelope: bytes


@frozen
class Refused:
    """The exchange has ended without a reply."""

    number: int
    refusal: Refusal


@frozen
class GoneAway:
    """The responder takes no more requests. It has not touched these, and will not."""

    untouched: tuple[int, ...]


Event = Accepted | Replied | Refused | GoneAway


class Responder:
    """The end that answers requests."""

    def __init__(self, max_exchanges: int = MAX_EXCHANGES) -> None:
        self._max_exchanges = max_exchanges
        self._in_flight: set[int] = set()
        self._last = 0
        self._is_going_away = False

    @property
    def is_idle(self) -> bool:
        """Whether no request waits for its answer."""
        return not self._in_flight

    def receive(self, frame: bytes) -> TunnelRequest | None:
        """Take a frame; return the request in it, or None if the responder is going away.

        Raises:
            MalformedError: no frame that a requester may send, or more requests in flight than allowed. End
                the connection.
        """
        kind, number = _read_header(frame)
        if kind is not FrameKind.REQUEST:
            raise MalformedError(f"a requester sent a frame of kind {kind.name}")
        if self._is_going_away:
            return None
        if number <= self._last:
            raise MalformedError(f"request {number} follows request {self._last}")
        if len(self._in_flight) >= self._max_exchanges:
            raise MalformedError(f"more than {self._max_exchanges} requests in flight")
        self._last = number
        self._in_flight.add(number)
        return TunnelRequest(number=number, envelope=frame[HEADER_BYTES:])

    def accept(self, number: int) -> bytes:
        """Return the frame that says that a KDC may have the message."""
        return _HEADER.pack(FrameKind.ACCEPTED, number)

    def reply(self, number: int, envelope: bytes) -> bytes:
        """Return the frame with the reply, and end the exchange."""
        self._in_flight.remove(number)
        return _HEADER.pack(FrameKind.REPLY, number) + envelope

    def refuse(self, number: int, refusal: Refusal) -> bytes:
        """Return the frame with the refusal, and end the exchange."""
        self._in_flight.remove(number)
        flags = _MAY_BE_DELIVERED if refusal.may_be_delivered else 0
        head = _REFUSAL.pack(refusal.status, min(refusal.retry_after, 0xFFFF), flags)
        text = refusal.text.encode()[:MAX_TEXT_BYTES]
        return _HEADER.pack(FrameKind.REFUSED, number) + head + text

    def go_away(self) -> bytes:
        """Return the frame that says that no later request is taken. Those in flight are answered."""
        self._is_going_away = True
        return _HEADER.pack(FrameKind.GO_AWAY, self._last)


class Requester:
    """The end that sends requests."""

    def __init__(self, max_exchanges: int = MAX_EXCHANGES) -> None:
        self._max_exchanges = max_exchanges
        self._in_flight: set[int] = set()
        self._last = 0
        self._is_going_away = False

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent over this connection."""
        return (
            not self._is_going_away and self._last < MAX_NUMBER and len(self._in_flight) < self._max_exchanges
        )

    @property
    def is_gone_away(self) -> bool:
        """Whether the responder takes no more requests."""
        return self._is_going_away

    @property
    def is_idle(self) -> bool:
        """Whether no answer is awaited."""
        return not self._in_flight

    def request(self, envelope: bytes) -> tuple[int, bytes]:
        """Begin an exchange; return its number and its frame. Only if there is room."""
        assert self.has_room
        self._last += 1
        self._in_flight.add(self._last)
        return self._last, _HEADER.pack(FrameKind.REQUEST, self._last) + envelope

    def receive(self, frame: bytes) -> Event | None:
        """Take a frame; return None if it is a further `go away`.

        Raises:
            MalformedError: no frame that a responder may send at this time. End the connection.
        """
        kind, number = _read_header(frame)
        if kind is FrameKind.GO_AWAY:
            return self._go_away(number)
        if number not in self._in_flight:
            raise MalformedError(f"a frame of kind {kind.name} for exchange {number}, which is not in flight")
        contents = frame[HEADER_BYTES:]
        match kind:
            case FrameKind.ACCEPTED:
                return Accepted(number=number)
            case FrameKind.REPLY:
                self._in_flight.remove(number)
                return Replied(number=number, envelope=contents)
            case FrameKind.REFUSED:
                refusal = _read_refusal(contents)
                self._in_flight.remove(number)
                return Refused(number=number, refusal=refusal)
        raise MalformedError(f"a responder sent a frame of kind {kind.name}")

    def _go_away(self, last: int) -> GoneAway | None:
        if last > self._last:
            raise MalformedError(f"the responder took request {last}, and {self._last} is the last")
        if self._is_going_away:
            return None
        self._is_going_away = True
        untouched: Sequence[int] = sorted(number for number in self._in_flight if number > last)
        self._in_flight.difference_update(untouched)
        return GoneAway(untouched=tuple(untouched))


def _read_header(frame: bytes) -> tuple[FrameKind, int]:
    if len(frame) < HEADER_BYTES:
        raise MalformedError(f"a frame of {len(frame)} bytes")
    kind, number = _HEADER.unpack_from(frame)
    try:
        return FrameKind(kind), number
    except ValueError:
        raise MalformedError(f"a frame of unknown kind {kind}") from None


def _read_refusal(contents: bytes) -> Refusal:
    if len(contents) < _REFUSAL.size:
        raise MalformedError(f"a refusal of {len(contents)} bytes")
    status, retry_after, flags = _REFUSAL.unpack_from(contents)
    if not 400 <= status <= 599:
        raise MalformedError(f"a refusal with status {status}")
    text = contents[_REFUSAL.size :][:MAX_TEXT_BYTES].decode("utf-8", "replace")
    return Refusal(
        status=status,
        # A later version may have further flags. An unknown flag never permits sending again.
        may_be_delivered=bool(flags),
        retry_after=retry_after,
        text=text,
    )
