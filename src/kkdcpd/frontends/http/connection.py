"""One HTTP connection: the shell between a transport, the byte gate and aiohttp's protocol.

A client decides how slowly bytes come and go, and how many. So each head, body and response has its deadline,
and what one connection can make the process hold has its limit (docs/http.md has the figures). The gate keeps
the limits of what comes in; `wire` and `holdings` keep those of what goes out and of all connections.

aiohttp parses, runs the handler and keeps requests in order (`bridge`). It gets bytes by `data_received`,
sees a transport of ours, and asks its handler for responses.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol

from aiohttp import HttpVersion11, StreamReader, hdrs, web

from kkdcpd.config import ConnectionsConfig, HttpConfig
from kkdcpd.errors import BodyTimeoutError, BodyTooLargeError
from kkdcpd.frontends.http.acceptor import UNIX_PEER, Arrival
from kkdcpd.frontends.http.bridge import KEPT, LAST, HttpProtocol, make_server
from kkdcpd.frontends.http.gate import Fault, Gate, Limits
from kkdcpd.frontends.http.holdings import FREE_BYTES, Holdings
from kkdcpd.frontends.http.malformed import name_rule, name_start
from kkdcpd.frontends.http.responses import Response, encode, encode_upgrade
from kkdcpd.frontends.http.takeover import Successor, TakenOver, Upgrade
from kkdcpd.frontends.http.wire import RECEIVE_BYTES, Owner, Wire, receive_buffer
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.columns import Handshake
from kkdcpd.metrics.counters import Counters
from kkdcpd.tls import Connection as TlsConnection
from kkdcpd.tls import client_certificate
from kkdcpd.values import ClientConnection, ConnectionActivity

__all__ = ["BrokenBodyError", "Connection", "HttpServer"]

logger = EventLogger(__name__)

MAX_HEAD_BYTES = 8192
"""Request line and headers together. MIT's client sends 150 bytes, Windows 250, and proxies add as many."""

MAX_LINE_BYTES = 4096
"""Any one line of a head: longer than every path, and twice the longest cookie that might stray in here."""

MAX_HEADERS = 64
"""aiohttp makes objects of each: this many cost more than their bytes."""

READ_BUFFER_BYTES = 2 * RECEIVE_BYTES
"""aiohttp stops reading at twice this. Bodies that are wanted never wait for so long."""

MAX_LINES = 4200
"""Line ends in one body. A chunk has two, and costs the parser more than its bytes: 256 KiB in chunks of one
byte would take it 180 ms. In what is encrypted there is one for each 64 KiB."""

LINGERING_SECONDS = 2.0
"""How long the rest of a refused body is read and dropped, so that its sender can read the refusal."""

NEVER = 365 * 86400.0
"""The idle timeout for aiohttp, which cannot be without one: the gate keeps this deadline."""

MAX_PROBES = 64
"""Twice as many as the errors after which aiohttp stops reading."""


class BrokenBodyError(Exception):
    """The body of a request breaks the rules of HTTP. The server answers this request by itself."""


class Handler(Protocol):
    """What answers requests."""

    def handle(self, request: web.BaseRequest, connection: "Connection", /) -> Awaitable[Response | Upgrade]:
        """Answer a request. A BrokenBodyError of the connection's may pass through."""

    def refuse_malformed(self, connection: "Connection", detail: str, /) -> Response:
        """Answer what is no HTTP. `detail` names the rule that is broken."""


