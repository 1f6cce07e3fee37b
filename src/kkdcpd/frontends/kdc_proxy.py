"""The HTTPS way in: [MS-KKDCP]'s POST. HTTP is dealt with here, beside its connection and its responses."""

import asyncio
import dataclasses
import random
import time

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from kkdcpd.config import Config
from kkdcpd.errors import BodyTooLargeError, RequestError
from kkdcpd.frontends.http import responses
from kkdcpd.frontends.http.connection import BrokenBodyError, Connection, HttpServer
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.paths import Paths
from kkdcpd.journal import ExchangeRecord
from kkdcpd.ledger import Ledger
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline import Pipeline, refused
from kkdcpd.protocol import framing, kkdcp, messages
from kkdcpd.protocol.forwarded import client_address
from kkdcpd.protocol.ip_addresses import network_of
from kkdcpd.protocol.krb_error import build_policy_error
from kkdcpd.values import ClientConnection, Outcome, ProxyMessage, ProxyRequest, RequestResult

__all__ = ["KdcProxyFrontend"]

logger = EventLogger(__name__)

_VERSIONS = (HttpVersion10, HttpVersion11)
"""aiohttp's parser also takes 0.9, and 2.0 where it can't be meant."""

MAX_LENGTH_DIGITS = 10
"""The first digits of a length: of a number that has more, they are over every limit."""

STOP_SECONDS = 0.1
"""What a request has to end when the process stops."""


class _Call:
    """What is known of one request so far, for its log line."""

    __slots__ = ("bytes_in", "client", "request", "request_id", "started_at")

    def __init__(self, client: ClientConnection) -> None:
        self.client = client
        # What tells it from others in the log; Python seeds anew in each process (os.fork).
        self.request_id = f"{random.getrandbits(32):08x}"
        self.started_at = time.perf_counter()
        self.bytes_in = 0
        self.request: ProxyRequest | None = None


