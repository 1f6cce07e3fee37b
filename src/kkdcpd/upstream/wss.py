"""The WebSocket way out: sends messages to KDC proxies through tunnels (docs/tunnel.md).

All exchanges with an endpoint share one tunnel. A message goes to another endpoint only if the proxy says
that no KDC has it (`refused`), or that the proxy has not taken it (`go away`).
"""

import asyncio
import ssl
from collections.abc import Callable
from http import HTTPStatus

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.errors import MalformedError, SettingError
from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol import kkdcp, tunnel
from kkdcpd.protocol.framing import PREFIX_BYTES
from kkdcpd.protocol.kdc_proxy_http import MAX_ENVELOPE_BYTES, REFUSALS, encode_body
from kkdcpd.protocol.tunnel import GoneAway, Refusal, Refused, Replied, Requester
from kkdcpd.upstream.kdc_proxy_log import log_kdc_proxy_failure
from kkdcpd.upstream.sockets import AttemptEvents, SourceAddresses, failure_of
from kkdcpd.values import Attempt, FailureFacts, FailureReason, ProxyRequest
from kkdcpd.websocket import CloseCode, WebSocket

__all__ = ["TlsClient", "Tunnels", "WssAttempt", "WssOptions"]

logger = EventLogger(__name__)

MAX_HEAD_BYTES = 16384
_END_OF_HEAD = b"\r\n\r\n"

_UNDELIVERED = FailureFacts(is_undelivered=True)


@frozen
class WssOptions:
    """The options of the WebSocket way out.

    A tunnel without requests is closed after `idle_timeout` seconds. A tunnel from which nothing has come for
    `fresh_seconds` is tested by a ping before it gets a message, and has `test_timeout` seconds to answer.
    `max_exchanges` is the limit of requests in flight in one tunnel.
    """

    idle_timeout: float = 60.0
    fresh_seconds: float = 5.0
    test_timeout: float = 1.0
    max_exchanges: int = tunnel.MAX_EXCHANGES


@frozen
class TlsClient:
    """The TLS of tunnels. `make_context` may raise a SettingError. `has_pinned_key` checks the server."""

    make_context: Callable[[], ssl.SSLContext]
    has_pinned_key: Callable[[ssl.SSLObject, str], bool]


class Tunnels:
    """The tunnels of this process, at most one for each endpoint that takes requests."""

    def __init__(
        self, options: WssOptions, tls: TlsClient, *, sources: SourceAddresses, max_reply_bytes: int
    ) -> None:
        self.options = options
        self.tls = tls
        self.sources = sources
        self.max_frame_bytes = max_reply_bytes + MAX_ENVELOPE_BYTES + tunnel.HEADER_BYTES
        self.loop = asyncio.get_running_loop()
        self._context: ssl.SSLContext | None = None
        self._tunnels: dict[KdcEndpoint, _Tunnel] = {}

    def join(self, attempt: "WssAttempt") -> "_Tunnel":
        """Return the tunnel of the attempt's endpoint. The tunnel reports to the attempt when it is ready.

        Raises:
            SettingError: the options of TLS cannot be used.
        """
        endpoint = attempt.endpoint
        found = self._tunnels.get(endpoint)
        if found is None or not found.takes_requests:
            if self._context is None:
                self._context = self.tls.make_context()
            found = self._tunnels[endpoint] = _Tunnel(self, endpoint, self._context)
        return found

    def forget(self, ended: "_Tunnel") -> None:
        """Use this tunnel for no more requests."""
        if self._tunnels.get(ended.endpoint) is ended:
            del self._tunnels[ended.endpoint]

    def close(self) -> None:
        """Close all tunnels: the process is about to end."""
        for each in [*self._tunnels.values()]:
            each.close()


