"""The WebSocket way in: `GET /KdcTunnel`, then frames of the tunnel protocol (docs/tunnel.md).

The upgrade is a request on an HTTP connection. After it, each frame with a message is a request of its own:
the guard, the access log and the metrics treat it as a POST.
"""

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import time
from collections.abc import Sequence

from aiohttp import hdrs
from websockets.datastructures import Headers
from websockets.exceptions import InvalidOrigin
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import Protocol, Side
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from kkdcpd.config import Config
from kkdcpd.errors import MalformedError
from kkdcpd.frontends.http import responses
from kkdcpd.frontends.http.bridge import Head
from kkdcpd.frontends.http.connection import Connection
from kkdcpd.frontends.http.paths import Paths
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.http.takeover import Upgrade
from kkdcpd.log.events import EventLogger
from kkdcpd.pipeline.pipeline import IncomingRequest, Pipeline
from kkdcpd.protocol import framing, kkdcp, messages, tunnel
from kkdcpd.protocol.tunnel import Responder, TunnelRequest
from kkdcpd.values import (
    ClientConnection,
    ConnectionActivity,
    Outcome,
    ProxyMessage,
    ProxyRequest,
    RequestResult,
)
from kkdcpd.websocket import WebSocket

__all__ = ["TunnelFrontend"]

logger = EventLogger(__name__)


class TunnelFrontend:
    """Serves the upgrades to the tunnel, and the requests in all tunnels of this process."""

    def __init__(self, config: Config, pipeline: Pipeline) -> None:
        self.config = config.tunnel
        self._origins = (None, *map(Origin, config.http.cors_origins))
        self._max_body_bytes = config.http.max_body_bytes
        self.pipeline = pipeline
        self.paths = Paths(config.tunnel.paths, takes_tokens=any(realm.tokens for realm in config.realms))
        self._tunnels: set[_Tunnel] = set()
        self._is_draining = False

    async def upgrade(
        self, request: Head, connection: Connection, client: ClientConnection
    ) -> Response | Upgrade:
        """Answer the request for a tunnel. `client` may be behind a trusted proxy."""
        path = self.paths.find(request.path)
        assert path
        offered = _offered_protocols(request)
        token = path.token or _token_among(offered)
        if token:
            client = dataclasses.replace(client, token=token)
        if self._is_draining:
            return self._refuse(client, Outcome.OVERLOADED, "kkdcpd stops or reloads: connect again")
        if not connection.can_upgrade():
            return self._refuse(client, Outcome.MALFORMED_HTTP, "an upgrade needs HTTP/1.1 and no body")
        handshake = ServerProtocol(
            origins=self._origins,
            subprotocols=[Subprotocol(tunnel.SUBPROTOCOL)],
        )
        response = handshake.accept(Request(request.path, Headers(request.headers.items())))
        if response.status_code != 101:
            error = handshake.handshake_exc
            outcome = Outcome.REFUSED if isinstance(error, InvalidOrigin) else Outcome.MALFORMED_HTTP
            return self._refuse(client, outcome, str(error))
        headers = tuple(
            (name, value) for name, value in response.headers.raw_items() if name in _UPGRADE_HEADERS
        )
        # The handshake's own reader expects the request in bytes, so the frames have a reader of their own.
        frames = Protocol(Side.SERVER, max_size=self._max_body_bytes + tunnel.HEADER_BYTES)
        return Upgrade(headers=headers, successor=_Tunnel(self, frames, client))

    def _refuse(self, client: ClientConnection, outcome: Outcome, detail: str) -> Response:
        return self.pipeline.end(_UpgradeRequest(client), RequestResult(outcome=outcome, detail=detail))

    def begin(self, opened: "_Tunnel") -> None:
        """Count a tunnel that has opened."""
        self._tunnels.add(opened)
        if self._is_draining:
            opened.go_away()

    def leave(self, closed: "_Tunnel") -> None:
        """Forget a tunnel that has closed."""
        self._tunnels.discard(closed)

    def drain(self) -> None:
        """Close each tunnel after its requests in flight. Its client learns which requests were not taken."""
        self._is_draining = True
        for each in [*self._tunnels]:
            each.go_away()


_TOKEN_PREFIX = "kkdcp.token."  # noqa: S105 - the tokens follow it
"""A token follows in the base64 of URLs (RFC 4648 5), without padding."""

_UPGRADE_HEADERS = frozenset({hdrs.UPGRADE, hdrs.SEC_WEBSOCKET_ACCEPT, hdrs.SEC_WEBSOCKET_PROTOCOL})


