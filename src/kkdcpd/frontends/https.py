"""The HTTPS way in: [MS-KKDCP]'s POST. HTTP is dealt with here, beside its connection and its responses."""

import asyncio
import dataclasses
import logging
import random
import time
from dataclasses import dataclass, field
from typing import cast

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError

from kkdcpd.config import Config
from kkdcpd.errors import BodyTimeoutError, BodyTooLargeError, RequestError
from kkdcpd.frontends import responses
from kkdcpd.frontends.connection import Connection, Holdings, Inlet
from kkdcpd.frontends.door import Arrival
from kkdcpd.frontends.paths import Paths
from kkdcpd.journal import ExchangeRecord
from kkdcpd.ledger import Ledger
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline import Pipeline, refused
from kkdcpd.protocol import framing, kkdcp, messages
from kkdcpd.protocol.forwarded import client_address, network_of
from kkdcpd.protocol.krb_error import build_policy_error
from kkdcpd.values import ClientConnection, Outcome, ProxyMessage, ProxyRequest, Served

__all__ = ["HttpsFrontend"]

logger = logging.getLogger(__name__)

_VERSIONS = (HttpVersion10, HttpVersion11)
"""aiohttp's parser also takes 0.9, and 2.0 where it can't be meant."""

MAX_LENGTH_DIGITS = 10
"""The first digits of a length: of a number that has more, they are over every limit."""

STOP_SECONDS = 0.1
"""What a request has to end that nobody waits for any more. (To aiohttp, 0 is without end.)"""


def _new_id() -> str:
    """Make what tells a request from others in the log; Python seeds anew in each process (os.fork)."""
    return f"{random.getrandbits(32):08x}"


@dataclass(slots=True, kw_only=True)
class _Call:
    """What is known of one request so far, for its log line."""

    client: ClientConnection
    request_id: str = field(default_factory=_new_id)
    started_at: float = field(default_factory=time.perf_counter)
    bytes_in: int = 0
    request: ProxyRequest | None = None