class HttpServer:
    """Makes the connections of one way in, and ends them. Make it in a running event loop."""

    def __init__(
        self, handler: Handler, http: HttpConfig, connections: ConnectionsConfig, counters: Counters
    ) -> None:
        self.handler = handler
        self.counters = counters
        self.holdings = Holdings()
        self.limits = Limits(
            head_bytes=MAX_HEAD_BYTES,
            body_lines=MAX_LINES,
            # One whole request may be there while another is answered: no client of Kerberos has even that.
            bytes_ahead=MAX_HEAD_BYTES + http.max_body_bytes,
            head_timeout=http.head_timeout,
            body_timeout=http.body_timeout,
            idle_timeout=http.keepalive_timeout,
        )
        self.max_requests = http.max_requests_per_connection
        self.write_timeout = connections.write_timeout
        self.is_draining = False
        self.aiohttp = make_server()
        self._taken_over: set[TakenOver] = set()

    def connection(self, arrival: Arrival) -> "Connection":
        """Make the protocol of a new connection."""
        return Connection(self, arrival)

    def take_over(self, arrival: Arrival, successor: Successor) -> TakenOver:
        """Note that a successor serves a connection from now on."""
        taken_over = TakenOver(arrival, successor, self._taken_over.discard)
        self._taken_over.add(taken_over)
        return taken_over

    def drain(self) -> None:
        """Tell the client of every connection, with its next response, that this response is the last."""
        self.is_draining = True

    async def stop(self, timeout: float) -> None:
        """Close every connection. Requests in flight have so many seconds; to aiohttp, 0 is without end."""
        self.aiohttp.pre_shutdown()  # Idle connections end here.
        await self.aiohttp.shutdown(timeout)
        for connection in tuple(self._taken_over):
            connection.close()


