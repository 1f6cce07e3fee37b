"""A connection from its accept to its end, as the acceptor and the connection limits know it."""

import asyncio
import socket
from typing import Protocol

from kkdcpd.frontends.http.connection_limits import PROXIES, ConnectionLimits
from kkdcpd.log.events import EventLogger
from kkdcpd.protocol.ip_addresses import network_of, networks_of, parse_address
from kkdcpd.values import ClientConnection, ConnectionActivity, ConnectionRefusal

__all__ = ["UNIX_PEER", "Arrival", "Occupant", "RefusedError", "client_of"]

logger = EventLogger(__name__)

UNIX_PEER = "unix"


class RefusedError(Exception):
    """A connection is refused for this reason. `detail` is about this connection alone."""

    def __init__(self, reason: ConnectionRefusal, detail: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason.value)


class Occupant(Protocol):
    """The object that serves a connection, which may have to make room for another one."""

    @property
    def activity(self) -> ConnectionActivity:
        """The activity at this moment."""
        ...

    def cut_off(self, reason: str) -> None:
        """Close the connection at once, and drop the bytes that it holds."""
        ...


class Arrival:
    """A connection: its socket, its client, and its entry in the connection limits.

    `is_trusted_proxy` is true of a client that may name another client. The way in calls `begin` when it
    serves the connection, and `leave` at the connection's end. `welcome` is the task until `begin`.
    """

    __slots__ = ("_limits", "_occupant", "client", "deadline", "is_trusted_proxy", "socket", "welcome")

    def __init__(
        self,
        sock: socket.socket,
        client: ClientConnection,
        limits: ConnectionLimits,
        deadline: float,
        *,
        is_trusted_proxy: bool,
    ) -> None:
        self.socket = sock
        self.client = client
        self.deadline = deadline
        self.is_trusted_proxy = is_trusted_proxy
        self.welcome: asyncio.Task[None] | None = None
        self._limits = limits
        self._occupant: Occupant | None = None

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks that the connection counts for. The many clients behind a proxy count together."""
        return PROXIES if self.is_trusted_proxy else networks_of(self.client.address)

    @property
    def activity(self) -> ConnectionActivity:
        """The activity at this moment. Until `begin`, the handshake is incomplete."""
        return self._occupant.activity if self._occupant else ConnectionActivity.RECEIVING

    def must_be_trusted_proxy(self) -> None:
        """Refuse all other clients.

        Raises:
            RefusedError: the client is no trusted proxy.
        """
        if not self.is_trusted_proxy:
            raise RefusedError(ConnectionRefusal.NO_TRUSTED_PROXY)

    def enter(self) -> None:
        """Count the connection for its client's networks.

        Raises:
            RefusedError: a limit is reached, and no other connection can be closed.
        """
        refusal = self._limits.enter(self, self.networks)
        if refusal:
            raise RefusedError(refusal)

    def begin(self, occupant: Occupant) -> None:
        """Note the object that serves the connection from now on."""
        self._occupant = occupant

    def leave(self) -> None:
        """Stop counting the connection. Further calls do nothing."""
        self._limits.leave(self)
        self._occupant = None

    def turn_away(self) -> None:
        """End the connection before a way in serves it."""
        self.socket.close()
        self.leave()

    def evict(self, reason: ConnectionRefusal) -> None:
        """End the connection to make room for another one, in its handshake or while it waits."""
        self._limits.count_eviction(self)
        _log_evicted(self.client, reason, self.activity)
        occupant = self._occupant
        self.leave()
        if occupant:
            occupant.cut_off("evicted")
        elif self.welcome:
            self.welcome.cancel()
            # A task that is cancelled before its first step runs none of its code.
            self.welcome.add_done_callback(lambda _: self.turn_away())


def _log_evicted(client: ClientConnection, reason: ConnectionRefusal, activity: ConnectionActivity) -> None:
    logger.warning(
        "connection_evicted",
        sum_by=("connection_evicted", reason.value),
        client=client.address,
        reason=reason.value,
        activity=activity.value,
    )


def client_of(peer: object) -> ClientConnection:
    """Return the client at the other end of a socket, from the address that accept returns."""
    if isinstance(peer, tuple):
        # The kernel writes each IPv4 address in one way. Dual-stack sockets map IPv4 clients to IPv6.
        address = peer[0] if len(peer) == 2 else str(parse_address(peer[0]))
        return ClientConnection(address=address, port=peer[1], network=network_of(address))
    return ClientConnection(address=UNIX_PEER, network=UNIX_PEER)