class WssAttempt:
    """One message to one KDC proxy. A `WayOut`.

    A message that a tunnel has not taken goes into a second tunnel to the same endpoint.
    """

    def __init__(self, attempt: Attempt, events: AttemptEvents, tunnels: Tunnels) -> None:
        self.endpoint = attempt.endpoint
        self._attempt = attempt
        self._events = events
        self._tunnels = tunnels
        self._tunnel: _Tunnel | None = None
        self._request: ProxyRequest | None = None
        self._may_rejoin = True

    def start(self) -> None:
        """Take the tunnel of the endpoint, or begin to open it."""
        try:
            self._tunnel = self._tunnels.join(self)
        except SettingError as error:
            self._fail_setup(error)
        else:
            self._tunnel.prepare(self)

    def send(self, request: ProxyRequest) -> None:
        """Send the message."""
        self._request = request
        if self._tunnel and self._tunnel.takes_requests:
            if not self._tunnel.send(self, encode_body(request)):
                self._end(FailureReason.BUSY, _UNDELIVERED)
        else:
            self.untaken(FailureReason.PROXY_UNAVAILABLE)

    def close(self) -> None:
        """Give up the reply. The tunnel stays."""
        if self._tunnel:
            self._tunnel.leave(self)
            self._tunnel = None

    # --- events of the tunnel

    def ready(self) -> None:
        """Send the message if it is there already, for the second time; else report the connection."""
        if self._request:
            self.send(self._request)
        else:
            self._events.connected(self._attempt)

    def replied(self, envelope: bytes) -> None:
        """Report the reply."""
        try:
            message = kkdcp.decode_proxy_message(envelope)
        except MalformedError:
            self._end(FailureReason.BAD_REPLY)
            return
        self._tunnel = None
        self._events.received(self._attempt, message.kerb_message[PREFIX_BYTES:])

    def refused(self, refusal: Refusal) -> None:
        """Report a refusal."""
        reason = REFUSALS.get(refusal.status, FailureReason.PROXY_ERROR)
        facts = FailureFacts(
            is_undelivered=not refusal.may_be_delivered, retry_after=float(refusal.retry_after)
        )
        log_kdc_proxy_failure(self.endpoint, reason, status=refusal.status, problem=refusal.text or None)
        self._end(reason, facts)

    def untaken(self, reason: FailureReason) -> None:
        """Take the news that the proxy has not taken the message: try a second tunnel."""
        if self._may_rejoin:
            self._may_rejoin = False
            self.start()
        else:
            self._end(reason, _UNDELIVERED)

    def lost(self, reason: FailureReason) -> None:
        """Report the loss of the tunnel with the message. A KDC may have it."""
        self._end(reason)

    def not_opened(self, reason: FailureReason) -> None:
        """Report that no tunnel could be opened."""
        self._end(reason, _UNDELIVERED)

    def _fail_setup(self, error: SettingError) -> None:
        logger.error("https_unusable", sum_by="https_unusable", problem=error.problem, remedy=error.remedy)
        self._end(FailureReason.LOCAL_ERROR, _UNDELIVERED)

    def _end(self, reason: FailureReason, facts: FailureFacts | None = None) -> None:
        self._tunnel = None
        if facts is None:
            self._events.failed(self._attempt, reason)
        else:
            self._events.failed(self._attempt, reason, facts)


