"""Passes a connection to another protocol after an HTTP request (RFC 9110 7.8, 101 Switching Protocols)."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from kkdcpd.frontends.http.acceptor import Arrival
from kkdcpd.frontends.http.wire import Owner, Wire, receive_buffer
from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger
from kkdcpd.values import ConnectionActivity

__all__ = ["Successor", "TakenOver", "Upgrade"]

logger = EventLogger(__name__)


class Successor(Protocol):
    """The protocol that serves a connection after HTTP. Its methods are those of asyncio.Protocol."""

    @property
    def activity(self) -> ConnectionActivity:
        """What the connection does at this moment: to make room, an idle one is closed first."""
        ...

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take the connection over. The response 101 is written."""

    def data_received(self, data: bytes) -> None:
        """Take bytes in. The first call has the bytes that came behind the request, if there are any."""

    def eof_received(self) -> None:
        """Handle the end of the client's data. The connection closes after this call."""

    def pause_writing(self) -> None:
        """Write no more: the client does not read. It has `connections.write_timeout` to read everything."""

    def resume_writing(self) -> None:
        """Write again."""

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release everything: the connection has ended."""


@frozen
class Upgrade:
    """The answer to a request that ends HTTP on its connection: status 101 with these headers."""

    headers: tuple[tuple[str, str], ...]
    successor: Successor


class TakenOver(Owner):
    """A connection after its take-over: keeps the limits of the transport, and calls the successor.

    The connection still counts for its client, can be evicted, and its client must read what is sent. All
    limits on the bytes that come in are the successor's. `on_end` is called when the connection is lost.
    """

    __slots__ = ("_arrival", "_on_end", "_successor", "_wire")

    def __init__(
        self, arrival: Arrival, successor: Successor, on_end: Callable[["TakenOver"], object]
    ) -> None:
        self._arrival = arrival
        self._successor = successor
        self._on_end = on_end
        self._wire: Wire[TakenOver] | None = None

    def begin(self, wire: Wire[Any], ahead: bytes) -> None:
        """Let the successor have the connection, and the bytes that came behind the request."""
        self._wire = wire.pass_on(self)
        self._arrival.begin(self)
        self._successor.connection_made(self._wire)
        if ahead:
            self._successor.data_received(ahead)

    @property
    def activity(self) -> ConnectionActivity:
        """What the connection does at this moment, for the acceptor."""
        is_reply_unread = self._wire is not None and self._wire.is_paused
        return ConnectionActivity.SERVING if is_reply_unread else self._successor.activity

    def end(self) -> None:
        """Give the client its time to read the rest."""
        if self._wire:
            self._wire.close_within_write_timeout()

    def close(self) -> None:
        """Close the connection, because the process stops."""
        if self._wire:
            self._wire.close()

    def cut_off(self, reason: str) -> None:
        """Abort the connection."""
        if self._wire:
            client = self._arrival.client
            logger.debug("connection_aborted", client=client.address, port=client.port, reason=reason)
            self._wire.reset()

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what was received, unless the connection is being closed."""
        if self._wire and not self._wire.is_closing():
            self._successor.data_received(bytes(receive_buffer[:nbytes]))

    def eof_received(self) -> bool:
        """Let the connection end: no protocol that is used here has a half-close."""
        self._successor.eof_received()
        return False

    def pause_writing(self) -> None:
        """Start the client's time to read."""
        if self._wire and self._wire.pause():
            self._successor.pause_writing()

    def resume_writing(self) -> None:
        """Go on when everything is sent."""
        if self._wire and self._wire.resume():
            self._successor.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave the count of connections."""
        if self._wire:
            self._wire.stop_deadlines()
            self._wire = None
        self._arrival.leave()
        self._on_end(self)
        self._successor.connection_lost(exc)