class _Tunnel:
    """One tunnel: a `Successor` of the HTTP connection."""

    def __init__(self, frontend: TunnelFrontend, protocol: Protocol, client: ClientConnection) -> None:
        self._frontend = frontend
        self._protocol = protocol
        self._client = client
        self._responder = Responder(frontend.config.max_exchanges)
        self._socket: WebSocket | None = None
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests = 0
        self._opened_at = self._used_at = time.monotonic()
        self._is_going_away = False

    @property
    def activity(self) -> ConnectionActivity:
        """What the tunnel does at this moment."""
        return ConnectionActivity.IDLE if self._responder.is_idle else ConnectionActivity.SERVING

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin: the upgrade is written."""
        self._transport = transport
        self._socket = WebSocket(self._protocol, transport, self)
        self._frontend.begin(self)

    def data_received(self, data: bytes) -> None:
        """Take data in."""
        if self._socket:
            self._socket.receive(data)

    def eof_received(self) -> None:
        """Handle the end of the client's data."""
        if self._socket:
            self._socket.receive_eof()

    def pause_writing(self) -> None:
        """Take no further requests of a client that does not read its replies."""
        if self._transport:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Take requests again."""
        if self._transport:
            self._transport.resume_reading()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Abandon the requests in flight, as if each had come with a POST whose client has left."""
        del exc
        if self._socket:
            self._socket.stop()
            self._socket = None
        self._frontend.leave(self)
        for task in self._tasks:
            task.cancel()
        logger.info(
            "tunnel_closed",
            client=self._client.address,
            port=self._client.port or None,
            requests=self._requests,
            seconds=round(time.monotonic() - self._opened_at, 1),
            reason=self._protocol.close_reason or None,
        )

    # -- Messages --------------------------------------------------------------------------------------------

    def message_received(self, message: bytes) -> None:
        """Serve the request in a message."""
        try:
            request = self._responder.receive(message)
        except MalformedError as error:
            self._close(CloseCode.PROTOCOL_ERROR, str(error))
            return
        if request:
            self._requests += 1
            self._used_at = time.monotonic()
            task = asyncio.get_running_loop().create_task(self._serve(request), name="tunnel request")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: TunnelRequest) -> None:
        incoming = _TunnelRequest(self._client, request, self._responder)
        incoming.on_sent = lambda: self._send(self._responder.accept(request.number))
        self._send(await self._frontend.pipeline.serve(incoming))
        if self._is_going_away and self._responder.is_idle:
            self._close(CloseCode.GOING_AWAY, "")

    def heartbeat(self) -> None:
        """Close a tunnel that is not used."""
        unused = time.monotonic() - self._used_at
        if self._responder.is_idle and unused > self._frontend.config.idle_timeout:
            self._close(CloseCode.NORMAL_CLOSURE, "idle")

    def go_away(self) -> None:
        """Take no more requests, and close after those in flight."""
        self._is_going_away = True
        self._send(self._responder.go_away())
        if self._responder.is_idle:
            self._close(CloseCode.GOING_AWAY, "")

    def _send(self, frame: bytes) -> None:
        if self._socket:
            self._socket.send(frame)

    def _close(self, code: CloseCode, reason: str) -> None:
        if self._socket:
            self._socket.close(code, reason)


class _TunnelRequest(IncomingRequest[bytes]):
    """A request in a tunnel. Its response is a frame."""

    __slots__ = ("_message", "_responder")

    def __init__(self, client: ClientConnection, message: TunnelRequest, responder: Responder) -> None:
        super().__init__(client)
        self._message = message
        self._responder = responder
        self.bytes_in = len(message.envelope)

    async def read(self) -> ProxyRequest:
        """Decode the message."""
        return messages.classify(kkdcp.decode_proxy_message(self._message.envelope))

    def respond(self, result: RequestResult, payload: bytes | None) -> bytes:
        """Build the frame: a reply, or a refusal with the status that a POST would get."""
        number = self._message.number
        if payload is None:
            response = responses.refuse(result.outcome, self.id, result.refusal)
            self.status = response.status
            frame = self._responder.refuse(number, _refusal(response, result))
        else:
            self.status = 200
            message = ProxyMessage(kerb_message=framing.add_prefix(payload))
            frame = self._responder.reply(number, kkdcp.encode_proxy_message(message))
        self.bytes_out = len(frame) - tunnel.HEADER_BYTES
        return frame


class _UpgradeRequest(IncomingRequest[Response]):
    """A request for a tunnel that is refused."""

    __slots__ = ()

    async def read(self) -> ProxyRequest:
        """There is no message."""
        raise NotImplementedError

    def respond(self, result: RequestResult, payload: bytes | None) -> Response:
        """Build the response. The connection closes, so that the limit of handshakes holds for upgrades."""
        del payload
        response = dataclasses.replace(responses.refuse(result.outcome, self.id, result.refusal), closes=True)
        self.status = response.status
        self.bytes_out = len(response.body)
        return response


def _refusal(response: Response, result: RequestResult) -> tunnel.Refusal:
    return tunnel.Refusal(
        status=response.status,
        may_be_delivered=result.may_be_delivered,
        retry_after=int(dict(response.headers).get("Retry-After", 0)),
        text=response.body.decode().strip(),
    )


def _offered_protocols(request: Head) -> Sequence[str]:
    values = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ())
    return [name.strip() for value in values for name in value.split(",")]


def _token_among(offered: Sequence[str]) -> bytes | None:
    """Return the digest of the token that a browser offers beside the subprotocol: it can set no header."""
    for name in offered:
        if name.startswith(_TOKEN_PREFIX):
            encoded = name.removeprefix(_TOKEN_PREFIX)
            with contextlib.suppress(ValueError):
                return hashlib.sha256(base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))).digest()
    return None
