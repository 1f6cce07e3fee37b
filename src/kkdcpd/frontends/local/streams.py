"""Serves the connections of local programs: TCP and UNIX sockets, with framing of RFC 4120 7.2.2.

A connection may carry several requests, and several at a time. Each answer leaves when it is there, with its
length in one write: some clients read both by one call.
"""

import asyncio
import socket
import struct
from typing import cast

from kkdcpd.errors import RequestError
from kkdcpd.frontends.http.connection_limits import ConnectionLimits
from kkdcpd.frontends.http.holdings import Holdings
from kkdcpd.frontends.local.options import LocalListener, LocalOptions
from kkdcpd.frontends.local.requests import LocalRequest, refuse_uid
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.joining import Answer, Joiner
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.protocol.framing import MessageReader
from kkdcpd.protocol.heimdal_http import HttpReader
from kkdcpd.protocol.ip_addresses import network_of, networks_of, parse_address
from kkdcpd.values import ClientConnection, ConnectionActivity, ConnectionRefusal, RequestResult

__all__ = ["StreamConnection", "Streams"]

logger = EventLogger(__name__)

REQUESTS_AT_ONCE = 8
"""Requests in flight of one connection. The bytes of further requests wait in the kernel's buffer."""

_PEER_CREDENTIALS = struct.Struct("3i")
"""The process, user and group at the other end of a UNIX socket: struct ucred of unix(7)."""


