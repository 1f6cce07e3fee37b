"""The HTTPS way in: [MS-KKDCP]'s POST. HTTP is dealt with here, beside its connection and its responses."""

import asyncio
import dataclasses
import logging
import random
import time

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawRequestMessage

from kkdcpd.config import Config
from kkdcpd.errors import BodyTimeoutError, BodyTooLargeError, RequestError
from kkdcpd.frontends import responses
from kkdcpd.frontends.connection import Connection, Holdings, Inlet, Request
from kkdcpd.frontends.door import Arrival
from kkdcpd.frontends.paths import Paths
from kkdcpd.journal import ExchangeRecord
from kkdcpd.ledger import Ledger
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline import Pipeline, refused
from kkdcpd.protocol import framing, kkdcp, messages
from kkdcpd.protocol.forwarded import client_address
from kkdcpd.protocol.ip_addresses import network_of
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
        self._server = web.Server(
            self._handle,  # type: ignore[arg-type] # of a request as the factory makes it
            request_factory=Request,
            handler_cancellation=True,
        )

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

    async def _handle(self, http: Request) -> web.StreamResponse:
        connection = http.connection
        connection.request_begins()
        self._counters.request_begins()
        client = connection.client
        call = _Call(self._client_behind(client, http) if connection.is_trusted_proxy else client)
        try:
            response = self._respond(call, await self._serve(http, call))
        except (asyncio.CancelledError, ConnectionError):
            self._close(call, Served(outcome=Outcome.CLIENT_GONE), status=None, bytes_out=0)
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
        if self._is_last(http):
            response.force_close()
        return response

    def _is_last(self, http: Request) -> bool:
        """Whether the connection ends with the response."""
        # MIT's client speaks HTTP/1.0 and reads to the end of the connection, whatever the length says.
        # And after a request to upgrade, aiohttp takes what comes for another protocol.
        is_asked = http.head.version < HttpVersion11 or hdrs.UPGRADE in http.head.headers
        return is_asked or http.connection.is_used_up or self._is_draining

    def _client_behind(self, proxy: ClientConnection, http: Request) -> ClientConnection:
        """Tell who asks: a proxy that is trusted may name its client in the request (RFC 7239)."""
        header = self._connections.forwarded
        if header == "none":
            return proxy
        named = http.head.headers.getall(header, ())
        address = client_address(named, proxy.address, self._connections.trusted_proxies, header=header)
        if address == proxy.address:
            return proxy
        return dataclasses.replace(
            proxy, address=address, port=0, network=network_of(address), proxy=proxy.address
        )

    async def _serve(self, http: Request, call: _Call) -> Served:
        """Serve the request unless there are too many; what it asks for is not looked at until then."""
        with self._pipeline.visit(call.client) as verdict:
            if verdict.refusal:
                return refused(verdict)
            request = await self._read(http, call)
            if isinstance(request, ProxyRequest):
                call.request = request
                served = await self._pipeline.serve(request, call.client)
            else:
                served = request
            if not verdict.monitored:
                return served
            return dataclasses.replace(served, monitored=verdict.monitored + served.monitored)

    async def _read(self, http: Request, call: _Call) -> ProxyRequest | Served:
        """Read what is asked for; of what is no request of Kerberos, say what it comes to."""
        objection = _objection(http.head)
        if objection:
            return Served(outcome=Outcome.MALFORMED_HTTP, detail=objection)
        method = http.head.method
        place = self._paths.find(http.path)
        if place is None:
            return Served(
                outcome=Outcome.PATH_NOT_FOUND, detail=f"{method} {self._paths.describe(http.path)}"
            )
        if method != hdrs.METH_POST:
            return Served(outcome=Outcome.METHOD_NOT_ALLOWED, detail=method)
        try:
            body = await self._read_body(http, call)
            request = messages.classify(kkdcp.decode_proxy_message(body))
        except RequestError as error:
            return Served(outcome=error.outcome, detail=str(error))
        except (HttpProcessingError, web.RequestPayloadError) as error:
            return Served(
                outcome=Outcome.MALFORMED_HTTP, detail=f"body: {self._paths.describe_error(str(error))}"
            )
        if place.token:
            call.client = dataclasses.replace(call.client, token=place.token)
        return request

    async def _read_body(self, http: Request, call: _Call) -> bytes:
        """Read the body, chunked or not, within its limits of size and time.

        Raises:
            BodyTooLargeError: at once when Content-Length says so, else when the limit is passed.
            BodyTimeoutError: it isn't complete in time.
        """
        limit = self._config.max_body_bytes
        if _announced_length(http.head) > limit:
            raise BodyTooLargeError(f"Content-Length announces more than {limit} octets")
        if http.body.is_eof():  # it came with its head, as nearly all do: there is nothing to wait for
            body = http.body.read_nowait()
            call.bytes_in = len(body)
            if call.bytes_in > limit:
                raise BodyTooLargeError(f"more than {limit} octets")
        else:
            body = await self._wait_for_body(http, call)
        http.connection.body_ends()
        return body

    async def _wait_for_body(self, http: Request, call: _Call) -> bytes:
        limit = self._config.max_body_bytes
        await _continue_if_expected(http)
        body = bytearray()
        try:
            async with asyncio.timeout(self._config.body_timeout):
                while chunk := await http.body.readany():
                    body += chunk
                    call.bytes_in = len(body)
                    if len(body) > limit:
                        raise BodyTooLargeError(f"more than {limit} octets")
        except TimeoutError:
            raise BodyTimeoutError(f"{len(body)} octets in {self._config.body_timeout} s") from None
        return bytes(body)

    def _refuse_malformed(self, connection: Connection, detail: str) -> web.StreamResponse:
        call = _Call(connection.client)
        detail = self._paths.describe_error(" ".join(detail.split()))
        return self._respond(call, Served(outcome=Outcome.MALFORMED_HTTP, detail=detail))

    def _respond(self, call: _Call, served: Served) -> web.StreamResponse:
        """Build the response and enter the exchange."""
        payload = self._payload(call, served)
        if payload is None:
            refusal = responses.refuse(served.outcome, call.request_id, served.refusal)
            self._close(call, served, status=refusal.status, bytes_out=refusal.content_length or 0)
            return refusal
        kerb_message = framing.add_prefix(payload)
        body = kkdcp.encode_proxy_message(ProxyMessage(kerb_message=kerb_message))
        answer = responses.Answer(body, call.request_id)
        self._close(call, served, status=answer.status, bytes_out=len(body))
        return answer

    def _close(self, call: _Call, served: Served, *, status: int | None, bytes_out: int) -> None:
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

    def _payload(self, call: _Call, served: Served) -> bytes | None:
        """Return the Kerberos message to answer with: the KDC's, or where so configured our own refusal."""
        if served.outcome is Outcome.ANSWERED and served.reply:
            return served.reply.payload
        if not self._refuses_in_kerberos or served.outcome is not Outcome.REFUSED:
            return None
        if served.refusal is None or call.request is None:
            return None
        return build_policy_error(call.request, served.refusal.text, time.time())


def _objection(head: RawRequestMessage) -> str | None:
    """Say what is wrong with a head that aiohttp's parser lets pass."""
    if head.version not in _VERSIONS:
        return f"HTTP/{head.version.major}.{head.version.minor} is neither 1.0 nor 1.1"
    coding = head.headers.get(hdrs.TRANSFER_ENCODING)
    if coding is not None and coding.lower() != "chunked":
        return "a transfer coding other than chunked"
    return None


def _announced_length(head: RawRequestMessage) -> int:
    """Return the Content-Length. aiohttp has checked that it is digits, not how many there are."""
    digits = head.headers.get(hdrs.CONTENT_LENGTH, "0").lstrip("0")
    return int(digits[:MAX_LENGTH_DIGITS] or "0")


async def _continue_if_expected(http: Request) -> None:
    """Ask for the body where the client waits to be asked (RFC 9110 10.1.1); aiohttp's router would do it."""
    head = http.head
    if head.version >= HttpVersion11 and head.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The response proper has not begun.
        http.writer.output_size = 0
