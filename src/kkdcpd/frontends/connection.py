"""One HTTP connection: aiohttp's protocol, with the deadlines, the bounds and the quiet that it lacks.

A stranger decides how slowly octets come and go, and how many of them. So each head, body and reply has its
time, and what can be held for one connection has its size (docs/http.md has the figures). Whom the
connection is from is for the door to say.
"""

import asyncio
import enum
import logging
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from kkdcpd.config import ConnectionsConfig, HttpConfig
from kkdcpd.frontends.door import Arrival
from kkdcpd.frozen import Word
from kkdcpd.metrics.columns import Handshake
from kkdcpd.metrics.counters import Counters
from kkdcpd.tls import client_certificate
from kkdcpd.values import ClientConnection, ConnectionActivity

__all__ = ["Connection", "Holdings", "Inlet", "Request"]

logger = logging.getLogger(__name__)

MAX_HEAD_BYTES = 8192
"""Request line and headers together. MIT's client sends 150 octets, Windows 250, and proxies add as many."""

MAX_LINE_BYTES = 4096
"""Any one line of a head: longer than every path, and twice the longest cookie that might stray in here."""

MAX_HEADERS = 64
"""aiohttp makes objects of each: this many cost more than their octets."""

READ_BUFFER_BYTES = 16384
"""Of a body that isn't asked for yet, aiohttp takes twice this before it stops reading."""

FREE_BYTES = 16384
"""What every connection may have held for it: most requests and replies are smaller."""

MAX_HELD_BYTES = 134217728
"""What all connections together may have held beyond that: 500 bodies of the greatest length."""

RECEIVE_BYTES = 65536
"""What is received at a time, at most: a quarter of the longest body."""

PIECE_BYTES = 16384
"""Of a reply, what is handed on at a time: a record of TLS (RFC 8446 5.1)."""

MAX_LINES = 4096
"""Ends of lines in one body and what follows it at once. A chunk has two, and costs the parser more than its
octets: 256 KiB in chunks of one would take it 180 ms. In what is encrypted there is one for each 64 KiB."""

LINGERING_SECONDS = 2.0
"""How long the rest of a refused body is read and dropped, so that its sender can read the refusal."""

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""Of SO_LINGER: what isn't sent yet is dropped, so that the kernel holds no buffer for a client of ours."""


class _Stage(Word):
    """What the next octets belong to."""

    HEAD = enum.auto()
    BODY = enum.auto()
    LATER_REQUEST = enum.auto()
    REFUSED_BODY = enum.auto()


class Holdings:
    """Bodies that aren't whole and replies that aren't read, of all connections: so much, and no more.

    Who makes it too much is served, and who has held longest is cut off: an honest client holds nothing for
    longer than its octets travel.
    """

    def __init__(self, maximum: int = MAX_HELD_BYTES) -> None:
        self._maximum = maximum
        self._total = 0
        self._held: dict[Connection, int] = {}  # in the order in which they began

    def hold(self, connection: "Connection", count: int) -> None:
        """Say how many octets are held for a connection now."""
        if count <= FREE_BYTES:
            self.release(connection)
            return
        self._total += count - self._held.get(connection, 0)
        self._held[connection] = count
        while self._total > self._maximum:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.cut_off("too much is held")

    def release(self, connection: "Connection") -> None:
        """Forget a connection."""
        self._total -= self._held.pop(connection, 0)


_octets = memoryview(bytearray(RECEIVE_BYTES))


class Inlet(asyncio.BufferedProtocol):
    """What the transport sees of a connection. All receive into one buffer: nothing else happens meanwhile.

    Other protocols are handed octets of their own: for them uvloop's TLS takes 256 KiB for each read, which
    are mapped, shrunk to what came, and unmapped.
    """

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pass it on."""
        self._connection.connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Pass it on."""
        self._connection.connection_lost(exc)

    def eof_received(self) -> None:
        """Pass it on."""
        self._connection.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._connection.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to."""
        del sizehint
        return _octets

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was received."""
        self._connection.data_received(bytes(_octets[:nbytes]))