class Connection(Owner):
    """A connection whose client must keep its deadlines and its limits.

    `client` is the client, as the acceptor and TLS tell. `is_trusted_proxy` says whether its requests may
    name another client. `bytes_read` counts the body of the current request.
    """

    __slots__ = (
        "_arrival",
        "_awaited",
        "_body",
        "_first_bytes",
        "_gate",
        "_is_head_too_large",
        "_is_holding",
        "_loop",
        "_protocol",
        "_server",
        "_timer",
        "_timer_at",
        "_tls",
        "_upgrade",
        "_wire",
        "bytes_read",
        "client",
        "is_trusted_proxy",
    )

    def __init__(self, server: HttpServer, arrival: Arrival) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._server = server
        self.client = arrival.client
        self.is_trusted_proxy = arrival.is_trusted_proxy
        self.bytes_read = 0
        self._arrival = arrival
        self._gate = Gate(server.limits, loop.time())
        self._protocol = HttpProtocol(
            server.aiohttp,
            loop=loop,
            keepalive_timeout=NEVER,
            # Our deadlines end a connection whose client is gone long before TCP would ask.
            tcp_keepalive=False,
            access_log=None,  # type: ignore[arg-type] # as aiohttp's own runner does to have none
            # A compressed body is a malformed one, and nothing is unpacked for strangers.
            auto_decompress=False,
            lingering_time=LINGERING_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            read_bufsize=READ_BUFFER_BYTES,
        )
        self._wire: Wire[Connection] | None = None
        self._tls: TlsConnection | None = None
        self._first_bytes: bytes | None = None
        self._body: StreamReader | None = None
        self._awaited: asyncio.Future[None] | None = None
        self._is_head_too_large = False
        self._is_holding = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._upgrade: Upgrade | None = None

    # -- The beginning and the end ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn what TLS tells of the client."""
        stream: asyncio.Transport = transport  # type: ignore[assignment] # ours are all of streams
        self._wire = Wire(stream, self, self._server.write_timeout)
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
        self._server.counters.shook_hands(Handshake.RESUMED if resumed else Handshake.FULL)
        # Most listeners ask for no certificate.
        certificate = client_certificate(ssl_object) if has_certificate else None
        client = self.client
        self.client = ClientConnection(
            address=client.address,
            port=client.port,
            tls=ssl_object.version(),
            network=client.network,
            proxy=client.proxy,
            certificate=certificate,
        )
        if certificate and certificate.expires < time.time():
            # Of a session that was resumed; a full handshake fails.
            self.cut_off("the client's certificate has expired")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the timers, and leave the count of connections."""
        self._release()
        self._arrival.leave()
        self._protocol.connection_lost(exc)

    def _release(self) -> None:
        """Forget what belongs to this connection's time as HTTP."""
        if self._timer:
            self._timer.cancel()
        if self._wire:
            self._wire.stop_deadlines()
        self._timer = self._wire = None
        self._gate.close()
        if self._tls:
            self._tls.note_close_notify = None
        if self._is_holding:
            self._server.holdings.release(self)

    def end(self) -> None:
        """Take nothing more in. A rest that is still to be sent has its deadline."""
        if self._upgrade and self._wire:
            self._hand_over(self._upgrade, self._wire)
            return
        self._gate.close()
        if self._tls:
            self._tls.note_close_notify = None
        if self._wire:
            self._wire.close_within_write_timeout()

    def _hand_over(self, upgrade: Upgrade, wire: Wire["Connection"]) -> None:
        """Give the connection to the successor: aiohttp has ended its part, and closes its transport."""
        ahead = self._gate.take_held()
        self._release()
        self._protocol.connection_lost(None)
        self._server.take_over(self._arrival, upgrade.successor).begin(wire, ahead)

    @property
    def activity(self) -> ConnectionActivity:
        """What the connection does at this moment, for the acceptor, which may need room for another one."""
        is_response_unread = self._wire is not None and self._wire.is_paused
        return ConnectionActivity.SERVING if is_response_unread else self._gate.activity

    def cut_off(self, reason: str) -> None:
        """Drop what the client does not take, and the connection with it."""
        if not self._wire:
            return
        client = self.client
        logger.debug("connection_aborted", client=client.address, port=client.port, reason=reason)
        if self._gate.activity is ConnectionActivity.IDLE:
            # The last response may still be on its way: the event loop writes after its callbacks, and the
            # kernel sends as fast as the client takes it.
            self._gate.close()
            self._loop.call_soon(self._wire.abort)
        else:
            self._wire.reset()

    # -- The end of what the client sends --------------------------------------------------------------------

    def eof_received(self) -> bool:
        """Serve a client that has ended only its own side (RFC 9112 9.6), where the transport can."""
        if self._tls:
            # TLS ends before TCP does. A client that ends TCP has left; event loops send nothing after it.
            self.end()
            return False
        if self._has_hung_up():
            return False
        self._input_ends()
        return self._wire is not None and not self._wire.is_closing()

    def _note_close_notify(self) -> None:
        if self._tls and self._tls.note_close_notify:
            self._tls.note_close_notify = _ignore
            # What came before it is received later.
            self._loop.call_soon(self._input_ends)

    def _input_ends(self) -> None:
        self._gate.input_ends()
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self._wire and not self._can_go_on():
            self._wire.close()

    def _can_go_on(self) -> bool:
        """Whether a response is still due. One to a broken request is, though it never becomes whole."""
        gate = self._gate
        return gate.can_go_on or (gate.is_request_unfinished and self._has_parser_failed())

    def _has_hung_up(self) -> bool:
        """Whether the client has closed its unix socket. TCP does not tell this from a half-close."""
        wire = self._wire
        return wire is not None and self.client.address == UNIX_PEER and wire.has_hung_up()

    # -- What comes in ---------------------------------------------------------------------------------------

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was received."""
        data = bytes(receive_buffer[:nbytes])
        if self._first_bytes is None:
            self._first_bytes = data[:8]
        self._gate.receive(data, self._loop.time())
        if self._gate.is_handed_on and self._wire:
            self._wire.pause_reading()  # The request is about to begin.
        self._feed()

    def _feed(self) -> None:
        """Hand the parser what the gate lets go."""
        gate = self._gate
        while gate.held_bytes and (piece := gate.next_piece()) is not None:
            if gate.is_in_body and self._body:
                self._feed_body(piece, self._body)
            else:
                self._protocol.data_received(piece)
        if gate.fault:
            self._stop_at(gate.fault)
            return
        if self._awaited and not self._awaited.done():
            self._awaited.set_result(None)
        if self._is_holding or gate.body_bytes + gate.held_bytes > FREE_BYTES:  # few ever are
            self._note_held()
        if gate.deadline is not None:
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
            self._server.holdings.hold(self, held)

    # -- Deadlines and limits --------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Have the timer fire no later than the deadline. It may fire sooner, as most deadlines are kept."""
        deadline = self._gate.deadline
        if deadline is None or not self._wire or (self._timer and self._timer_at <= deadline):
            return
        if self._timer:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_at(deadline, self._look_at_deadline)

    def _look_at_deadline(self) -> None:
        self._timer = None
        self._gate.look_at_clock(self._loop.time())
        if self._gate.fault:
            self._stop_at(self._gate.fault)
        else:
            self._watch()

    def _stop_at(self, fault: Fault) -> None:
        """Do what a limit demands that the client has passed."""
        if fault is Fault.BODY_LATE:
            if self._awaited and not self._awaited.done():
                self._awaited.set_exception(BodyTimeoutError(f"{self.bytes_read} bytes so far"))
        elif fault is Fault.HEAD_TOO_LARGE:
            self._is_head_too_large = True
            self._gate.close()
            # No parser can be in a state where it takes NUL: this one answers 400.
            self._protocol.data_received(b"\0")
        elif fault is Fault.TOO_MANY_LINES:
            self._gate.close()
            # A client that was refused already may read that first.
            if self._wire:
                self._wire.close_within(LINGERING_SECONDS, fault.value)
        elif fault is Fault.TOO_FAR_AHEAD:
            self.cut_off(fault.value)
        elif self._wire:
            self._wire.close()

    # -- A request -------------------------------------------------------------------------------------------

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Have a request answered, and write the response."""
        self._begin(request.content)
        try:
            response = await self._server.handler.handle(request, self)
        except BrokenBodyError:
            return KEPT  # aiohttp goes on to the error, and `refuse` is asked.
        if isinstance(response, Upgrade):
            return self._begin_upgrade(response)
        is_1_0 = request.version < HttpVersion11
        # MIT's client speaks HTTP/1.0 and reads to the end of the connection, whatever the length says.
        is_last = response.closes or is_1_0 or self._is_last(request)
        if not self._wire or self._wire.is_closing():
            return LAST
        has_body = request.method != hdrs.METH_HEAD
        self._wire.write(encode(response, is_1_0=is_1_0, is_last=is_last, has_body=has_body))
        try:
            if self._protocol.writing_paused:  # A client that does not read gets no other response meanwhile.
                await request.writer.drain()
        except ConnectionError:
            return LAST
        self._response_is_written(is_last=is_last)
        return LAST if is_last else KEPT

    def _begin_upgrade(self, upgrade: Upgrade) -> web.StreamResponse:
        """Send the response 101. aiohttp then closes its transport, which hands the connection over."""
        if self._wire and not self._wire.is_closing():
            self._wire.write(encode_upgrade(upgrade.headers))
            self._upgrade = upgrade
        return LAST

    def can_upgrade(self, request: web.BaseRequest) -> bool:
        """Whether a handler may answer with an Upgrade: the request is HTTP/1.1 and has no body."""
        return request.version == HttpVersion11 and not self._gate.is_in_body

    async def read_body(self, limit: int) -> bytes:
        """Read the request's body, chunked or not, within its limits of size and time.

        Raises:
            BodyTooLargeError: there is more than the limit.
            BodyTimeoutError: the body is not whole in time.
            BrokenBodyError: the body is no HTTP.
        """
        assert self._body
        if self._body.is_eof():  # it came with its head, as nearly all do: there is nothing to wait for
            data = self._body.read_nowait()
            self.bytes_read = len(data)
        else:
            data = await self._wait_for_body(self._body, limit)
        if len(data) > limit:
            raise BodyTooLargeError(f"more than {limit} bytes")
        return data

    @property
    def is_body_missing(self) -> bool:
        """Whether the request's body is not whole yet."""
        return self._gate.is_in_body

    def write_continue(self) -> None:
        """Ask for the body (RFC 9110 10.1.1)."""
        if self._wire:
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def refuse(self, error: BaseException | None) -> None:
        """Answer what is no HTTP."""
        response = self._server.handler.refuse_malformed(self, self._describe(error))
        if self._wire and not self._wire.is_closing():
            self._wire.write(encode(response, is_1_0=False, is_last=True))

    def _describe(self, error: BaseException | None) -> str:
        requests = 0 if self._gate.is_in_body else self._gate.requests
        if self._is_head_too_large:
            rule = f"head of more than {MAX_HEAD_BYTES} bytes"
        else:
            start = None if self._gate.requests else name_start(self._first_bytes or b"")
            rule = start or name_rule(error)
        return f"{rule} (after request {requests} of the connection)" if requests else rule

    def _begin(self, body: StreamReader) -> None:
        gate, wire = self._gate, self._wire
        assert wire
        if not gate.requests:
            # One byte that cannot be sent on starts the time of a client that does not read; but not before,
            # while the handshake's last ones wait. (With 0, uvloop's TLS pauses after every write.)
            wire.set_write_buffer_limits(high=1, low=0)
        self._body = body
        self.bytes_read = 0
        gate.request_begins()
        if body.is_eof():
            gate.body_ends(b"", self._loop.time())
        wire.resume_reading()
        self._feed()
        if gate.is_input_over:
            self._close_if_over()

    async def _wait_for_body(self, body: StreamReader, limit: int) -> bytes:
        self._gate.body_is_awaited(self._loop.time())
        self._watch()
        data = bytearray(body.read_nowait())
        while not body.is_eof():
            self.bytes_read = len(data)
            if len(data) > limit:
                break
            if self._has_parser_failed():
                body.feed_eof()  # so that aiohttp does not wait for the rest
                raise BrokenBodyError
            self._awaited = self._loop.create_future()
            try:
                await self._awaited
            finally:
                self._awaited = None
            data += body.read_nowait()
        self.bytes_read = len(data)
        return bytes(data)

    def _has_parser_failed(self) -> bool:
        """Whether aiohttp holds an error in this request.

        aiohttp keeps an error in a body to itself until the request is answered, and the body would wait for
        its end until then. A parser that has failed fails again at each call, and aiohttp stops reading when
        it has many errors. A sound parser takes no bytes as nothing.
        """
        wire = self._wire
        if not wire:
            return False
        for _ in range(MAX_PROBES):
            self._protocol.data_received(b"")
            if wire.is_reading_paused:
                return True
        return False

    def _is_last(self, request: web.BaseRequest) -> bool:
        """Whether the connection ends with the response to this request."""
        return (
            not request.keep_alive
            # After a request to upgrade, aiohttp takes what comes for another protocol.
            or hdrs.UPGRADE in request.headers
            or self._gate.requests >= self._server.max_requests
            or (self._gate.is_input_over and not self._gate.held_bytes)
            or self._server.is_draining
        )

    # -- What goes out ---------------------------------------------------------------------------------------

    def _response_is_written(self, *, is_last: bool) -> None:
        gate = self._gate
        if is_last and not gate.is_in_body:
            gate.close()
            return
        gate.response_written(self._loop.time())
        if gate.held_bytes:
            self._feed()
        else:
            self._watch()
        if gate.is_input_over:
            self._close_if_over()

    def pause_writing(self) -> None:
        """Start the time that the client has to read what is sent to it."""
        if self._wire and self._wire.pause():
            self._protocol.pause_writing()
        self._note_held()

    def resume_writing(self) -> None:
        """Go on, and stop that time when all is sent."""
        if self._wire and not self._wire.resume():
            return
        self._protocol.resume_writing()
        self._note_held()


def _ignore() -> None:
    """Take no notice of what comes after a close_notify: only another one can."""
