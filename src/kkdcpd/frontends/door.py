"""The door: accepts sockets, sees them through the TLS handshake, and hands them to a way in.

We accept ourselves, since asyncio's own servers neither tell who failed a handshake and why, nor leave room
for what has to come before TLS.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Door", "Listener"]

logger = logging.getLogger(__name__)

ACCEPT_RETRY_SECONDS = 1.0
"""The pause after a failed accept: descriptors or memory are short, and only time brings them back."""

_HINTS = {
    "HTTP_REQUEST": "plain HTTP on a TLS port",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust our certificate's issuer: check its http_anchors",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refuses our certificate: check the name in its URL",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client finds our certificate expired: check both clocks",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client refuses our certificate: check the name in its URL",
    "UNSUPPORTED_PROTOCOL": "the client's TLS version is older than tls.minimum_version",
    "WRONG_VERSION_NUMBER": "this is not TLS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A listening socket, non-blocking, and whether TLS is spoken on it. `url` is for the log."""

    socket: socket.socket
    url: str
    tls: bool


class Door:
    """Lets connections in until it is cancelled."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        *,
        tls_context: ssl.SSLContext | None,
        handshake_timeout: float,
        make_connection: Callable[[], asyncio.Protocol],
    ) -> None:
        self._listeners = listeners
        self._tls_context = tls_context
        self._handshake_timeout = handshake_timeout
        self._make_connection = make_connection

    async def keep(self) -> None:
        """Accept on every listener; cancelling this ends handshakes that are under way, not connections."""
        async with asyncio.TaskGroup() as tasks:
            for listener in self._listeners:
                tasks.create_task(self._accept(listener, tasks), name=f"accept {listener.url}")

    def close(self) -> None:
        """Close the listeners: clients are refused from now on, where else they would wait to be accepted."""
        for listener in self._listeners:
            listener.socket.close()

    async def _accept(self, listener: Listener, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(listener.socket)
            except OSError as error:
                logger.warning(
                    "accept failed", extra={"fields": {"listen": listener.url, "reason": str(error)}}
                )
                await asyncio.sleep(ACCEPT_RETRY_SECONDS)
                continue
            tasks.create_task(self._welcome(sock, peer, listener), name=f"welcome {peer}")

    async def _welcome(self, sock: socket.socket, peer: object, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        try:
            if listener.tls:
                await loop.connect_accepted_socket(
                    self._make_connection,
                    sock,
                    ssl=self._tls_context,
                    ssl_handshake_timeout=self._handshake_timeout,
                )
            else:
                await loop.connect_accepted_socket(self._make_connection, sock)
        except OSError as error:
            sock.close()
            _log_handshake(peer, error)


def _log_handshake(peer: object, error: OSError) -> None:
    """Say why a handshake failed; that somebody only knocked is nothing to tell."""
    fields: dict[str, object] = {}
    if isinstance(peer, tuple):
        fields |= {"client": peer[0], "port": peer[1]}
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason is None:
        logger.debug("tls handshake broken off", extra={"fields": fields | {"reason": str(error)}})
        return
    fields["reason"] = reason
    if reason in _HINTS:
        fields["hint"] = _HINTS[reason]
    logger.info("tls handshake failed", extra={"fields": fields})
