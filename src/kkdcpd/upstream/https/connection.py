"""Opens one connection to a KDC proxy, perhaps through a web proxy, and carries requests over it."""

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

from kkdcpd import via
from kkdcpd.endpoints import KdcEndpoint, format_host_port
from kkdcpd.frozen import frozen
from kkdcpd.protocol.kdc_proxy_http import (
    HttpClient,
    HttpResponse,
    ResponseError,
    connect_headers,
    encode_body,
    post_headers,
)
from kkdcpd.socket_address import socket_address
from kkdcpd.upstream.https.client_tls import has_pinned_key
from kkdcpd.upstream.https.stream import Stream
from kkdcpd.upstream.https.web_proxy import WebProxies, WebProxy
from kkdcpd.upstream.sockets import Readiness, SourceAddresses, failure_of, open_socket
from kkdcpd.values import FailureReason, ProxyRequest

__all__ = ["Connection", "ConnectionUser", "Failure", "Setup"]

MAX_TUNNEL_RESPONSE_BYTES = 65536
"""The longest body of a web proxy's refusal."""


@frozen
class Setup:
    """The parts that all connections share."""

    readiness: Readiness
    sources: SourceAddresses
    context: ssl.SSLContext
    pins: Mapping[str, frozenset[bytes]]
    web_proxies: WebProxies
    max_reply_bytes: int


@frozen
class Failure:
    """The reason why a connection has ended. `problem` is for the log, `error` the error of a socket."""

    reason: FailureReason
    problem: str | None = None
    status: int | None = None
    error: OSError | None = None


class ConnectionUser(Protocol):
    """The receiver of a connection's events. No event follows `ended` or a call of `close`."""

    def opened(self) -> None:
        """Take the news that a request can be sent."""

    def answered(self, response: HttpResponse) -> None:
        """Take the response to the request."""

    def ended(self, failure: Failure) -> None:
        """Take the news that the connection has ended; a request under way has no response."""