class Streams:
    """All connections of this way in."""

    def __init__(
        self,
        options: LocalOptions,
        pipeline: Pipeline,
        joiner: Joiner,
        limits: ConnectionLimits,
        counters: Counters,
    ) -> None:
        self.options = options
        self.limits = limits
        self.counters = counters
        self.holdings = Holdings()
        self.is_draining = False
        self._pipeline = pipeline
        self._joiner = joiner
        self._connections: set[StreamConnection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def submit(self, connection: "StreamConnection", message: bytes, listener: LocalListener) -> None:
        """Serve a request."""
        request = self._request(connection.client, message)
        uid = connection.client.uid
        if uid is not None and listener.uids and uid not in listener.uids:
            connection.deliver(self._pipeline.end(request, refuse_uid(request, uid)))
        else:
            self._joiner.submit(request, _StreamSender(connection))

    def refuse(self, client: ClientConnection, result: RequestResult) -> Answer:
        """Return the answer to a request that could not be received, and log it."""
        return self._pipeline.end(self._request(client, b""), result)

    def _request(self, client: ClientConnection, message: bytes) -> LocalRequest:
        return LocalRequest(client, message, has_next_kdc=self.options.has_next_kdc)

    def add(self, connection: "StreamConnection") -> None:
        """Add a connection."""
        self._connections.add(connection)
        self._is_empty.clear()

    def discard(self, connection: "StreamConnection") -> None:
        """Forget a connection. More than one call does no harm."""
        self.limits.leave(connection)
        self.holdings.release(connection)
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()

    async def drain(self) -> None:
        """Close each connection after its next answer, or at its idle timeout. Return when none is left."""
        self.is_draining = True
        await self._is_empty.wait()

    def abort(self) -> None:
        """Close all connections at once."""
        for connection in tuple(self._connections):
            connection.abort()


class StreamConnection(asyncio.Protocol):
    """One connection. `client` is the program at its other end."""

    client: ClientConnection
    _transport: asyncio.Transport

    def __init__(self, streams: Streams, listener: LocalListener) -> None:
        self._streams = streams
        self._listener = listener
        self._reader: MessageReader | HttpReader = MessageReader(streams.options.max_message_bytes)
        self._in_flight = 0
        self._is_writing = False
        self._is_last = False
        self._activity = ConnectionActivity.IDLE
        self._timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    # -- The transport calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it."""
        self._transport = cast("asyncio.Transport", transport)
        # The transport then reports each reply that the program does not take at once.
        self._transport.set_write_buffer_limits(0)
        self.client = _client_of(self._transport)
        refusal = self._streams.limits.enter(self, networks_of(self.client.network))
        if refusal:
            self._refuse(refusal)
            return
        self._streams.counters.connection_opened()
        self._streams.add(self)
        self._watch(self._streams.options.idle_timeout)

    def data_received(self, data: bytes) -> None:
        """Take the requests that are complete. The first byte tells HTTP from messages with lengths."""
        options = self._streams.options
        if options.heimdal_http and self._activity is ConnectionActivity.IDLE and HttpReader.fits(data):
            self._reader = HttpReader(options.max_message_bytes)
        self._reader.feed(data)
        self._advance()

    def eof_received(self) -> bool:
        """Answer the requests in flight before the connection closes: the program may still read."""
        self._is_last = True
        return self._in_flight > 0

    def pause_writing(self) -> None:
        """Give the program a time to read the answer. Until then, no request of it is taken."""
        self._is_writing = True
        loop = asyncio.get_running_loop()
        timeout = self._streams.options.write_timeout
        self._write_timer = loop.call_later(timeout, self.cut_off, "the reply is not read")

    def resume_writing(self) -> None:
        """Take requests again."""
        self._is_writing = False
        if self._write_timer:
            self._write_timer.cancel()
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave the count of connections. Requests in flight go on: the program may send copies of them."""
        del exc
        for timer in (self._timer, self._write_timer):
            if timer:
                timer.cancel()
        self._streams.discard(self)

    # -- The limits of connections call these

    @property
    def activity(self) -> ConnectionActivity:
        """The activity of the connection."""
        return self._activity

    def evict(self, reason: ConnectionRefusal) -> None:
        """Close the connection to make room for another one."""
        self._streams.limits.count_eviction(self)
        logger.warning(
            "connection_evicted",
            sum_by=("connection_evicted", reason.value),
            client=self.client.address,
            reason=reason.value,
            activity=self._activity.value,
        )
        self.abort()

    def cut_off(self, reason: str) -> None:
        """Close the connection at once, and log the reason."""
        logger.debug("connection_aborted", client=self.client.address, reason=reason)
        self.abort()

    def abort(self) -> None:
        """Close the connection at once."""
        self._streams.discard(self)
        self._transport.abort()

    # -- Requests and answers

    def deliver(self, answer: Answer) -> None:
        """Send the answer to one request."""
        if not self._transport.is_closing():
            self._transport.write(self._reader.frame(answer.payload))
            self._is_last = self._is_last or self._streams.is_draining
        self.dismiss()

    def dismiss(self) -> None:
        """Count a request in flight less."""
        self._in_flight -= 1
        # Not at once: `_advance` itself may cause answers, and would call itself.
        asyncio.get_running_loop().call_soon(self._advance)

    def _advance(self) -> None:
        """Take complete requests, close an answered connection, and watch the time of the next event."""
        if self._transport.is_closing():
            return
        try:
            self._take_requests()
        except RequestError as error:
            self._end_unreadable(error)
            return
        if self._is_last and self._in_flight == 0:
            self._transport.close()  # after the bytes that are still to be sent
            return
        self._pause_or_resume()
        self._note_activity()
        held = self._reader.held_bytes + self._transport.get_write_buffer_size()
        self._streams.holdings.hold(self, held)

    def _take_requests(self) -> None:
        while not self._is_full:
            message = self._reader.next_message()
            if message is None:
                return
            self._in_flight += 1
            self._is_last = self._is_last or self._reader.reads_one
            self._streams.submit(self, message, self._listener)

    @property
    def _is_full(self) -> bool:
        return self._in_flight >= REQUESTS_AT_ONCE or self._is_writing

    def _end_unreadable(self, error: RequestError) -> None:
        """Answer a length over the limit or invalid HTTP, and close the connection (RFC 4120 7.2.2)."""
        result = RequestResult(outcome=error.outcome, detail=str(error))
        self._transport.write(self._reader.frame(self._streams.refuse(self.client, result).payload))
        self._transport.close()

    def _pause_or_resume(self) -> None:
        if self._is_full is not self._transport.is_reading():
            return
        if self._is_full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _note_activity(self) -> None:
        """Watch the deadline of a new activity. Further bytes of the same message do not extend it."""
        options = self._streams.options
        if self._in_flight or self._is_writing:
            activity, timeout = ConnectionActivity.SERVING, None
        elif self._reader.held_bytes:
            activity, timeout = ConnectionActivity.RECEIVING, options.message_timeout
        else:
            activity, timeout = ConnectionActivity.IDLE, options.idle_timeout
        if activity is not self._activity:
            self._activity = activity
            self._watch(timeout)

    def _watch(self, timeout: float | None) -> None:
        if self._timer:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(timeout, self.abort) if timeout else None

    def _refuse(self, refusal: ConnectionRefusal) -> None:
        self._streams.counters.connection_refused(refusal)
        logger.warning(
            "connections_refused",
            sum_by=("connections_refused", refusal.value),
            client=self.client.address,
            reason=refusal.value,
        )
        self._transport.abort()


class _StreamSender:
    """The sender of one message on a connection. Each message gets its own answer."""

    __slots__ = ("_connection",)

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection

    @property
    def origin(self) -> StreamConnection:
        """The client's socket."""
        return self._connection

    def deliver(self, answer: Answer) -> None:
        """Send the answer, if the program is still there."""
        self._connection.deliver(answer)

    def dismiss(self) -> None:
        """Let the connection be idle, so that it ends at its idle timeout."""
        self._connection.dismiss()


def _client_of(transport: asyncio.Transport) -> ClientConnection:
    peer = transport.get_extra_info("peername")
    if isinstance(peer, tuple):
        address = peer[0] if len(peer) == 2 else str(parse_address(peer[0]))
        return ClientConnection(address=address, port=peer[1], network=network_of(address))
    sock = transport.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _process, uid, _group = _PEER_CREDENTIALS.unpack(credentials)
    # The users of a host share one address, so each user is a network of its own for the limits.
    return ClientConnection(address="unix", network=f"uid {uid}", uid=uid)