class _Outgoing(asyncio.Transport):
    """The transport that aiohttp sees: it hands on what is written in pieces, no sooner than they are taken.

    TLS would encrypt a reply whole, let its transport keep it, and not tell that nobody reads it.
    """

    def __init__(self, wire: asyncio.Transport, note_close: Callable[[], None]) -> None:
        super().__init__()
        self._wire = wire
        self._note_close = note_close
        self._pending = bytearray()
        self._is_closing = False
        self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send octets when they can be sent."""
        if not self._pending and not self.is_paused and len(data) <= PIECE_BYTES:
            self._wire.write(data)
            return
        self._pending += data
        self.go_on()

    def go_on(self) -> None:
        """Hand on what waits, as far as it is taken."""
        start = 0
        with memoryview(self._pending) as pending:
            while start < len(pending) and not self.is_paused:
                # A copy, since transports keep what they are given.
                self._wire.write(bytes(pending[start : start + PIECE_BYTES]))
                start += PIECE_BYTES
        del self._pending[:start]
        if self._is_closing and not self._pending:
            self._wire.close()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Say how much may wait to be sent before the protocol is told."""
        self._wire.set_write_buffer_limits(high=high, low=low)

    def get_write_buffer_size(self) -> int:
        """Tell how much isn't sent yet, as far as that can be known."""
        return len(self._pending) + self._wire.get_write_buffer_size()

    def close(self) -> None:
        """Close when all is handed on."""
        if self._is_closing:
            return
        self._is_closing = True
        self._note_close()
        if not self._pending:
            self._wire.close()

    def abort(self) -> None:
        """Drop everything."""
        self._is_closing = True
        self._pending.clear()
        self._wire.abort()

    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._is_closing or self._wire.is_closing()

    def pause_reading(self) -> None:
        """Take no more octets in."""
        self._wire.pause_reading()

    def resume_reading(self) -> None:
        """Take octets in again."""
        self._wire.resume_reading()

    def reset(self) -> None:
        """Drop everything, and what is in the kernel's hands too."""
        sock = self._wire.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - asyncio's
        """Tell of the connection, but not its socket.

        aiohttp would set TCP_NODELAY, which uvloop has done: each time, that makes another socket object.
        """
        return default if name == "socket" else self._wire.get_extra_info(name, default)