class Connection:
    """A connection. `user` receives its events and may change between two requests.

    `is_usable`: a request can be sent. `has_response`: bytes have come back since the last request.
    """

    def __init__(
        self, endpoint: KdcEndpoint, setup: Setup, user: ConnectionUser, session: ssl.SSLSession | None
    ) -> None:
        self.endpoint = endpoint
        self.user = user
        self.is_usable = False
        self.has_response = False
        self._setup = setup
        self._session = session
        self._is_open = True
        self._stream: Stream | None = None
        self._web_proxy = setup.web_proxies.proxy_for(endpoint.name, endpoint.address, endpoint.port)
        self._tunnel: HttpClient | None = None
        self._http = HttpClient(max_reply_bytes=setup.max_reply_bytes)
        self._is_waiting = False
        self._sent_before: int | None = None
        self._look_up: asyncio.Task[str] | None = None

    @property
    def has_sent(self) -> bool:
        """Whether bytes of the last request have left."""
        if self._stream is None or self._sent_before is None:
            return False
        return self._stream.bytes_sent > self._sent_before

    @property
    def session(self) -> ssl.SSLSession | None:
        """The TLS session, with which the next handshake is shorter."""
        return self._stream.tls.session if self._stream and self._stream.tls else None

    def open(self) -> None:
        """Begin to connect. The event `opened` or `ended` follows, perhaps before the return."""
        if self._web_proxy is None:
            self._connect(self.endpoint.address, self.endpoint.port)
            return
        # The system knows its web proxy. The look-up blocks, so it has a thread.
        loop = asyncio.get_running_loop()
        self._look_up = loop.create_task(
            _address_of(self._web_proxy), name=f"address of {self._web_proxy.host}"
        )
        self._look_up.add_done_callback(partial(self._connect_to_web_proxy, self._web_proxy))

    def send(self, request: ProxyRequest) -> None:
        """Send a request. The event `answered` or `ended` follows, perhaps before the return."""
        assert self._stream
        endpoint, body = self.endpoint, encode_body(request)
        headers = post_headers(endpoint.name, endpoint.port, len(body), request.via or via.extend())
        data = self._http.request("POST", endpoint.path or "/", headers, body)
        self.is_usable = self.has_response = False
        self._is_waiting = True
        self._sent_before = self._stream.bytes_sent
        self._stream.write(data)

    def poll(self) -> None:
        """Notice whether the server has ended the idle connection, or has sent bytes on it."""
        if self._stream:
            self._stream.poll()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._is_open = self.is_usable = False
        if self._look_up:
            self._look_up.cancel()
        if self._stream:
            self._stream.close()

    # --- events of the stream

    def connected(self) -> None:
        """Secure the connection, through a web proxy when its tunnel is open."""
        if self._web_proxy is None:
            self._secure()
            return
        assert self._stream
        target = format_host_port(self.endpoint.name, self.endpoint.port)
        self._tunnel = HttpClient(max_reply_bytes=MAX_TUNNEL_RESPONSE_BYTES)
        headers = connect_headers(target, self._web_proxy.authorization)
        self._stream.write(self._tunnel.request("CONNECT", target, headers))

    def secured(self) -> None:
        """Take the end of the TLS handshake."""
        assert self._stream
        assert self._stream.tls
        if has_pinned_key(self._stream.tls, self.endpoint.name, self._setup.pins):
            self.is_usable = True
            self.user.opened()
        else:
            self._end(Failure(reason=FailureReason.TLS_FAILED, problem="the certificate has no pinned key"))

    def received(self, data: bytes) -> None:
        """Take bytes of a response. Bytes that belong to no request end the connection."""
        if self._tunnel:
            self._take_tunnel_response(self._tunnel, data)
        elif not self._is_waiting:
            self._end(Failure(reason=FailureReason.CLOSED if not data else FailureReason.BAD_REPLY))
        else:
            self.has_response = self.has_response or bool(data)
            self._take_response(data)

    def ended(self, error: OSError) -> None:
        """Take the failure of the connection."""
        if isinstance(error, ssl.SSLCertVerificationError):
            problem = f"the certificate is refused: {error.verify_message}"
            self._end(Failure(reason=FailureReason.TLS_FAILED, problem=problem))
        elif isinstance(error, ssl.SSLError):
            problem = (error.reason or "the server ended the handshake").lower().replace("_", " ")
            self._end(Failure(reason=FailureReason.TLS_FAILED, problem=problem))
        else:
            self._end(Failure(reason=failure_of(error), error=error))

    # --- steps

    def _connect(self, address: str, port: int) -> None:
        endpoint = replace(self.endpoint, address=address, port=port)
        try:
            sock = open_socket(endpoint, socket.SOCK_STREAM, self._setup.sources)
            target = socket_address(address, port)
        except OSError as error:
            self._end(Failure(reason=failure_of(error), error=error))
            return
        self._stream = Stream(sock, self._setup.readiness, self)
        self._stream.connect(target)

    def _connect_to_web_proxy(self, web_proxy: WebProxy, look_up: "asyncio.Task[str]") -> None:
        if not self._is_open or look_up.cancelled():
            return
        error = look_up.exception()
        if error:
            problem = f"the web proxy {web_proxy.host} has no address"
            self._end(Failure(reason=FailureReason.WEB_PROXY_FAILED, problem=problem))
        else:
            self._connect(look_up.result(), web_proxy.port)

    def _take_tunnel_response(self, tunnel: HttpClient, data: bytes) -> None:
        try:
            response = tunnel.receive(data)
        except ResponseError:
            self._end(
                Failure(
                    reason=FailureReason.WEB_PROXY_FAILED, problem="the answer of the web proxy is no HTTP"
                )
            )
            return
        if response is None:
            return
        self._tunnel = None
        if 200 <= response.status < 300:
            self._secure()
        else:
            problem = "the web proxy opens no tunnel"
            failure = FailureReason.WEB_PROXY_FAILED
            self._end(Failure(reason=failure, problem=problem, status=response.status))

    def _secure(self) -> None:
        assert self._stream
        try:
            self._stream.secure(self._setup.context, self.endpoint.name.rstrip("."), self._session)
        except ValueError:  # DNS may have any name
            self._end(Failure(reason=FailureReason.TLS_FAILED, problem="no certificate can have this name"))

    def _take_response(self, data: bytes) -> None:
        try:
            response = self._http.receive(data)
        except ResponseError as error:
            self._end(Failure(reason=error.reason))
            return
        if response is None:
            return
        self._is_waiting = False
        self.is_usable = response.is_reusable
        self.user.answered(response)

    def _end(self, failure: Failure) -> None:
        if self._is_open:
            self.close()
            self.user.ended(failure)


async def _address_of(web_proxy: WebProxy) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(
        web_proxy.host, web_proxy.port, type=socket.SOCK_STREAM
    )
    return str(found[0][4][0])
