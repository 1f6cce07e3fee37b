"""The HTTPS way in: [MS-KKDCP]'s POST. HTTP is dealt with here, beside its connection and its responses."""

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import cast

from aiohttp import HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from kkdcpd import journal
from kkdcpd.config import HttpConfig
from kkdcpd.errors import BodyTimeoutError, BodyTooLargeError, RequestError
from kkdcpd.frontends import responses
from kkdcpd.frontends.connection import Connection
from kkdcpd.pipeline import Pipeline
from kkdcpd.protocol import framing, kkdcp, messages
from kkdcpd.values import ClientConnection, Outcome, ProxyMessage, ProxyRequest, Served

__all__ = ["HttpsFrontend"]

logger = logging.getLogger(__name__)

MAX_LENGTH_DIGITS = 10
"""The first digits of a length: of a number that has more, they are over every limit."""


@dataclass(slots=True, kw_only=True)
class _Call:
    """What is known of one request so far, for its log line."""

    client: ClientConnection
    request_id: str = field(default_factory=lambda: secrets.token_hex(4))
    started_at: float = field(default_factory=time.perf_counter)
    bytes_in: int = 0
    request: ProxyRequest | None = None


class HttpsFrontend:
    """Serves connections that are already accepted and through their TLS handshake."""

    def __init__(self, config: HttpConfig, pipeline: Pipeline) -> None:
        self._config = config
        self._pipeline = pipeline
        self._paths = frozenset(map(_fold_path, config.paths))
        # A client that leaves ends its exchange.
        self._server = web.Server(self._handle, handler_cancellation=True)

    def connection(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self._server, self._config, refuse_malformed=self._refuse_malformed)

    async def stop(self, timeout: float) -> None:
        """Finish what is in flight, at most for `timeout` seconds, and close every connection."""
        # Idle connections end here: aiohttp would wait the whole time for them.
        self._server.pre_shutdown()
        await self._server.shutdown(timeout)

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", http.protocol)
        connection.request_begins()
        call = _Call(client=connection.client)
        try:
            response = _respond(call, await self._serve(http, call))
        except (asyncio.CancelledError, ConnectionError):
            _close(call, Served(outcome=Outcome.CLIENT_GONE), None)
            raise
        except Exception as error:
            # The last resort: what isn't ours is a bug, and the client gets its answer all the same.
            logger.exception("bug in request", extra={"fields": {"id": call.request_id}})
            response = _respond(call, Served(outcome=Outcome.INTERNAL_ERROR, detail=type(error).__name__))
        finally:
            connection.request_ends()
        if http.version < HttpVersion11 or connection.is_used_up:
            # MIT's client speaks HTTP/1.0 and reads to the end of the connection, whatever the length says.
            response.force_close()
        return response

    async def _serve(self, http: web.BaseRequest, call: _Call) -> Served:
        if _fold_path(http.path) not in self._paths:
            return Served(outcome=Outcome.PATH_NOT_FOUND, detail=f"{http.method} {http.path}")
        if http.method != hdrs.METH_POST:
            return Served(outcome=Outcome.METHOD_NOT_ALLOWED, detail=http.method)
        try:
            body = await self._read_body(http, call)
            call.request = messages.classify(kkdcp.decode_proxy_message(body))
        except RequestError as error:
            return Served(outcome=error.outcome, detail=str(error))
        except (HttpProcessingError, web.RequestPayloadError) as error:
            return Served(outcome=Outcome.MALFORMED_HTTP, detail=f"body: {error}")
        return await self._pipeline.serve(call.request)

    async def _read_body(self, http: web.BaseRequest, call: _Call) -> bytes:
        """Read the body, chunked or not, within its limits of size and time.

        Raises:
            BodyTooLargeError: at once when Content-Length says so, else when the limit is passed.
            BodyTimeoutError: it isn't complete in time.
        """
        limit = self._config.max_body_bytes
        if _announced_length(http) > limit:
            raise BodyTooLargeError(f"Content-Length announces more than {limit} octets")
        await _continue_if_expected(http)
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.body_timeout):
                while chunk := await http.content.readany():
                    body += chunk
                    call.bytes_in = len(body)
                    if len(body) > limit:
                        raise BodyTooLargeError(f"more than {limit} octets")
        except TimeoutError:
            raise BodyTimeoutError(f"{len(body)} octets in {self._config.body_timeout} s") from None
        return bytes(body)

    def _refuse_malformed(self, connection: Connection, detail: str) -> web.StreamResponse:
        call = _Call(client=connection.client)
        return _respond(call, Served(outcome=Outcome.MALFORMED_HTTP, detail=" ".join(detail.split())))


def _fold_path(path: str) -> str:
    """Paths are compared without case, and one slash at the end makes no difference."""
    return path.lower().removesuffix("/")


def _announced_length(http: web.BaseRequest) -> int:
    """Return the Content-Length. aiohttp has checked that it is digits, not how many there are."""
    digits = http.headers.get(hdrs.CONTENT_LENGTH, "0").lstrip("0")
    return int(digits[:MAX_LENGTH_DIGITS] or "0")


async def _continue_if_expected(http: web.BaseRequest) -> None:
    """Ask for the body where the client waits to be asked (RFC 9110 10.1.1); aiohttp's router would do it."""
    if http.version >= HttpVersion11 and http.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The response proper has not begun.
        http.writer.output_size = 0


def _respond(call: _Call, served: Served) -> web.Response:
    """Build the response and write the log line."""
    if served.reply:
        kerb_message = framing.add_prefix(served.reply.payload)
        body = kkdcp.encode_proxy_message(ProxyMessage(kerb_message=kerb_message))
        response = responses.answer(body, call.request_id)
    else:
        response = responses.refuse(served.outcome, call.request_id)
    _close(call, served, response)
    return response


def _close(call: _Call, served: Served, response: web.Response | None) -> None:
    journal.write(
        journal.ExchangeRecord(
            request_id=call.request_id,
            client=call.client,
            served=served,
            request=call.request,
            status=response.status if response else None,
            milliseconds=(time.perf_counter() - call.started_at) * 1000,
            bytes_in=call.bytes_in,
            bytes_out=len(cast("bytes", response.body)) if response else 0,
        )
    )
