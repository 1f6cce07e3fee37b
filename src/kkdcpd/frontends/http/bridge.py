"""Joins aiohttp's server to our connections, by its documented modules and public names alone.

aiohttp's requests show the transport that they came by, which is ours and knows its connection. So aiohttp's
classes hold nothing for us: the subclasses override public names and keep no state.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter

from kkdcpd.frontends.http.wire import Wire
from kkdcpd.log.events import EventLogger

__all__ = ["KEPT", "LAST", "HttpProtocol", "Owner", "make_server"]

logger = EventLogger(__name__)


class Owner(Protocol):
    """The connection that aiohttp works for."""

    def end(self) -> None:
        """Note that the connection is being closed."""

    def serve(self, request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        """Answer a request, and return LAST or KEPT."""

    def refuse(self, error: BaseException | None) -> None:
        """Answer what is no HTTP."""


def make_server() -> web.Server:
    """Make what aiohttp's protocols share. A client that leaves ends its exchange."""
    return web.Server(_serve, request_factory=_make_request, handler_cancellation=True)


class HttpProtocol(web.RequestHandler):
    """aiohttp's protocol, which answers and logs errors in our words: aiohttp's own quote the client."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP."""
        del message
        if status != 400:
            self.log_exception(exc_info=exc)
        elif owner := _owner_of(request):
            owner.refuse(exc)
        return LAST

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        """Go on, if anything is paused. aiohttp asks for it twice at each body."""
        if self.transport and self.transport.is_reading_paused:  # type: ignore[attr-defined] # ours has it
            super().resume_reading(resume_parser)

    def log_exception(self, *_words: object, **keywords: object) -> None:
        """Log a bug by its kind alone."""
        logger.error("bug_in_connection", error=type(keywords.get("exc_info")).__name__)


class _Written(web.StreamResponse):
    """Tells aiohttp that a response is written already. All requests share two of these."""

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Write nothing."""


class _WrittenAndKept(_Written):
    """Tells aiohttp that the connection stays, too."""

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
    """Make aiohttp's request. Of a URL (RFC 9112 3.2.2) it gets no host: it fails if that is none."""
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
    return web.BaseRequest(head, body, protocol, writer, task, task.get_loop())


def _owner_of(request: web.BaseRequest) -> Owner | None:
    """Return the connection of a request, None once it is lost."""
    wire = request.transport
    return wire.owner if isinstance(wire, Wire) else None


def _serve(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
    owner = _owner_of(request)
    return owner.serve(request) if owner else _serve_nothing()


async def _serve_nothing() -> web.StreamResponse:
    return LAST
