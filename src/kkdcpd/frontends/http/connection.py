"""Answers the requests of one HTTP connection: reads bodies, and writes responses."""

from collections.abc import Awaitable
from typing import Protocol

from aiohttp import HttpVersion11, StreamReader, hdrs, web

from kkdcpd.errors import BodyTooLargeError
from kkdcpd.frontends.http.arrival import Arrival
from kkdcpd.frontends.http.bridge import KEPT, LAST, Head
from kkdcpd.frontends.http.late_body import BrokenBodyError, LateBody
from kkdcpd.frontends.http.malformed import name_rule, name_start
from kkdcpd.frontends.http.responses import Response, encode, encode_upgrade
from kkdcpd.frontends.http.stream import Shared, Stream
from kkdcpd.frontends.http.takeover import Upgrade

__all__ = ["MAX_HEAD_BYTES", "BrokenBodyError", "Connection", "Handler"]

MAX_HEAD_BYTES = 8192
"""Request line and headers together. MIT's client sends 150 bytes, Windows 250, and proxies add as many."""

MAX_LENGTH_DIGITS = 10
"""A length with more digits is over every limit, so its first digits are enough."""


class Handler(Protocol):
    """The way in that answers requests."""

    def handle(self, head: Head, connection: "Connection", /) -> Awaitable[Response | Upgrade]:
        """Answer a request. A BrokenBodyError of the connection may pass through."""

    def refuse_malformed(self, connection: "Connection", detail: str, /) -> Response:
        """Answer bytes that are no HTTP. `detail` names the broken rule."""


class Connection(Stream):
    """A connection, as the way in sees it.

    `is_trusted_proxy` says whether its requests may name another client. `bytes_read` counts the bytes of the
    present request's body.
    """

    __slots__ = ("_handler", "bytes_read", "is_trusted_proxy")

    def __init__(self, shared: Shared, handler: Handler, arrival: Arrival) -> None:
        super().__init__(shared, arrival)
        self._handler = handler
        self.bytes_read = 0
        self.is_trusted_proxy = arrival.is_trusted_proxy

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Let the handler answer the request, and write the response."""
        head = self._begin()
        try:
            response = await self._handler.handle(head, self)
        except BrokenBodyError:
            return KEPT  # aiohttp goes on to the error, and calls `refuse`.
        wire = self._wire
        if not wire or wire.is_closing():
            return LAST
        if isinstance(response, Upgrade):
            wire.write(encode_upgrade(response.headers))
            self._successor = response.successor
            return LAST
        is_1_0 = head.version < HttpVersion11
        # MIT's client speaks HTTP/1.0 and reads to the end of the connection, whatever the length says.
        is_last = is_1_0 or response.closes or self._is_last(head)
        has_body = head.method != hdrs.METH_HEAD
        wire.write(encode(response, is_1_0=is_1_0, is_last=is_last, has_body=has_body))
        if wire.is_paused:  # A client that does not read gets no other response.
            try:
                await request.writer.drain()
            except ConnectionError:
                return LAST
        self._response_is_written(is_last=is_last)
        return LAST if is_last else KEPT

    async def read_body(self, limit: int) -> bytes:
        """Read the request's body, chunked or not, within its limits of size and time.

        Raises:
            BodyTooLargeError: there is more than the limit.
            BodyTimeoutError: the body is not whole in time.
            BrokenBodyError: the body is no HTTP.
        """
        body = self.body
        assert body is not None
        if body.is_eof():  # Nearly all bodies are whole when their head is.
            data = body.read_nowait()
            self.bytes_read = len(data)
        else:
            data = await self._wait_for_body(body, limit)
        if len(data) > limit:
            raise BodyTooLargeError(f"more than {limit} bytes")
        return data

    def can_upgrade(self) -> bool:
        """Whether the request may be answered with an Upgrade: it is HTTP/1.1 and has no body."""
        return self.head is not None and self.head.version == HttpVersion11 and not self._gate.is_in_body

    def refuse(self, error: BaseException | None) -> None:
        """Answer bytes that are no HTTP."""
        response = self._handler.refuse_malformed(self, self._describe(error))
        if self._wire and not self._wire.is_closing():
            self._wire.write(encode(response, is_1_0=False, is_last=True))

    def _begin(self) -> Head:
        gate, wire, body = self._gate, self._wire, self.body
        assert wire is not None
        assert body is not None
        assert self.head is not None
        if not gate.requests:
            # From now on, one unsent byte starts the time to read. The last bytes of the handshake do not.
            # (With 0, uvloop's TLS pauses after every write.)
            wire.set_write_buffer_limits(high=1, low=0)
        self.bytes_read = 0
        gate.request_begins()
        if body.is_eof():
            gate.body_ends(b"", self._loop.time())
        if wire.is_reading_paused:
            wire.resume_reading()
        self._feed()
        if gate.is_input_over:
            self._close_if_over()
        return self.head

    async def _wait_for_body(self, body: StreamReader, limit: int) -> bytes:
        head = self.head
        assert head is not None
        if _content_length(head) > limit:
            raise BodyTooLargeError(f"Content-Length announces more than {limit} bytes")
        if self._wire and _expects_continue(head):
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._gate.body_is_awaited(self._loop.time())
        self._watch()
        self._late_body = late_body = LateBody(body, self._has_parser_failed)
        try:
            return await late_body.read(limit)
        finally:
            self.bytes_read = late_body.count
            self._late_body = None

    def _is_last(self, head: Head) -> bool:
        """Whether the connection ends with the response to this request."""
        shared, gate = self._shared, self._gate
        return (
            head.should_close
            # After a request to upgrade, aiohttp treats the next bytes as another protocol.
            or hdrs.UPGRADE in head.headers
            or gate.requests >= shared.max_requests
            or (gate.is_input_over and not gate.held_bytes)
            or shared.is_draining
        )

    def _describe(self, error: BaseException | None) -> str:
        requests = 0 if self._gate.is_in_body else self._gate.requests
        if self._is_head_too_large:
            rule = f"head of more than {MAX_HEAD_BYTES} bytes"
        else:
            start = None if self._gate.requests else name_start(self._first_bytes or b"")
            rule = start or name_rule(error)
        return f"{rule} (after request {requests} of the connection)" if requests else rule

    def _response_is_written(self, *, is_last: bool) -> None:
        gate = self._gate
        self.head = None
        if is_last and not gate.is_in_body:
            gate.response_is_last(self._loop.time())
            return
        gate.response_written(self._loop.time())
        if gate.held_bytes:
            self._feed()
        elif gate.deadline is not None and gate.deadline < self._timer_at:
            self._watch()
        if gate.is_input_over:
            self._close_if_over()


def _expects_continue(head: Head) -> bool:
    """Whether the client waits for `100 Continue` before it sends the body (RFC 9110 10.1.1)."""
    return head.version >= HttpVersion11 and head.headers.get(hdrs.EXPECT, "").lower() == "100-continue"


def _content_length(head: Head) -> int:
    """Return the Content-Length. aiohttp has checked that it consists of digits, but not their number."""
    digits = head.headers.get(hdrs.CONTENT_LENGTH, "0").lstrip("0")
    return int(digits[:MAX_LENGTH_DIGITS] or "0")