class KdcProxyFrontend:
    """Serves connections that are already accepted and through their TLS handshake."""

    def __init__(self, config: Config, pipeline: Pipeline, ledger: Ledger, counters: Counters) -> None:
        self._config = config.http
        self._connections = config.connections
        self._pipeline = pipeline
        self._ledger = ledger
        self._counters = counters
        self._paths = Paths(config.http.paths, takes_tokens=any(realm.tokens for realm in config.realms))
        self._refuses_in_kerberos = config.guard.refusal == "krb_error"
        self._server = HttpServer(self, config.http, config.connections, counters)
        self.connection = self._server.connection
        """Makes the protocol of a new connection."""
        self.drain = self._server.drain
        """Tells the client of every connection, with its next response, that this response is the last."""

    async def stop(self) -> None:
        """Close every connection, whatever is in flight."""
        await self._server.stop(STOP_SECONDS)

    async def handle(self, request: web.BaseRequest, connection: Connection) -> Response:
        """Answer a request, and enter it in the ledger."""
        self._counters.request_begins()
        client = connection.client
        call = _Call(self._client_behind(client, request) if connection.is_trusted_proxy else client)
        try:
            return self._respond(call, await self._serve(request, connection, call))
        except BrokenBodyError:
            raise
        except asyncio.CancelledError:
            call.bytes_in = connection.bytes_read
            self._close(call, RequestResult(outcome=Outcome.CLIENT_GONE), status=None, bytes_out=0)
            raise
        except Exception as error:
            # The last resort: what is not ours is a bug, and the client gets its answer all the same.
            logger.exception("bug_in_request", sum_by=("bug_in_request", type(error)), id=call.request_id)
            return self._respond(
                call, RequestResult(outcome=Outcome.INTERNAL_ERROR, detail=type(error).__name__)
            )
        finally:
            self._counters.request_leaves()

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        """Answer what is no HTTP, and enter it in the ledger."""
        return self._respond(
            _Call(connection.client), RequestResult(outcome=Outcome.MALFORMED_HTTP, detail=detail)
        )

    def _client_behind(self, proxy: ClientConnection, request: web.BaseRequest) -> ClientConnection:
        """Return the client: a proxy that is trusted may name its client in the request (RFC 7239)."""
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

    async def _serve(self, http: web.BaseRequest, connection: Connection, call: _Call) -> RequestResult:
        """Serve the request unless the client sends too many.

        The client pays for the head, so that a head without a body is not free. The request takes its slot
        when its body is there, so that slow bodies hold no slots.
        """
        verdict = self._pipeline.charge(call.client)
        if verdict.refusal:
            return refused(verdict)
        request = await self._read(http, connection, call)
        call.bytes_in = connection.bytes_read
        with self._pipeline.visit(call.client) as crowding:
            monitored = verdict.monitored + crowding.monitored
            if crowding.refusal:
                served = refused(crowding)
            elif isinstance(request, ProxyRequest):
                call.request = request
                served = await self._pipeline.serve(request, call.client)
                monitored += served.monitored
            else:
                served = request
        return dataclasses.replace(served, monitored=monitored) if monitored else served

    async def _read(
        self, http: web.BaseRequest, connection: Connection, call: _Call
    ) -> ProxyRequest | RequestResult:
        """Read what is asked for. Of what is no request of Kerberos, say what it comes to."""
        objection = _objection(http)
        if objection:
            return RequestResult(outcome=Outcome.MALFORMED_HTTP, detail=objection)
        method = http.method
        place = self._paths.find(http.raw_path)
        if place is None:
            return RequestResult(
                outcome=Outcome.PATH_NOT_FOUND, detail=f"{method} {self._paths.describe(http.raw_path)}"
            )
        if method != hdrs.METH_POST:
            return RequestResult(outcome=Outcome.METHOD_NOT_ALLOWED, detail=method)
        try:
            body = await self._read_body(http, connection)
            request = messages.classify(kkdcp.decode_proxy_message(body))
        except RequestError as error:
            return RequestResult(outcome=error.outcome, detail=str(error))
        if place.token:
            call.client = dataclasses.replace(call.client, token=place.token)
        return request

    async def _read_body(self, http: web.BaseRequest, connection: Connection) -> bytes:
        """Read the body, if it may be read at all.

        Raises:
            BodyTooLargeError: at once if Content-Length says so, else when the limit is passed.
        """
        limit = self._config.max_body_bytes
        if _announced_length(http) > limit:
            raise BodyTooLargeError(f"Content-Length announces more than {limit} bytes")
        if connection.is_body_missing and _awaits_continue(http):
            connection.write_continue()
        return await connection.read_body(limit)

    def _respond(self, call: _Call, served: RequestResult) -> Response:
        """Build the response and enter the exchange."""
        payload = self._payload(call, served)
        if payload is None:
            refusal = responses.refuse(served.outcome, call.request_id, served.refusal)
            self._close(call, served, status=refusal.status, bytes_out=len(refusal.body))
            return refusal
        kerb_message = framing.add_prefix(payload)
        body = kkdcp.encode_proxy_message(ProxyMessage(kerb_message=kerb_message))
        self._close(call, served, status=200, bytes_out=len(body))
        return responses.answer(body, call.request_id)

    def _close(self, call: _Call, served: RequestResult, *, status: int | None, bytes_out: int) -> None:
        self._ledger.enter(
            ExchangeRecord(
                request_id=call.request_id,
                client=call.client,
                served=served,
                request=call.request,
                status=status,
                milliseconds=(time.perf_counter() - call.started_at) * 1000,
                bytes_in=call.bytes_in,
                bytes_out=bytes_out,
            )
        )

    def _payload(self, call: _Call, served: RequestResult) -> bytes | None:
        """Return the Kerberos message to answer with: the KDC's, or where so configured our own refusal."""
        if served.outcome is Outcome.ANSWERED and served.reply:
            return served.reply.payload
        if not self._refuses_in_kerberos or served.outcome is not Outcome.REFUSED:
            return None
        if served.refusal is None or call.request is None:
            return None
        return build_policy_error(call.request, served.refusal.text, time.time())


def _objection(http: web.BaseRequest) -> str | None:
    """Say what is wrong with a head that aiohttp's parser lets pass."""
    headers = http.headers
    if http.version not in _VERSIONS:
        return f"HTTP/{http.version.major}.{http.version.minor} is neither 1.0 nor 1.1"
    coding = headers.get(hdrs.TRANSFER_ENCODING)
    if coding is None:
        if http.method == hdrs.METH_POST and hdrs.CONTENT_LENGTH not in headers:
            return "POST without Content-Length and Transfer-Encoding"
    elif coding.lower() != "chunked":
        return "Transfer-Encoding: not chunked"
    return None


def _awaits_continue(http: web.BaseRequest) -> bool:
    """Whether the client waits to be asked for the body (RFC 9110 10.1.1)."""
    return http.version >= HttpVersion11 and http.headers.get(hdrs.EXPECT, "").lower() == "100-continue"


def _announced_length(http: web.BaseRequest) -> int:
    """Return the Content-Length. aiohttp has checked that it is digits, not how many there are."""
    digits = http.headers.get(hdrs.CONTENT_LENGTH, "0").lstrip("0")
    return int(digits[:MAX_LENGTH_DIGITS] or "0")