class Connection(RequestHandler):
    """A connection whose client must keep its time and its bounds.

    `client` is who is at the other end, as the door and TLS tell; `is_trusted_proxy` whether its requests
    may tell otherwise. `is_used_up` tells whether it has borne as many requests as it may.
    """

    __slots__ = (
        "_ahead_bytes",
        "_arrival",
        "_body_bytes",
        "_counters",
        "_end_timer",
        "_head_bytes",
        "_head_timeout",
        "_head_timer",
        "_holdings",
        "_is_head_too_large",
        "_is_holding",
        "_lines",
        "_max_ahead_bytes",
        "_max_requests",
        "_refuse_malformed",
        "_requests",
        "_stage",
        "_wire",
        "_write_timeout",
        "_write_timer",
        "client",
        "is_trusted_proxy",
        "is_used_up",
    )

    def __init__(
        self,
        server: web.Server,
        http: HttpConfig,
        connections: ConnectionsConfig,
        arrival: Arrival,
        holdings: Holdings,
        *,
        counters: Counters,
        refuse_malformed: Callable[["Connection", str], web.StreamResponse],
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=http.keepalive_timeout,
            # That ends who is gone without a word, long before TCP would ask.
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
        self.client = arrival.client
        self.is_trusted_proxy = arrival.is_trusted_proxy
        self._arrival = arrival
        self._holdings = holdings
        self._counters = counters
        self._refuse_malformed = refuse_malformed
        self._head_timeout = http.head_timeout
        self._write_timeout = connections.write_timeout
        # One whole request may be there while another is answered: no client of Kerberos has even that.
        self._max_ahead_bytes = MAX_HEAD_BYTES + http.max_body_bytes
        self._max_requests = http.max_requests_per_connection
        self._requests = 0
        self.is_used_up = False
        self._stage = _Stage.HEAD
        self._head_bytes = 0
        self._is_head_too_large = False
        self._body_bytes = 0
        self._ahead_bytes = 0
        self._is_holding = False
        self._lines = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None
        # aiohttp forgets its own when it closes: that is not yet the end.
        self._wire: _Outgoing | None = None

    # aiohttp's requests would tell, and nobody asks them.
    ssl_context = None
    peername = None
    sockname = None

    # -- The beginning and the end ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn what TLS tells of the client; the first head's time starts with the connection."""
        # What closes the connection may leave a rest to be sent, which has its time too.
        self._wire = _Outgoing(transport, self._start_end)  # type: ignore[arg-type] # ours are all of streams
        super().connection_made(self._wire)
        self._arrival.begin(self)
        self._start_head()
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object:
            self._counters.shook_hands(Handshake.RESUMED if ssl_object.session_reused else Handshake.FULL)
            # Most listeners ask for none.
            is_certified = transport.get_extra_info("peercert")
            certificate = client_certificate(ssl_object) if is_certified else None
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
        """Forget the timers, and give the place back."""
        for timer in (self._head_timer, self._write_timer, self._end_timer):
            if timer:
                timer.cancel()
        self._wire = None
        if self._is_holding:
            self._holdings.release(self)
        self._arrival.leave()
        super().connection_lost(exc)

    async def start(self) -> None:
        """Serve requests. Whatever ends that, a bug too, starts the time that the connection has left."""
        try:
            await super().start()
        finally:
            self._start_end()

    def eof_received(self) -> None:
        """Let the transport close, as it does when it is told nothing else."""
        self._start_end()

    def _start_end(self) -> None:
        if self._wire and not self._end_timer:
            self._end_timer = self._start_write_time()

    def _start_write_time(self) -> asyncio.TimerHandle:
        return self._loop.call_later(self._write_timeout, self.cut_off, "the reply isn't read")

    @property
    def activity(self) -> ConnectionActivity:
        """What the connection does at this moment, for the door, which may need room for another one."""
        if self._stage is _Stage.LATER_REQUEST or self._paused:
            return ConnectionActivity.SERVING
        is_between = self._stage is _Stage.HEAD and self._waiter is not None and self._requests
        return (
            ConnectionActivity.IDLE if is_between and not self._head_bytes else ConnectionActivity.RECEIVING
        )

    def cut_off(self, reason: str) -> None:
        """Drop what the client doesn't take, and the connection with it."""
        if not self._wire:
            return
        fields = {"client": self.client.address, "port": self.client.port, "reason": reason}
        logger.debug("connection_cut_off", extra={"fields": fields})
        self._wire.reset()

    # -- What comes in ---------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Pass octets on, within their bounds."""
        if self._end_timer:  # what comes after something that was dropped means nothing
            return
        if not data:  # aiohttp goes on with what it holds
            super().data_received(data)
            return
        # Whether nothing is left to be done for an earlier request.
        is_idle = self._waiter is not None or not self._requests
        if self._stage is _Stage.REFUSED_BODY and self._waiter is not None:
            self._stage = _Stage.HEAD  # that body is over
        if self._stage is _Stage.BODY:
            self._body_bytes += len(data)
            self._note_held()
        elif self._stage is _Stage.LATER_REQUEST or (self._stage is _Stage.HEAD and not is_idle):
            self._ahead_bytes += len(data)
            if self._ahead_bytes > self._max_ahead_bytes:
                self.cut_off("too many requests ahead")
                return
            self._note_held()
        if self._stage is _Stage.HEAD:
            self._head_received(data, is_idle=is_idle)
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        """Pass on what comes after a head, unless it is cut into too many pieces."""
        self._lines += data.count(b"\r\n")
        if self._lines > MAX_LINES:
            # Who was refused already may read that first.
            self._end_timer = self._loop.call_later(LINGERING_SECONDS, self.cut_off, "too many chunks")
            return
        super().data_received(data)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        """Go on. aiohttp asks for it at every body, whether anything was paused or not."""
        if self._reading_paused or self._buffer_paused:
            super().resume_reading(resume_parser)
        elif resume_parser and not self._end_timer:  # the parser may hold more of them
            super().data_received(b"")

    def _note_held(self) -> None:
        held = self._body_bytes + self._ahead_bytes
        if self._paused and self._wire:
            held += self._wire.get_write_buffer_size()
        if self._is_holding or held > FREE_BYTES:  # few ever are
            self._is_holding = held > FREE_BYTES
            self._holdings.hold(self, held)

    def _head_received(self, data: bytes, *, is_idle: bool) -> None:
        room = MAX_HEAD_BYTES - self._head_bytes
        count = self._request_count
        super().data_received(data[:room])
        if self._request_count > count:
            if self._head_timer:
                self._end_head(self._head_timer)
            # Who doesn't read the reply to the last request has this one wait.
            self._stage = _Stage.BODY if is_idle else _Stage.LATER_REQUEST
            self._body_bytes = len(data)
            self._note_held()
            if len(data) > room:
                self._feed(data[room:])
        elif len(data) > room:
            # No parser can be in a state where it takes NUL: this one answers 400.
            self._is_head_too_large = True
            self._stage = _Stage.REFUSED_BODY
            super().data_received(b"\0")
        else:
            # Most heads come at once, and need no time.
            if self._head_timer is None:
                self._start_head()
            self._head_bytes += len(data)

    def _start_head(self) -> None:
        self._head_timer = self._loop.call_later(self._head_timeout, self.force_close)

    def _end_head(self, timer: asyncio.TimerHandle) -> None:
        """Stop the head's time: the request is in the handler's hands, or soon will be."""
        timer.cancel()
        self._head_timer = None
        self._head_bytes = 0

    def request_begins(self) -> None:
        """Count the request; the next octets are its body's."""
        if self._head_timer:
            self._end_head(self._head_timer)
        if self._wire and not self._requests:
            # One octet that can't be sent on starts the time of a client that doesn't read; but not before,
            # when the handshake's last ones wait. (With 0, uvloop's TLS pauses after every write.)
            self._wire.set_write_buffer_limits(high=1, low=0)
        self._stage = _Stage.BODY
        self._requests += 1
        self.is_used_up = self._requests >= self._max_requests
        self._lines = 0
        if not self._messages:
            self._ahead_bytes = 0

    def body_ends(self) -> None:
        """Let the next octets be those of another request, which has to wait."""
        self._stage = _Stage.LATER_REQUEST
        # From here on it isn't the client that takes its time.
        self._body_bytes = 0
        self._note_held()

    def request_ends(self) -> None:
        """Let the next octets be those of another head, or of a body that nobody wants."""
        self._body_bytes = 0
        if self._stage is not _Stage.LATER_REQUEST:
            self._stage = _Stage.REFUSED_BODY
        elif not self._messages:
            self._stage = _Stage.HEAD
            self._ahead_bytes = 0

    # -- What goes out ---------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """Start the time that the client has to read what is sent to it."""
        if self._wire:
            self._wire.is_paused = True
        if not self.writing_paused:
            super().pause_writing()
            self._write_timer = self._start_write_time()
        self._note_held()

    def resume_writing(self) -> None:
        """Go on, and stop that time when all is sent."""
        if self._wire:
            self._wire.is_paused = False
            self._wire.go_on()
            if self._wire.is_paused:
                return
        super().resume_writing()
        if self._write_timer:
            self._write_timer.cancel()
            self._write_timer = None
        self._note_held()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what isn't HTTP. aiohttp would log a traceback and quote its parser to the client."""
        del request, status, exc
        if self._is_head_too_large:
            message = f"head of more than {MAX_HEAD_BYTES} octets"
        return self._refuse_malformed(self, message or "")


class Request(web.BaseRequest):
    """A request of aiohttp's, and open to view what that hides: its head, its body and its connection."""

    def __init__(
        self,
        head: RawRequestMessage,
        body: StreamReader,
        connection: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> None:
        if head.url.absolute:
            # The path is what counts; aiohttp looks at the host, and fails if it is none (RFC 9112 3.2.2).
            head = head._replace(url=head.url.relative())
        super().__init__(head, body, connection, writer, task, task.get_loop())
        self.head = head
        self.body = body
        self.connection: Connection = connection  # type: ignore[assignment] # there are no others
