"""Serves metrics and health by plain HTTP to Prometheus, load balancers and the operator.

It is bounded like the HTTPS way in, of whose connection it makes use: heads, replies and idle clients have
their deadlines, and there are few connections. When they are all taken, the oldest idle one is closed, so
that a health check always gets one. It takes no bodies, and shows nothing that strangers chose.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_address
from typing import cast
from urllib.parse import urlsplit

from aiohttp import HttpVersion11, hdrs, web

from kkdcpd.config import ConnectionsConfig, HttpConfig
from kkdcpd.frontends.connection import Connection, Holdings
from kkdcpd.frontends.door import Arrival
from kkdcpd.frontends.responses import SERVER
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.exposition import Exposition
from kkdcpd.service import Service

__all__ = ["CONNECTIONS", "AdminFrontend"]

logger = logging.getLogger(__name__)

CONNECTIONS = ConnectionsConfig(maximum=64, per_client=16)
"""Some Prometheus and some load balancers, each with a connection that it keeps."""

HTTP = HttpConfig(max_body_bytes=1024, head_timeout=2.0)
"""Clients are near, so heads are short: kkdcpd might be restarted for a health check that gets no answer."""

METHODS = (hdrs.METH_GET, hdrs.METH_HEAD)


class AdminFrontend:
    """Answers what an operator's programs ask. Make it in a running event loop.

    Unless it `takes_names`, it is asked by an address or as localhost alone: a name may be a stranger's,
    whose DNS leads a browser on this host here (DNS rebinding).
    """

    def __init__(self, exposition: Exposition, service: Service, *, takes_names: bool) -> None:
        self._exposition = exposition
        self._takes_names = takes_names
        self._service = service
        self._pages: Mapping[str, Callable[[web.BaseRequest], Awaitable[web.Response]]] = {
            "/metrics": self._metrics,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/status": self._status,
        }
        self._holdings = Holdings()
        # Who asks here is no client, and none of the connections that are counted.
        self._counters = Counters.unread()
        self._server = web.Server(self._handle, handler_cancellation=True)

    def connection(self, arrival: Arrival) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(
            self._server,
            HTTP,
            CONNECTIONS,
            arrival,
            self._holdings,
            counters=self._counters,
            refuse_malformed=_refuse_malformed,
        )

    async def stop(self, timeout: float) -> None:
        """Finish what is in flight, at most for `timeout` seconds, and close every connection."""
        self._server.pre_shutdown()
        await self._server.shutdown(timeout)

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", http.protocol)
        connection.request_begins()
        try:
            response = await self._respond(http)
        except Exception:
            logger.exception("bug_in_admin_request", extra={"fields": {"path": http.path}})
            response = _text("a bug: the log has it", 500)
        finally:
            connection.request_ends()
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        response.headers[hdrs.SERVER] = SERVER
        if http.version < HttpVersion11 or connection.is_used_up:
            response.force_close()
        return response

    async def _respond(self, http: web.BaseRequest) -> web.Response:
        if not self._takes_names and not _is_ours(http.headers.get(hdrs.HOST, "")):
            return _text("ask by an address of this host or as localhost, or set admin.anywhere", 421)
        page = self._pages.get(http.path)
        if page is None:
            return _text(f"there are {', '.join(self._pages)}", 404)
        if http.method not in METHODS:
            response = _text("GET or HEAD", 405)
            response.headers[hdrs.ALLOW] = ", ".join(METHODS)
            return response
        return await page(http)

    async def _metrics(self, http: web.BaseRequest) -> web.Response:
        body, content_type = self._exposition.render(http.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def _livez(self, _: web.BaseRequest) -> web.Response:
        return _text("alive", 200)

    async def _readyz(self, _: web.BaseRequest) -> web.Response:
        reasons = await self._service.reasons_against()
        return _text("\n".join(reasons), 503) if reasons else _text("ready", 200)

    async def _status(self, _: web.BaseRequest) -> web.Response:
        described = json.dumps(await self._service.describe(), indent=2)
        return web.Response(text=f"{described}\n", content_type="application/json")


def _is_ours(host: str) -> bool:
    """Whether a Host header (RFC 9110 7.2) names an address or localhost; one that is empty names nobody."""
    try:
        name = urlsplit(f"//{host}").hostname or "localhost"
        return name == "localhost" or bool(ip_address(name))
    except ValueError:
        return False


def _text(words: str, status: int) -> web.Response:
    return web.Response(text=f"{words}\n", status=status)


def _refuse_malformed(_: Connection, _detail: str) -> web.Response:
    return _text("this is not HTTP as it should be", 400)
