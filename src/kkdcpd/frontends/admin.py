"""Serves metrics and health by plain HTTP to Prometheus, load balancers and the operator.

It has the limits of the HTTPS way in, because both use the same connection: heads, responses and idle clients
have deadlines. The number of connections is small. At the limit, a new connection replaces the oldest idle
connection, so a health check always gets a connection. No page reads a body or shows text from a client.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import hdrs

from kkdcpd.config import ConnectionsConfig, HttpConfig
from kkdcpd.frontends.http.bridge import Head
from kkdcpd.frontends.http.connection import Connection
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.http.server import HttpServer
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.exposition import Exposition
from kkdcpd.service import Service

__all__ = ["CONNECTIONS", "AdminFrontend"]

logger = EventLogger(__name__)

CONNECTIONS = ConnectionsConfig(maximum=64, per_client=16)
"""Enough for several Prometheus servers and load balancers, each of which keeps a connection."""

HTTP = HttpConfig(max_body_bytes=1024, head_timeout=2.0)
"""Clients are near, so the time for a head is short: an unanswered health check may restart kkdcpd."""

JSON = "application/json; charset=utf-8"
NO_STORE = ("Cache-Control", "no-store")

METHODS = (hdrs.METH_GET, hdrs.METH_HEAD)


class AdminFrontend:
    """Answers the requests of an operator's programs. Make it in a running event loop.

    Unless `takes_names` is true, the Host header must be an address or localhost. Otherwise a web page could
    point a name of its own at this host, and let a browser read the pages (DNS rebinding).
    """

    def __init__(self, exposition: Exposition, service: Service, *, takes_names: bool) -> None:
        self._exposition = exposition
        self._takes_names = takes_names
        self._service = service
        self._pages: Mapping[str, Callable[[Head], Awaitable[Response]]] = {
            "/metrics": self._metrics,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status": self._status,
        }
        # The metrics count the clients of the proxy only.
        self._server = HttpServer(self, HTTP, CONNECTIONS, Counters.discarding())
        self.connection = self._server.connection
        """Makes the protocol of a new connection."""
        self.drain = self._server.drain
        """Ends each connection with its next response."""
        self.stop = self._server.stop
        """Finishes requests in flight within the given seconds, and closes every connection."""

    async def handle(self, request: Head, connection: Connection) -> Response:
        """Answer a request."""
        del connection
        try:
            return await self._respond(request)
        except Exception:
            logger.exception("bug_in_admin_request")
            return _text("kkdcpd has a bug; its log has the details", 500)

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        """Answer bytes that are no HTTP."""
        del connection, detail
        return _text("malformed HTTP", 400)

    async def _respond(self, http: Head) -> Response:
        if not self._takes_names and not _is_ours(http.headers.get(hdrs.HOST, "")):
            return _text("use an address of this host or localhost in the URL, or set admin.anywhere", 421)
        page = self._pages.get(urlsplit(http.path).path)
        if page is None:
            return _text(f"the pages are {', '.join(self._pages)}", 404)
        if http.method not in METHODS:
            return _text("use GET or HEAD", 405, (hdrs.ALLOW, ", ".join(METHODS)))
        return await page(http)

    async def _metrics(self, http: Head) -> Response:
        body, content_type = self._exposition.render(http.headers.get(hdrs.ACCEPT, ""))
        return Response(status=200, body=body, content_type=content_type, headers=(NO_STORE,))

    async def _livez(self, _: Head) -> Response:
        return _text("alive", 200)

    async def _readyz(self, _: Head) -> Response:
        reasons = await self._service.reasons_against()
        return _text("\n".join(reasons), 503) if reasons else _text("ready", 200)

    async def _status(self, _: Head) -> Response:
        described = json.dumps(await self._service.describe(), indent=2)
        return Response(status=200, body=f"{described}\n".encode(), content_type=JSON, headers=(NO_STORE,))


def _is_ours(host: str) -> bool:
    """Whether a Host header (RFC 9110 7.2) names an address or localhost. An empty header names none."""
    try:
        name = urlsplit(f"//{host}").hostname or "localhost"
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False


def _text(words: str, status: int, *headers: tuple[str, str]) -> Response:
    return Response(status=status, body=f"{words}\n".encode(), headers=(NO_STORE, *headers))
