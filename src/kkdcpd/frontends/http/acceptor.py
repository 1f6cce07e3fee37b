"""Accepts connections: enforces their limits, learns their clients' addresses and makes the TLS handshake.

asyncio's own servers do not report failed handshakes, and have no step before TLS for the connection limits
and the PROXY header. A way in gets an `Arrival` for each connection.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address

from kkdcpd.config import ConnectionsConfig
from kkdcpd.errors import MalformedError
from kkdcpd.frontends.http.arrival import UNIX_PEER, Arrival, RefusedError, client_of
from kkdcpd.frontends.http.before_tls import read_proxy_header, wait_for_hello
from kkdcpd.frontends.http.connection_limits import ConnectionLimits
from kkdcpd.frontends.http.handshake import log_failure
from kkdcpd.frontends.http.listening import Entrance, Listener
from kkdcpd.guard.limits import HandshakeRate
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.columns import Handshake
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol.ip_addresses import network_of
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.values import ClientConnection, ConnectionRefusal

__all__ = ["Acceptor", "Arrival", "Listener"]

logger = EventLogger(__name__)

MIN_HANDSHAKE_SECONDS = 0.1
"""The time for the TLS handshake if the PROXY header took all of it."""

EAGER_HANDSHAKES = 64
"""So many handshakes at a time begin before their first message is there, which saves a wait. Each may
take 200 KiB until the message is whole. The others leave it in the kernel's buffer."""


class Acceptor:
    """Accepts connections until it is closed. `connections` has their limits."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        connections: ConnectionsConfig,
        counts: NetworkCounts,
        *,
        handshake_timeout: float,
        counters: Counters,
        make_connection: Callable[[Arrival], asyncio.BaseProtocol],
        handshake_rate: HandshakeRate | None = None,
    ) -> None:
        self._listeners = listeners
        self._trusted = connections.trusted_proxies
        self.connections = ConnectionLimits(counts, connections, counters)
        self._handshake_rate = handshake_rate
        self._counters = counters
        self._handshakes = 0
        self._handshake_timeout = handshake_timeout
        self._write_milliseconds = round(connections.write_timeout * 1000)
        self._make_connection = make_connection
        self._is_closing = asyncio.Event()

    async def keep(self) -> None:
        """Accept on every listener until `close`. Then complete the handshakes that have begun.

        Cancelling this ends handshakes that are under way, and no connection.
        """
        async with asyncio.TaskGroup() as tasks:
            receive = partial(self._receive, tasks)
            entrances = [Entrance(listener, receive) for listener in self._listeners]
            try:
                await self._is_closing.wait()
                for entrance in entrances:
                    await entrance.accept_rest()
            finally:
                for entrance in entrances:
                    entrance.close()

    def close(self) -> None:
        """Accept the connections in the backlog, and close the listeners.

        If another process listens on the same sockets, it accepts later connections. Else they are refused.
        """
        self._is_closing.set()

    def _receive(
        self, tasks: asyncio.TaskGroup, sock: socket.socket, peer: object, listener: Listener
    ) -> None:
        """Count an accepted connection and welcome it, or refuse it at once."""
        client = client_of(peer)
        arrival = Arrival(
            sock,
            client,
            self.connections,
            asyncio.get_running_loop().time() + self._handshake_timeout,
            is_trusted_proxy=self._is_trusted(client),
        )
        try:
            if listener.proxy_protocol:
                arrival.must_be_trusted_proxy()
            else:
                self._check_handshake_rate(arrival, listener)
            arrival.enter()
        except RefusedError as refusal:
            self._refuse(arrival, refusal)
            return
        if client.address != UNIX_PEER:
            # The client has this time to take the kernel's bytes, even after the connection's end.
            with contextlib.suppress(OSError):  # MPTCP on older kernels has no such option.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._write_milliseconds)
        arrival.welcome = tasks.create_task(self._welcome(arrival, listener), name="welcome")

    def _check_handshake_rate(self, arrival: Arrival, listener: Listener) -> None:
        if self._handshake_rate is None or listener.tls_context is None or arrival.is_trusted_proxy:
            return
        if not self._handshake_rate.admits(arrival.networks):
            raise RefusedError(ConnectionRefusal.HANDSHAKE_RATE)

    def _refuse(self, arrival: Arrival, refusal: RefusedError) -> None:
        arrival.turn_away()
        self._counters.connection_refused(refusal.reason)
        _log_refused(arrival.client, refusal)

    def _is_trusted(self, client: ClientConnection) -> bool:
        """Whether the peer may name its client. Each peer that may write to our unix socket may."""
        if client.address == UNIX_PEER:
            return True
        if not self._trusted:
            return False
        address = ip_address(client.address)
        return any(address in network for network in self._trusted)

    async def _welcome(self, arrival: Arrival, listener: Listener) -> None:
        """Complete the PROXY header and the TLS handshake, and give the connection to the way in."""
        try:
            if listener.proxy_protocol:
                await self._learn_client(arrival)
                self._check_handshake_rate(arrival, listener)
            if listener.tls_context and self._handshakes >= EAGER_HANDSHAKES:
                async with asyncio.timeout_at(arrival.deadline):
                    await wait_for_hello(arrival.socket)
            await self._hand_over(arrival, listener)
        except RefusedError as refusal:
            self._refuse(arrival, refusal)
        except OSError as error:
            arrival.turn_away()
            is_failed = isinstance(error, ssl.SSLError) and error.reason is not None
            self._counters.shook_hands(Handshake.FAILED if is_failed else Handshake.BROKEN_OFF)
            log_failure(arrival.client, error)
        except BaseException:
            arrival.turn_away()
            raise

    async def _hand_over(self, arrival: Arrival, listener: Listener) -> None:
        """Make the TLS handshake, and then the way in's protocol."""
        loop = asyncio.get_running_loop()
        timeout = None
        if listener.tls_context:
            timeout = max(arrival.deadline - loop.time(), MIN_HANDSHAKE_SECONDS)
        self._counters.connection_opened()
        self._handshakes += 1
        try:
            await loop.connect_accepted_socket(
                partial(self._make_connection, arrival),
                arrival.socket,
                ssl=listener.tls_context,
                ssl_handshake_timeout=timeout,
            )
        finally:
            self._handshakes -= 1

    async def _learn_client(self, arrival: Arrival) -> None:
        """Read the PROXY header, and count the connection for the client that it names."""
        try:
            async with asyncio.timeout_at(arrival.deadline):
                header = await read_proxy_header(arrival.socket)
        except MalformedError as error:
            raise RefusedError(ConnectionRefusal.PROXY_HEADER, str(error)) from error
        if header.address is None:
            return
        proxy = arrival.client.address
        # Until now the connection counted for the proxy.
        arrival.leave()
        network = network_of(header.address)
        arrival.client = ClientConnection(
            address=header.address, port=header.port, network=network, proxy=proxy
        )
        arrival.is_trusted_proxy = self._is_trusted(arrival.client)
        arrival.enter()


def _log_refused(client: ClientConnection, refusal: RefusedError) -> None:
    reason = str(refusal)
    logger.warning(
        "connections_refused",
        sum_by=("connections_refused", reason),
        client=client.address,
        reason=reason,
        proxy=client.proxy,
        detail=refusal.detail or None,
    )
