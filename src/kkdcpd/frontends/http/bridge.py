"""Joins aiohttp's server to our connections, through its documented modules and public names only.

aiohttp's requests have the transport of their connection. It is our wire, and its owner is our connection.
So the subclasses of aiohttp's classes override public names and keep no state.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

from aiohttp import HttpVersion, StreamReader, web
from aiohttp.abc import AbstractStreamWriter

from kkdcpd.frontends.http.wire import Wire
from kkdcpd.log.events import EventLogger

__all__ = ["KEPT", "LAST", "Head", "HttpProtocol", "Owner", "has_parser_failed", "make_server"]

logger = EventLogger(__name__)

MAX_PROBES = 64
"""Twice the number of errors after which aiohttp stops reading."""


class Headers(Protocol):
    """The headers of a request. Names are compared without case."""

    def __contains__(self, name: object, /) -> bool:
        """Whether there is such a header."""

    def get(self, name: str, default: Any = None, /) -> Any:  # noqa: ANN401 - aiohttp's
        """Return the first value of a header."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return the names and values of all headers."""
        ...

    def getall(self, name: str, default: Any, /) -> Any:  # noqa: ANN401 - aiohttp's
        """Return all values of a header."""


class Head(Protocol):
    """The head of a request, as aiohttp's parser returns it. `path` is the target without any decoding."""

    method: str
    path: str
    version: HttpVersion
    headers: Headers
    should_close: bool


class Owner(Protocol):
    """The connection that aiohttp works for. `head` and `body` are those of the present request."""

    head: Head | None
    body: StreamReader | None

    def serve(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer the request, and return LAST or KEPT."""

    def refuse(self, error: BaseException | None) -> None:
        """Answer bytes that are no HTTP."""


def make_server() -> web.Server:
    """Make the part that aiohttp's protocols share. A client that leaves ends its exchange."""
    return web.Server(_serve, request_factory=_make_request, handler_cancellation=True)


class HttpProtocol(web.RequestHandler):
    """aiohttp's protocol. It answers and logs errors in our words, because aiohttp's quote the client."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer bytes that are no HTTP."""
        del message
        if status != 400:
            self.log_exception(exc_info=exc)
        elif isinstance(request.transport, Wire):
            request.transport.owner.refuse(exc)
        return LAST

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        """Resume reading if it is paused. aiohttp calls this twice for each body."""
        if self.transport and self.transport.is_reading_paused:  # type: ignore[attr-defined] # ours has it
            super().resume_reading(resume_parser)

    def log_exception(self, *_words: object, **keywords: object) -> None:
        """Log only the kind of a bug."""
        logger.error("bug_in_connection", error=type(keywords.get("exc_info")).__name__)


class _Written(web.StreamResponse):
    """The response that aiohttp gets: our connection has written the real one. All requests share two."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


class _WrittenAndKept(_Written):
    """A response after which the connection stays open."""

    @property
    def keep_alive(self) -> bool:
        """Always true."""
        return True


KEPT = _WrittenAndKept()
LAST = _Written()
LAST.force_close()


def _make_request(
    head: Any,  # noqa: ANN401 - aiohttp does not export the class
    body: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: "asyncio.Task[None]",
) -> web.BaseRequest:
    """Make aiohttp's request, and give its head and body to the connection.

    Of a target that is a URL (RFC 9112 3.2.2) aiohttp gets only the path: it fails if the host is invalid.
    """
    if head.path[:1] != "/" and head.url.absolute:
        head = type(head)(
            head.method,
            head.path,
            head.version,
            head.headers,
            head.raw_headers,
            head.should_close,
            head.compression,
            head.upgrade,
            head.chunked,
            head.url.relative(),
        )
    wire = protocol.transport
    if isinstance(wire, Wire):
        wire.owner.head, wire.owner.body = head, body
    return web.BaseRequest(head, body, protocol, writer, task, task.get_loop())


def _serve(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    wire = request.transport
    return wire.owner.serve(request) if isinstance(wire, Wire) else _serve_nothing()


async def _serve_nothing() -> web.StreamResponse:
    """Answer a request after its connection is lost."""
    return LAST


def has_parser_failed(protocol: web.RequestHandler, wire: Wire[Any]) -> bool:
    """Whether aiohttp holds an error in the present request.

    aiohttp keeps an error in a body to itself until the request is answered, and the request waits for the
    end of its body. A parser that has failed fails again at each call, and aiohttp stops reading when it has
    many errors. Without an error, the parser ignores an empty piece.
    """
    for _ in range(MAX_PROBES):
        protocol.data_received(b"")
        if wire.is_reading_paused:
            return True
    return False
