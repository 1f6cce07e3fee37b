"""One HTTP connection: aiohttp's protocol, with the deadline, the count and the quiet that it lacks."""

import asyncio
from collections.abc import Callable

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from kkdcpd.config import HttpConfig
from kkdcpd.values import ClientConnection

__all__ = ["Connection"]

UNIX_PEER = "unix"

LINGERING_SECONDS = 2.0
"""How long the rest of a refused body is read and dropped, so that its sender can read the refusal."""


class Connection(RequestHandler):
    """A connection whose client must finish each head in time, and may send only so many requests."""

    __slots__ = (
        "_head_timeout",
        "_head_timer",
        "_is_handling",
        "_max_requests",
        "_refuse_malformed",
        "_requests",
        "client",
    )

    def __init__(
        self,
        server: web.Server,
        config: HttpConfig,
        *,
        refuse_malformed: Callable[["Connection", str], web.StreamResponse],
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=config.keepalive_timeout,
            access_log=None,  # type: ignore[arg-type] # as aiohttp's own runner does to have none
            # A compressed body is a malformed one, and nothing is unpacked for strangers.
            auto_decompress=False,
            lingering_time=LINGERING_SECONDS,
        )
        self._head_timeout = config.head_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._max_requests = config.max_requests_per_connection
        self._requests = 0
        self._is_handling = False
        self._refuse_malformed = refuse_malformed
        self.client = ClientConnection(address=UNIX_PEER)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who the client is; the first head's time starts with the connection."""
        peer = transport.get_extra_info("peername")
        ssl_object = transport.get_extra_info("ssl_object")
        tls = ssl_object.version() if ssl_object else None
        if isinstance(peer, tuple):
            self.client = ClientConnection(address=peer[0], port=peer[1], tls=tls)
        else:
            self.client = ClientConnection(address=UNIX_PEER, tls=tls)
        super().connection_made(transport)
        self._start_head()

    def data_received(self, data: bytes) -> None:
        """Start the time of a head with its first octets."""
        if self._head_timer is None and not self._is_handling:
            self._start_head()
        super().data_received(data)

    def _start_head(self) -> None:
        self._head_timer = self._loop.call_later(self._head_timeout, self.force_close)

    def request_begins(self) -> None:
        """Stop the head's time: the request is in the handler's hands."""
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None
        self._is_handling = True
        self._requests += 1

    def request_ends(self) -> None:
        """Let the next octets be those of another head."""
        self._is_handling = False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the timer."""
        if self._head_timer:
            self._head_timer.cancel()
        super().connection_lost(exc)

    @property
    def is_used_up(self) -> bool:
        """Whether the connection has borne as many requests as it may."""
        return self._requests >= self._max_requests

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what isn't HTTP. aiohttp would log a traceback and quote its parser to the client."""
        del request, status, exc
        return self._refuse_malformed(self, message or "")