class HttpsFrontend:
    """Serves connections that are already accepted and through their TLS handshake."""

    def __init__(self, config: Config, pipeline: Pipeline, ledger: Ledger, counters: Counters) -> None:
        self._config = config.http
        self._connections = config.connections
        self._pipeline = pipeline
        self._ledger = ledger
        self._counters = counters
        self._paths = Paths(config.http.paths, takes_tokens=any(realm.tokens for realm in config.realms))
        self._refuses_in_kerberos = config.guard.refusal == "krb_error"
        self._holdings = Holdings()
        self._is_draining = False
        # A client that leaves ends its exchange.
        self._server = web.Server(self._handle, handler_cancellation=True)

    def connection(self, arrival: Arrival) -> Inlet:
        """Make the protocol of a new connection."""
        return Inlet(
            Connection(
                self._server,
                self._config,
                self._connections,
                arrival,
                self._holdings,
                counters=self._counters,
                refuse_malformed=self._refuse_malformed,
            )
        )

    def drain(self) -> None:
        """Tell the client of every connection, with its next response, that this one was the last."""
        self._is_draining = True

    async def stop(self) -> None:
        """Close every connection, whatever is in flight."""
        # Idle ones end here.
        self._server.pre_shutdown()
        await self._server.shutdown(STOP_SECONDS)

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", http.protocol)
        connection.request_begins()
        self._counters.request_begins()
        call = _Call(client=self._client(connection, http))
        try:
            response = self._respond(call, await self._admit(http, call))
        except (asyncio.CancelledError, ConnectionError):
            self._close(call, Served(outcome=Outcome.CLIENT_GONE), None)
            raise
        except Exception as error:
            # The last resort: what isn't ours is a bug, and the client gets its answer all the same.
            extra = {"fields": {"id": call.request_id}, "repeats": ("bug_in_request", type(error))}
            logger.exception("bug_in_request", extra=extra)
            response = self._respond(
                call, Served(outcome=Outcome.INTERNAL_ERROR, detail=type(error).__name__)
            )
        finally:
            self._counters.request_leaves()
            connection.request_ends()
        if self._is_last(http, connection):
            response.force_close()
        return response

    def _is_last(self, http: web.BaseRequest, connection: Connection) -> bool:
        """Whether the connection ends with the response."""
        # MIT's client speaks HTTP/1.0 and reads to the end of the connection, whatever the length says.
        # And after a request to upgrade, aiohttp takes what comes for another protocol.
        is_asked = http.version < HttpVersion11 or hdrs.UPGRADE in http.headers
        return is_asked or connection.is_used_up or self._is_draining

    def _client(self, connection: Connection, http: web.BaseRequest) -> ClientConnection:
        """Tell who asks: a proxy that is trusted may name its client in the request (RFC 7239)."""
        client, header = connection.client, self._connections.forwarded
        if header == "none" or not connection.is_trusted_proxy:
            return client
        address = client_address(
            http.headers.getall(header, ()), client.address, self._connections.trusted_proxies, header=header
        )
        if address == client.address:
            return client
        return dataclasses.replace(
            client, address=address, port=0, network=network_of(address), proxy=client.address
        )

    async def _admit(self, http: web.BaseRequest, call: _Call) -> Served:
        """Serve the request unless there are too many; what it asks for is not looked at until then."""
        with self._pipeline.visit(call.client) as verdict:
            if verdict.refusal:
                return refused(verdict)
            served = await self._serve(http, call)
            if not verdict.monitored:
                return served
            return dataclasses.replace(served, monitored=verdict.monitored + served.monitored)

    async def _serve(self, http: web.BaseRequest, call: _Call) -> Served:
        objection = _objection(http)
        if objection:
            return Served(outcome=Outcome.MALFORMED_HTTP, detail=objection)
        place = self._paths.find(http.path)
        if place is None:
            detail = f"{http.method} {self._paths.describe(http.path)}"
            return Served(outcome=Outcome.PATH_NOT_FOUND, detail=detail)
        if http.method != hdrs.METH_POST:
            return Served(outcome=Outcome.METHOD_NOT_ALLOWED, detail=http.method)
        try:
            body = await self._read_body(http, call)
            call.request = messages.classify(kkdcp.decode_proxy_message(body))
        except RequestError as error:
            return Served(outcome=error.outcome, detail=str(error))
        except (HttpProcessingError, web.RequestPayloadError) as error:
            return Served(
                outcome=Outcome.MALFORMED_HTTP, detail=f"body: {self._paths.describe_error(str(error))}"
            )
        if place.token:
            call.client = dataclasses.replace(call.client, token=place.token)
        return await self._pipeline.serve(call.request, call.client)

    async def _read_body(self, http: web.BaseRequest, call: _Call) -> bytes:
        """Read the body, chunked or not, within its limits of size and time.

        Raises:
            BodyTooLargeError: at once when Content-Length says so, else when the limit is passed.
            BodyTimeoutError: it isn't complete in time.
        """
        limit = self._config.max_body_bytes
        if _announced_length(http) > limit:
            raise BodyTooLargeError(f"Content-Length announces more than {limit} octets")
        if http.content.is_eof():  # it came with its head, as nearly all do: there is nothing to wait for
            return self._whole_body(http, call, http.content.read_nowait())
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
        return self._whole_body(http, call, bytes(body))

    def _whole_body(self, http: web.BaseRequest, call: _Call, body: bytes) -> bytes:
        call.bytes_in = len(body)
        if len(body) > self._config.max_body_bytes:
            raise BodyTooLargeError(f"more than {self._config.max_body_bytes} octets")
        cast("Connection", http.protocol).body_ends()
        return body

    def _refuse_malformed(self, connection: Connection, detail: str) -> web.StreamResponse:
        call = _Call(client=connection.client)
        detail = self._paths.describe_error(" ".join(detail.split()))
        return self._respond(call, Served(outcome=Outcome.MALFORMED_HTTP, detail=detail))

    def _respond(self, call: _Call, served: Served) -> web.Response:
        """Build the response and enter the exchange."""
        payload = self._payload(call, served)
        if payload is None:
            response = responses.refuse(served.outcome, call.request_id, served.refusal)
        else:
            kerb_message = framing.add_prefix(payload)
            body = kkdcp.encode_proxy_message(ProxyMessage(kerb_message=kerb_message))
            response = responses.answer(body, call.request_id)
        self._close(call, served, response)
        return response

    def _close(self, call: _Call, served: Served, response: web.Response | None) -> None:
        self._ledger.enter(
            ExchangeRecord(
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

    def _payload(self, call: _Call, served: Served) -> bytes | None:
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
    if http.version not in _VERSIONS:
        return f"HTTP/{http.version.major}.{http.version.minor} is neither 1.0 nor 1.1"
    coding = http.headers.get(hdrs.TRANSFER_ENCODING, "chunked")
    return None if coding.lower() == "chunked" else "a transfer coding other than chunked"


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
