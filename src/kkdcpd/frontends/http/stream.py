"""Connects a transport, the byte gate and aiohttp's protocol, and keeps the client's limits.

A client decides how slowly bytes come and go, and how many. So each head, body and response has a deadline,
and each connection has limits of memory (docs/http.md has the figures). The gate keeps the limits of the
input, the wire those of the output, and `holdings` the limit of all connections together.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import StreamReader

from kkdcpd.frontends.http.arrival import UNIX_PEER, Arrival
from kkdcpd.frontends.http.bridge import Head, HttpProtocol, has_parser_failed
from kkdcpd.frontends.http.gate import Fault, Gate, Limits
from kkdcpd.frontends.http.handshake import has_expired, with_tls
from kkdcpd.frontends.http.holdings import FREE_BYTES, Holdings
from kkdcpd.frontends.http.late_body import LateBody
from kkdcpd.frontends.http.takeover import Successor, TakenOver
from kkdcpd.frontends.http.wire import Owner, Wire, receive_buffer
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.columns import Handshake
from kkdcpd.metrics.counters import Counters
from kkdcpd.tls import Connection as TlsConnection
from kkdcpd.values import ConnectionActivity

__all__ = ["LINGERING_SECONDS", "Shared", "Stream"]

logger = EventLogger(__name__)

LINGERING_SECONDS = 2.0
"""The time for which the rest of a refused body is read and dropped, so that its sender reads the refusal."""


@dataclass(slots=True, kw_only=True)
class Shared:
    """The parts that all connections of a way in share."""

    counters: Counters
    holdings: Holdings
    limits: Limits
    max_requests: int
    make_protocol: Callable[[], HttpProtocol]
    take_over: Callable[[Arrival, Successor], TakenOver]
    is_draining: bool = False


class Stream(Owner):
    """The input, the output and the end of a connection.

    aiohttp parses, runs the handler and keeps requests in order. The stream calls aiohttp's `data_received`,
    and is aiohttp's transport through the wire. `client` is the client, as the acceptor and TLS know it.
    `head` and `body` are those of the present request.
    """

    __slots__ = (
        "_arrival",
        "_first_bytes",
        "_gate",
        "_is_head_too_large",
        "_is_holding",
        "_late_body",
        "_loop",
        "_protocol",
        "_shared",
        "_successor",
        "_timer",
        "_timer_at",
        "_tls",
        "_wire",
        "body",
        "client",
        "head",
    )

    def __init__(self, shared: Shared, arrival: Arrival) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._shared = shared
        self._arrival = arrival
        self.client = arrival.client
        self._gate = Gate(shared.limits, loop.time())
        self._protocol = shared.make_protocol()
        self._wire: Wire[Stream] | None = None
        self._tls: TlsConnection | None = None
        self._first_bytes: bytes | None = None
        self.head: Head | None = None
        self.body: StreamReader | None = None
        self._late_body: LateBody | None = None
        self._is_head_too_large = False
        self._is_holding = False
        self._successor: Successor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    # -- The beginning and the end ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the transport, after the TLS handshake."""
        stream: asyncio.Transport = transport  # type: ignore[assignment] # All transports are of streams.
        self._wire = Wire(stream, self, self._shared.limits.write_timeout)
        self._protocol.connection_made(self._wire)
        self._arrival.begin(self)
        self._watch()
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object:
            self._learn_from_tls(ssl_object, has_certificate=bool(transport.get_extra_info("peercert")))

    def _learn_from_tls(self, ssl_object: TlsConnection, *, has_certificate: bool) -> None:
        self._tls = ssl_object
        ssl_object.note_close_notify = self._note_close_notify
        resumed = ssl_object.session_reused
        self._shared.counters.shook_hands(Handshake.RESUMED if resumed else Handshake.FULL)
        self.client = with_tls(self.client, ssl_object, has_certificate=has_certificate)
        # OpenSSL checks the date in a full handshake only.
        if has_certificate and has_expired(self.client):
            self.cut_off("the client's certificate has expired")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave the count of connections, and end the request in flight."""
        self._release()
        self._arrival.leave()
        self._protocol.connection_lost(exc)

    def end(self) -> None:
        """Take no more bytes in. The client has its time to read the last response."""
        if self._successor and self._wire:
            self._hand_over(self._successor, self._wire)
            return
        self._gate.response_is_last(self._loop.time())
        self._watch()
        if self._tls:
            self._tls.note_close_notify = None

    def _hand_over(self, successor: Successor, wire: Wire["Stream"]) -> None:
        """Give the connection to the successor. aiohttp has ended its part: it closes its transport."""
        ahead = self._gate.take_held()
        self._release()
        self._protocol.connection_lost(None)
        self._shared.take_over(self._arrival, successor).begin(wire, ahead)

    def _release(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._wire:
            self._wire.stop_deadline()
        self._timer = self._wire = None
        if self._tls:
            self._tls.note_close_notify = None
        if self._is_holding:
            self._shared.holdings.release(self)

    @property
    def activity(self) -> ConnectionActivity:
        """The activity at this moment. The acceptor closes an idle connection first to make room."""
        activity = self._gate.activity
        # The activity is read rarely, so a system call is cheap enough.
        if activity is ConnectionActivity.IDLE and self._wire and self._wire.is_sending():
            return ConnectionActivity.SERVING
        return activity

    def cut_off(self, reason: str) -> None:
        """Drop the bytes that the client does not take, and the connection with them."""
        if not self._wire:
            return
        client = self.client
        logger.debug("connection_aborted", client=client.address, port=client.port, reason=reason)
        if self.activity is ConnectionActivity.IDLE:
            # The event loop may still have to write the last response, which the kernel then sends.
            self._gate.close()
            self._loop.call_soon(self._wire.abort)
        else:
            self._wire.reset()

    # -- The end of the client's data ------------------------------------------------------------------------

    def eof_received(self) -> bool:
        """Serve a client that has ended only its own side (RFC 9112 9.6), where the transport can."""
        if self._tls:
            # TLS ends before TCP does. A client that ends TCP has left; event loops send nothing after it.
            self.end()
            return False
        wire = self._wire
        if not wire or (self.client.address == UNIX_PEER and wire.has_hung_up()):
            return False
        self._input_ends()
        return not wire.is_closing()

    def _note_close_notify(self) -> None:
        if self._tls and self._tls.note_close_notify:
            self._tls.note_close_notify = _ignore
            # The connection receives the bytes before the close_notify later.
            self._loop.call_soon(self._input_ends)

    def _input_ends(self) -> None:
        self._gate.input_ends()
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._wire and not self._can_go_on():
            self._wire.close()

    def _can_go_on(self) -> bool:
        """Whether a response is still due. A broken request gets one, although it never becomes whole."""
        gate = self._gate
        return gate.can_go_on or (gate.is_request_unfinished and self._has_parser_failed())

    def _has_parser_failed(self) -> bool:
        return self._wire is not None and has_parser_failed(self._protocol, self._wire)

    # -- Input -----------------------------------------------------------------------------------------------

    def buffer_updated(self, nbytes: int) -> None:
        """Take in the bytes that were received."""
        data = bytes(receive_buffer[:nbytes])
        if self._first_bytes is None:
            self._first_bytes = data[:8]
        gate = self._gate
        gate.receive(data, self._loop.time())
        if gate.is_parsing and self._wire:
            self._wire.pause_reading()  # The request is about to begin.
        self._feed()

    def _feed(self) -> None:
        """Give the parser the pieces that the gate lets through."""
        gate = self._gate
        while gate.held_bytes and not gate.is_parsing and (piece := gate.next_piece()) is not None:
            if gate.is_in_body and self.body:
                self._feed_body(piece, self.body)
            else:
                self._protocol.data_received(piece)
        if gate.fault:
            self._stop_at(gate.fault)
            return
        if self._late_body:
            self._late_body.wake()
        if self._is_holding or gate.body_bytes + gate.held_bytes > FREE_BYTES:  # Few connections ever are.
            self._note_held()
        if gate.deadline is not None and gate.deadline < self._timer_at:
            self._watch()

    def _feed_body(self, piece: bytes, body: StreamReader) -> None:
        before = body.total_bytes
        self._protocol.data_received(piece)
        if body.is_eof():
            count = body.total_bytes - before
            # A chunked body ends with a line of its own.
            self._gate.body_ends(piece[count:] if count else b"", self._loop.time())

    def _note_held(self) -> None:
        held = self._gate.body_bytes + self._gate.held_bytes
        if self._wire and self._wire.is_paused:
            held += self._wire.get_write_buffer_size()
        if self._is_holding or held > FREE_BYTES:
            self._is_holding = held > FREE_BYTES
            self._shared.holdings.hold(self, held)

    # -- Deadlines and limits --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Let the timer fire by the deadline. It may fire sooner: most deadlines are kept, and move."""
        deadline = self._gate.deadline
        if deadline is None or not self._wire or self._timer_at <= deadline:
            return
        if self._timer:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._gate.look_at_clock(self._loop.time())
        if self._gate.fault:
            self._stop_at(self._gate.fault)
        else:
            self._watch()

    def _stop_at(self, fault: Fault) -> None:
        """Handle a limit that the client has passed."""
        if fault is Fault.BODY_LATE:
            if self._late_body:
                self._late_body.time_out()
        elif fault is Fault.HEAD_TOO_LARGE:
            self._is_head_too_large = True
            self._gate.close()
            # No parser accepts NUL in any state: aiohttp answers 400.
            self._protocol.data_received(b"\0")
        elif fault is Fault.TOO_MANY_LINES:
            # A client that was refused already may read the refusal first.
            self._gate.end_by(self._loop.time() + LINGERING_SECONDS, Fault.BODY_NOT_ENDED)
            self._watch()
        elif fault in _ABORTING:
            self.cut_off(fault.value)
        elif self._wire:
            self._wire.close()

    # -- Output ----------------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Start the client's time to read."""
        if self._wire and self._wire.pause():
            self._protocol.pause_writing()
        self._note_held()

    def resume_writing(self) -> None:
        """Go on when all is sent."""
        if self._wire and not self._wire.resume():
            return
        self._protocol.resume_writing()
        self._note_held()


_ABORTING = (Fault.TOO_FAR_AHEAD, Fault.RESPONSE_NOT_READ, Fault.BODY_NOT_ENDED)


def _ignore() -> None:
    """Ignore another close_notify."""
