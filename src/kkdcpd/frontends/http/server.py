"""Makes the connections of an HTTP way in, and ends them."""

import asyncio
from functools import partial

from kkdcpd.config import ConnectionsConfig, HttpConfig
from kkdcpd.frontends.http.arrival import Arrival
from kkdcpd.frontends.http.bridge import HttpProtocol, make_server
from kkdcpd.frontends.http.connection import MAX_HEAD_BYTES, Connection, Handler
from kkdcpd.frontends.http.gate import Limits
from kkdcpd.frontends.http.holdings import Holdings
from kkdcpd.frontends.http.stream import LINGERING_SECONDS, Shared
from kkdcpd.frontends.http.takeover import Successor, TakenOver
from kkdcpd.frontends.http.wire import RECEIVE_BYTES
from kkdcpd.metrics.counters import Counters

__all__ = ["HttpServer"]

MAX_LINE_BYTES = 4096
"""The longest line of a head: longer than every path, and twice the longest cookie."""

MAX_HEADERS = 64
"""The most headers of a request. aiohttp makes objects of each, which cost more than the bytes."""

READ_BUFFER_BYTES = 2 * RECEIVE_BYTES
"""aiohttp stops reading at twice this. Bodies that are read at once never get there."""

MAX_LINES = 4200
"""Line ends in one body. A chunk has two, and costs the parser more than its bytes: 256 KiB in chunks of one
byte would take it 180 ms. Encrypted data has one for each 64 KiB."""

NEVER = 365 * 86400.0
"""aiohttp's idle timeout, which cannot be switched off. The gate has this deadline."""


class HttpServer:
    """The connections of one way in. Make it in a running event loop."""

    def __init__(
        self, handler: Handler, http: HttpConfig, connections: ConnectionsConfig, counters: Counters
    ) -> None:
        self._aiohttp = make_server()
        self._taken_over: set[TakenOver] = set()
        self.shared = Shared(
            counters=counters,
            holdings=Holdings(),
            limits=Limits(
                head_bytes=MAX_HEAD_BYTES,
                body_lines=MAX_LINES,
                # One whole request may wait while another one is answered. No client sends even that.
                bytes_ahead=MAX_HEAD_BYTES + http.max_body_bytes,
                head_timeout=http.head_timeout,
                body_timeout=http.body_timeout,
                idle_timeout=http.keepalive_timeout,
                write_timeout=connections.write_timeout,
            ),
            max_requests=http.max_requests_per_connection,
            make_protocol=partial(
                HttpProtocol,
                self._aiohttp,
                loop=asyncio.get_running_loop(),
                keepalive_timeout=NEVER,
                # Our deadlines end the connection of a lost client long before TCP's keep-alive would.
                tcp_keepalive=False,
                access_log=None,  # type: ignore[arg-type] # aiohttp's own runner does the same.
                # A compressed body is malformed, so nothing is unpacked.
                auto_decompress=False,
                lingering_time=LINGERING_SECONDS,
                max_line_size=MAX_LINE_BYTES,
                max_field_size=MAX_LINE_BYTES,
                max_headers=MAX_HEADERS,
                read_bufsize=READ_BUFFER_BYTES,
            ),
            take_over=self._take_over,
        )
        self.connection = partial(Connection, self.shared, handler)
        """Makes the protocol of a connection that has arrived."""

    def drain(self) -> None:
        """Let each connection end with its next response, which says so."""
        self.shared.is_draining = True

    async def stop(self, timeout: float) -> None:
        """Close every connection. Requests in flight have `timeout` seconds; to aiohttp, 0 is without end."""
        self._aiohttp.pre_shutdown()  # Idle connections end here.
        await self._aiohttp.shutdown(timeout)
        for connection in tuple(self._taken_over):
            connection.close()

    def _take_over(self, arrival: Arrival, successor: Successor) -> TakenOver:
        taken_over = TakenOver(arrival, successor, self._taken_over.discard)
        self._taken_over.add(taken_over)
        return taken_over