class _Tunnel(asyncio.Protocol):
    """One tunnel, from its connect to its end."""

    def __init__(self, tunnels: Tunnels, endpoint: KdcEndpoint, context: ssl.SSLContext) -> None:
        self.endpoint = endpoint
        self._tunnels = tunnels
        self._loop = tunnels.loop
        self._requester = Requester(tunnels.options.max_exchanges)
        self._protocol = ClientProtocol(
            # The port is in the text even if it is the default.
            parse_uri(f"wss://{endpoint.host_port}{endpoint.path or '/'}"),
            subprotocols=[Subprotocol(tunnel.SUBPROTOCOL)],
            max_size=tunnels.max_frame_bytes,
        )
        self._transport: asyncio.Transport | None = None
        self._socket: WebSocket | None = None
        self._head = bytearray()
        self._waiting: set[WssAttempt] = set()
        self._exchanges: dict[int, WssAttempt] = {}
        self._failure = FailureReason.CLOSED
        self._is_over = False
        self._heard_at = self._used_at = self._loop.time()
        self._test: asyncio.TimerHandle | None = None
        self._connecting = self._loop.create_task(self._connect(context), name=f"tunnel to {endpoint}")

    # --- calls of attempts

    @property
    def takes_requests(self) -> bool:
        """Whether the tunnel opens, or is open and has not been told to stop."""
        return not self._is_over and not self._requester.is_gone_away

    def prepare(self, attempt: WssAttempt) -> None:
        """Report to the attempt when the tunnel is ready. A tunnel that has been silent is tested first."""
        fresh_until = self._heard_at + self._tunnels.options.fresh_seconds
        if self._socket and not self._test and self._loop.time() < fresh_until:
            attempt.ready()
            return
        self._waiting.add(attempt)
        if self._socket and not self._test:
            self._test = self._loop.call_later(self._tunnels.options.test_timeout, self._abort)
            self._socket.ping()

    def send(self, attempt: WssAttempt, envelope: bytes) -> bool:
        """Send a request. Return whether there was room for it."""
        if not self._socket or not self._requester.has_room:
            return False
        number, frame = self._requester.request(envelope)
        self._exchanges[number] = attempt
        self._used_at = self._loop.time()
        self._socket.send(frame)
        return True

    def leave(self, attempt: WssAttempt) -> None:
        """Report nothing more to the attempt."""
        self._waiting.discard(attempt)
        for number, other in self._exchanges.items():
            if other is attempt:
                del self._exchanges[number]
                break
        if not self._waiting and not self._socket:
            self.close()

    def close(self) -> None:
        """Close the tunnel."""
        self._tunnels.forget(self)
        if self._socket:
            self._socket.close(CloseCode.NORMAL_CLOSURE)
        elif self._transport:
            self._abort()
        else:
            self._is_over = True
            self._connecting.cancel()

    # --- the connection

    async def _connect(self, context: ssl.SSLContext) -> None:
        endpoint = self.endpoint
        family_is_6 = ":" in endpoint.address
        source = next((text for text in self._tunnels.sources.values() if (":" in text) == family_is_6), None)
        try:
            await self._loop.create_connection(
                lambda: self,
                endpoint.address,
                endpoint.port,
                ssl=context,
                server_hostname=endpoint.name.rstrip("."),
                local_addr=(source, 0) if source else None,
            )
        except ssl.SSLError as error:
            problem = getattr(error, "verify_message", None) or (error.reason or "no handshake").lower()
            self._fail(FailureReason.TLS_FAILED, problem=problem)
        except (OSError, ValueError) as error:  # ValueError: DNS may have any name
            is_name = isinstance(error, ValueError)
            self._fail(FailureReason.TLS_FAILED if is_name else failure_of(error))  # type: ignore[arg-type]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the handshake of the WebSocket."""
        self._transport = transport  # type: ignore[assignment] # a stream's
        tls = transport.get_extra_info("ssl_object")
        if not self._tunnels.tls.has_pinned_key(tls, self.endpoint.name):
            self._fail(FailureReason.TLS_FAILED, problem="the certificate has no pinned key")
            return
        request = self._protocol.connect()
        self._protocol.send_request(request)
        self._write_handshake()

    def _write_handshake(self) -> None:
        assert self._transport
        for data in self._protocol.data_to_send():
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Take data in: the response to the handshake, then frames."""
        self._heard_at = self._loop.time()
        if self._socket:
            self._end_test()
            self._socket.receive(data)
            return
        self._head += data
        head, end, rest = bytes(self._head).partition(_END_OF_HEAD)
        if end:
            self._open(head + end, rest)
        elif len(self._head) > MAX_HEAD_BYTES:
            self._fail(FailureReason.NOT_A_KDC_PROXY, problem="a response without an end")

    def _open(self, head: bytes, rest: bytes) -> None:
        """Begin with frames, if the response accepts the tunnel."""
        status = head.split(b" ", 2)[1] if head.startswith(b"HTTP/1.1 ") else b""
        if status != b"%d" % HTTPStatus.SWITCHING_PROTOCOLS:
            number = int(status) if status.isdigit() else None
            reason = REFUSALS.get(number or 0, FailureReason.NOT_A_KDC_PROXY)
            self._fail(reason, status=number, problem="the proxy opens no tunnel")
            return
        self._protocol.receive_data(head)
        self._protocol.events_received()
        problem = self._protocol.handshake_exc
        if isinstance(problem, InvalidHandshake) or self._protocol.subprotocol != tunnel.SUBPROTOCOL:
            self._fail(FailureReason.NOT_A_KDC_PROXY, problem=str(problem or "no subprotocol kkdcp.v1"))
            return
        assert self._transport
        self._socket = WebSocket(self._protocol, self._transport, self)
        if rest:
            self._socket.receive(rest)
        self._report_ready()

    def _end_test(self) -> None:
        if self._test:
            self._test.cancel()
            self._test = None
            self._report_ready()

    def _report_ready(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for attempt in waiting:
            attempt.ready()

    def eof_received(self) -> None:
        """Handle the end of the proxy's data."""
        if self._socket:
            self._socket.receive_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Report the end to all attempts."""
        if isinstance(exc, ConnectionResetError):
            self._failure = FailureReason.RESET
        if self._socket:
            self._socket.stop()
        self._finish()

    def _abort(self) -> None:
        if self._transport:
            self._transport.abort()
        self._finish()

    def _fail(self, reason: FailureReason, *, status: int | None = None, problem: str | None = None) -> None:
        self._failure = reason
        if problem:
            log_kdc_proxy_failure(self.endpoint, reason, status=status, problem=problem)
        self._abort()

    def _finish(self) -> None:
        """Report the end once. Attempts that wait for a tunnel that was open may have another one."""
        if self._is_over:
            return
        self._is_over = True
        self._tunnels.forget(self)
        if self._test:
            self._test.cancel()
        waiting, self._waiting = self._waiting, set()
        exchanges, self._exchanges = self._exchanges, {}
        for attempt in waiting:
            if self._socket:
                attempt.untaken(self._failure)
            else:
                attempt.not_opened(self._failure)
        for attempt in exchanges.values():
            attempt.lost(self._failure)

    # --- events of the WebSocket

    def message_received(self, message: bytes) -> None:
        """Take a frame of the proxy."""
        try:
            event = self._requester.receive(message)
        except MalformedError as error:
            log_kdc_proxy_failure(self.endpoint, FailureReason.BAD_REPLY, status=None, problem=str(error))
            self._failure = FailureReason.BAD_REPLY
            self._tunnels.forget(self)
            if self._socket:
                self._socket.close(CloseCode.PROTOCOL_ERROR, str(error))
            self._finish()
            return
        match event:
            case Replied() if event.number in self._exchanges:
                self._exchanges.pop(event.number).replied(event.envelope)
            case Refused() if event.number in self._exchanges:
                self._exchanges.pop(event.number).refused(event.refusal)
            case GoneAway():
                self._tunnels.forget(self)
                for number in event.untouched:
                    if number in self._exchanges:
                        self._exchanges.pop(number).untaken(FailureReason.PROXY_UNAVAILABLE)

    def heartbeat(self) -> None:
        """Close a tunnel that is not used."""
        unused = self._loop.time() - self._used_at
        if self._requester.is_idle and not self._waiting and unused > self._tunnels.options.idle_timeout:
            self.close()
