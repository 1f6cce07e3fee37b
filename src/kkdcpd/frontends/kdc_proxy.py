"""Serves requests by HTTP: the POST of [MS-KKDCP]. The pipeline does all work that is not HTTP."""

import dataclasses
from collections.abc import Awaitable
from typing import ClassVar, Protocol

from aiohttp import HttpVersion10, HttpVersion11, hdrs

from kkdcpd import via
from kkdcpd.config import Config
from kkdcpd.errors import (
    MalformedHttpError,
    MethodNotAllowedError,
    PathNotFoundError,
    PreflightError,
)
from kkdcpd.frontends.http import responses
from kkdcpd.frontends.http.bridge import Head
from kkdcpd.frontends.http.connection import BrokenBodyError, Connection
from kkdcpd.frontends.http.cors import Cors
from kkdcpd.frontends.http.paths import Paths
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.http.server import HttpServer
from kkdcpd.frontends.http.takeover import Upgrade
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.pipeline import IncomingRequest, Pipeline
from kkdcpd.protocol import framing, kkdcp, messages
from kkdcpd.protocol.forwarded import client_address
from kkdcpd.protocol.ip_addresses import network_of
from kkdcpd.values import ClientConnection, Outcome, ProxyMessage, ProxyRequest, RequestResult

__all__ = ["KdcProxyFrontend"]

_VERSIONS = (HttpVersion10, HttpVersion11)
"""aiohttp's parser also accepts 0.9 and 2.0."""

STOP_SECONDS = 0.1
"""The time that requests in flight have when the process stops."""


class UpgradeHandler(Protocol):
    """A way in that takes connections over after an HTTP request (RFC 9110 7.8)."""

    @property
    def paths(self) -> Paths:
        """The paths of its requests."""
        ...

    async def upgrade(
        self, request: Head, connection: Connection, client: ClientConnection
    ) -> Response | Upgrade:
        """Answer a request for one of the paths. `client` may be behind a trusted proxy."""

    def drain(self) -> None:
        """End each connection after its requests in flight."""


class KdcProxyFrontend:
    """Serves accepted connections after their TLS handshake.

    `tunnel` serves the GET requests for its paths.
    """

    def __init__(
        self,
        config: Config,
        pipeline: Pipeline,
        counters: Counters,
        tunnel: UpgradeHandler | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._connections = config.connections
        self.paths = Paths(config.http.paths, takes_tokens=any(realm.tokens for realm in config.realms))
        self.max_body_bytes = config.http.max_body_bytes
        self.cors = Cors(config.http.cors_origins)
        self._tunnel = tunnel
        self._server = HttpServer(self, config.http, config.connections, counters)
        self.connection = self._server.connection
        """Makes the protocol of a new connection."""

    def drain(self) -> None:
        """End each connection with its next response, and each tunnel after its requests in flight."""
        self._server.drain()
        if self._tunnel:
            self._tunnel.drain()

    async def stop(self) -> None:
        """Close every connection."""
        await self._server.stop(STOP_SECONDS)

    def handle(self, request: Head, connection: Connection) -> Awaitable[Response | Upgrade]:
        """Answer a request."""
        client = connection.client
        if connection.is_trusted_proxy:
            client = self._client_behind(client, request)
        if self._tunnel and request.method == hdrs.METH_GET and self._tunnel.paths.find(request.path):
            return self._tunnel.upgrade(request, connection, client)
        return self._pipeline.serve(_HttpRequest(self, request, connection, client))

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        """Answer bytes that are no HTTP request."""
        incoming = _HttpRequest(self, None, connection, connection.client)
        return self._pipeline.end(incoming, RequestResult(outcome=Outcome.MALFORMED_HTTP, detail=detail))

    def _client_behind(self, proxy: ClientConnection, request: Head) -> ClientConnection:
        """Return the client that a trusted proxy names in the request (RFC 7239), else the proxy."""
        header = self._connections.forwarded
        if header == "none":
            return proxy
        named = request.headers.getall(header, ())
        address = client_address(named, proxy.address, self._connections.trusted_proxies, header=header)
        if address == proxy.address:
            return proxy
        return dataclasses.replace(
            proxy, address=address, port=0, network=network_of(address), proxy=proxy.address
        )


class _HttpRequest(IncomingRequest[Response]):
    """A request by HTTP. `http` is None if its bytes are no HTTP request."""

    __slots__ = ("_connection", "_frontend", "_http")

    own_errors: ClassVar = (BrokenBodyError,)

    def __init__(
        self,
        frontend: KdcProxyFrontend,
        http: Head | None,
        connection: Connection,
        client: ClientConnection,
    ) -> None:
        super().__init__(client)
        self._frontend = frontend
        self._http = http
        self._connection = connection

    async def read(self) -> ProxyRequest:
        """Check the head, read the body, and decode the message in it."""
        http, paths = self._http, self._frontend.paths
        assert http is not None
        _check_head(http)
        path = paths.find(http.path)
        if path is None:
            raise PathNotFoundError(f"{http.method} {paths.describe(http.path)}")
        if http.method != hdrs.METH_POST:
            if self._frontend.cors.is_preflight(http):
                raise PreflightError
            raise MethodNotAllowedError(http.method)
        try:
            body = await self._connection.read_body(self._frontend.max_body_bytes)
        finally:
            self.bytes_in = self._connection.bytes_read
        request = messages.classify(kkdcp.decode_proxy_message(body))
        if hdrs.VIA in http.headers:
            request = dataclasses.replace(request, via=via.extend(http.headers.getall(hdrs.VIA, ())))
        if path.token:
            self.client = dataclasses.replace(self.client, token=path.token)
        return request

    def respond(self, result: RequestResult, payload: bytes | None) -> Response:
        """Build the response: 200 with the message, or the status and sentence of the outcome."""
        if payload is None:
            response = responses.refuse(
                result.outcome, self.id, result.refusal, may_be_delivered=result.may_be_delivered
            )
        else:
            message = ProxyMessage(kerb_message=framing.add_prefix(payload))
            response = responses.answer(kkdcp.encode_proxy_message(message), self.id)
        if self._frontend.cors.is_on and self._http is not None:
            response = self._frontend.cors.permit(self._http, response)
        self.status = response.status
        self.bytes_out = len(response.body)
        return response


def _check_head(http: Head) -> None:
    """Refuse a head that aiohttp's parser accepts and this server does not.

    Raises:
        MalformedHttpError: the head breaks a rule.
    """
    headers = http.headers
    if http.version not in _VERSIONS:
        raise MalformedHttpError(f"HTTP/{http.version.major}.{http.version.minor} is neither 1.0 nor 1.1")
    coding = headers.get(hdrs.TRANSFER_ENCODING)
    if coding is None:
        if http.method == hdrs.METH_POST and hdrs.CONTENT_LENGTH not in headers:
            raise MalformedHttpError("POST without Content-Length and Transfer-Encoding")
    elif coding.lower() != "chunked":
        raise MalformedHttpError("Transfer-Encoding: not chunked")
