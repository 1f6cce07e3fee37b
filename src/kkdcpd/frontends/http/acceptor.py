"""Accepts connections, enforces their limits, learns their clients' addresses and makes the TLS handshake.

We accept ourselves, since asyncio's own servers neither tell which handshake failed and why, nor leave room
for all that comes before TLS: the limits on connections, and the PROXY header. A way in gets an `Arrival`.
"""

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address
from typing import Protocol

from kkdcpd.config import ConnectionsConfig
from kkdcpd.errors import MalformedError
from kkdcpd.frontends.http.connection_limits import PROXIES, ConnectionLimits
from kkdcpd.frontends.http.tls_advice import ADVICE
from kkdcpd.frozen import frozen
from kkdcpd.guard.limits import HandshakeRate
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.columns import Handshake
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol import client_hello, proxy_header
from kkdcpd.protocol.ip_addresses import network_of, networks_of, parse_address
from kkdcpd.protocol.proxy_header import ProxyHeader
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.values import ClientConnection, ConnectionActivity, ConnectionRefusal

__all__ = ["Acceptor", "Arrival", "Listener", "Occupant"]

logger = EventLogger(__name__)

UNIX_PEER = "unix"

ACCEPT_RETRY_SECONDS = 0.5
"""The pause after a failed accept: descriptors or memory are short, and only time brings them back."""

MOST_WAITING = 1024
"""Connections that the kernel's queue of a listener holds, and some that come while it is emptied."""

MIN_HANDSHAKE_SECONDS = 0.1
"""What the TLS handshake has where a PROXY header took all of the time."""

EAGER_HANDSHAKES = 64
"""So many handshakes at a time begin before their ClientHello is there, which saves a wait. Each of them may
take 200 KiB until it is whole; the others leave it in the kernel's buffer."""

_FAILED_BEFORE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR}
"""Accept fails with these for one connection alone: the next one may be sound."""


@frozen
class Listener:
    """A listening socket, non-blocking; the TLS spoken on it, if any. `url` is for the log.

    With `proxy_protocol`, only trusted proxies may connect, and each connection begins with a PROXY header.
    """

    socket: socket.socket
    url: str
    tls_context: ssl.SSLContext | None = None
    proxy_protocol: bool = False


class _RefusedError(Exception):
    """A connection isn't let in: for what reason, of a few, and what is special about this one."""

    def __init__(self, reason: ConnectionRefusal, detail: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason.value)


class Occupant(Protocol):
    """The way in's part of a connection, as the acceptor asks it when it needs room for another one."""

    @property
    def activity(self) -> ConnectionActivity:
        """What the connection does at this moment."""
        ...

    def cut_off(self, reason: str) -> None:
        """Close the connection at once, whatever it holds."""
        ...


class Arrival:
    """A connection from its accept to its end: its socket, its client, and its place among the others.

    `is_trusted_proxy` is true of a client that may name another one. The way in calls `begin` when it takes
    the connection over, and `leave` at the connection's end.
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
        """The networks that the connection counts for. A proxy has many clients behind it, and one limit."""
        return PROXIES if self.is_trusted_proxy else networks_of(self.client.address)

    @property
    def activity(self) -> ConnectionActivity:
        """What the connection does at this moment."""
        return self._occupant.activity if self._occupant else ConnectionActivity.RECEIVING

    def must_be_trusted_proxy(self) -> None:
        """Refuse the others."""
        if not self.is_trusted_proxy:
            raise _RefusedError(ConnectionRefusal.NO_TRUSTED_PROXY)

    def enter(self) -> None:
        """Count the connection for its client's networks."""
        refusal = self._limits.enter(self, self.networks)
        if refusal:
            raise _RefusedError(refusal)

    def begin(self, occupant: Occupant) -> None:
        """Learn which object serves the connection from now on."""
        self._occupant = occupant

    def leave(self) -> None:
        """Stop counting the connection; more than once does no harm."""
        self._limits.leave(self)
        self._occupant = None

    def turn_away(self) -> None:
        """End the connection before a way in serves it."""
        self.socket.close()
        self.leave()

    def evict(self, reason: ConnectionRefusal) -> None:
        """End the connection to make room for another one, in its handshake or while it waits."""
        self._limits.count_eviction(self)
        _tell_evicted(self.client, reason, self.activity)
        occupant = self._occupant
        self.leave()
        if occupant:
            occupant.cut_off("evicted")
        elif self.welcome:
            self.welcome.cancel()
            # A task that is cancelled before its first step does not clean up itself.
            self.welcome.add_done_callback(lambda _: self.turn_away())


def _tell_evicted(client: ClientConnection, reason: ConnectionRefusal, activity: ConnectionActivity) -> None:
    logger.warning(
        "connection_evicted",
        sum_by=("connection_evicted", reason.value),
        client=client.address,
        reason=reason.value,
        activity=activity.value,
    )


def _tell_refused(client: ClientConnection, refusal: _RefusedError) -> None:
    reason = str(refusal)
    logger.warning(
        "connections_refused",
        sum_by=("connections_refused", reason),
        client=client.address,
        reason=reason,
        proxy=client.proxy,
        detail=refusal.detail or None,
    )


class _Entrance:
    """Accepts on one listener, one connection at a time, as another worker may be idle.

    No accept is waited for: one that is cancelled may lose the connection that has come.
    """

    def __init__(
        self, listener: Listener, receive: Callable[[socket.socket, object, Listener], None]
    ) -> None:
        self._listener = listener
        self._receive = receive
        self._is_short = False
        self._pause: asyncio.TimerHandle | None = None
        self._open()

    async def accept_rest(self) -> None:
        """Let in all that wait in the kernel's queue: the kernel resets them when the socket is closed.

        Those that come meanwhile may be endless; the queue is not.
        """
        with contextlib.suppress(OSError):
            for _ in range(MOST_WAITING):
                self._let_in(*self._listener.socket.accept())
                # Those that were closed meanwhile leave before the next one enters.
                await asyncio.sleep(0)

    def close(self) -> None:
        """Accept no more, and close the listener."""
        if self._pause:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._listener.socket)
        self._listener.socket.close()

    def _open(self) -> None:
        asyncio.get_running_loop().add_reader(self._listener.socket, self._accept)

    def _accept(self) -> None:
        try:
            sock, peer = self._listener.socket.accept()
        except BlockingIOError:
            return  # another worker has it
        except OSError as error:
            if error.errno not in _FAILED_BEFORE:
                self._run_short(error)
            return
        if self._is_short:
            _tell_accept_works(self._listener)
            self._is_short = False
        self._let_in(sock, peer)

    def _let_in(self, sock: socket.socket, peer: object) -> None:
        sock.settimeout(0.0)
        self._receive(sock, peer, self._listener)

    def _run_short(self, error: OSError) -> None:
        if not self._is_short:
            _tell_accept_failed(self._listener, error)
            self._is_short = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener.socket)
        self._pause = loop.call_later(ACCEPT_RETRY_SECONDS, self._open)


class Acceptor:
    """Lets connections in until it is closed."""

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
        """Accept on every listener until `close`, and complete the handshakes that began until then.

        Cancelling this ends handshakes that are under way, not connections.
        """
        async with asyncio.TaskGroup() as tasks:
            receive = partial(self._receive, tasks)
            entrances = [_Entrance(listener, receive) for listener in self._listeners]
            try:
                await self._is_closing.wait()
                for entrance in entrances:
                    await entrance.accept_rest()
            finally:
                for entrance in entrances:
                    entrance.close()

    def close(self) -> None:
        """Accept the connections in the backlog, and close the listeners: later connections are refused.

        Where another process listens on the same sockets, it is its turn.
        """
        self._is_closing.set()

    def _receive(
        self, tasks: asyncio.TaskGroup, sock: socket.socket, peer: object, listener: Listener
    ) -> None:
        """Let it in, or refuse it at once."""
        client = _client(peer)
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
        except _RefusedError as refusal:
            self._refuse(arrival, refusal)
            return
        if client.address != UNIX_PEER:
            # The client has a time to take the bytes that the kernel holds, even after the connection's end.
            with contextlib.suppress(OSError):  # MPTCP has no such option on older kernels
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._write_milliseconds)
        arrival.welcome = tasks.create_task(self._welcome(arrival, listener), name="welcome")

    def _check_handshake_rate(self, arrival: Arrival, listener: Listener) -> None:
        if self._handshake_rate is None or listener.tls_context is None or arrival.is_trusted_proxy:
            return
        if not self._handshake_rate.admits(arrival.networks):
            raise _RefusedError(ConnectionRefusal.HANDSHAKE_RATE)

    def _refuse(self, arrival: Arrival, refusal: _RefusedError) -> None:
        arrival.turn_away()
        self._counters.connection_refused(refusal.reason)
        _tell_refused(arrival.client, refusal)

    def _is_trusted(self, client: ClientConnection) -> bool:
        """Whether the peer may name its client. Every peer that can write to our UNIX socket may."""
        if client.address == UNIX_PEER:
            return True
        if not self._trusted:
            return False
        address = ip_address(client.address)
        return any(address in network for network in self._trusted)

    async def _welcome(self, arrival: Arrival, listener: Listener) -> None:
        """See it through what comes before HTTP, and hand it over."""
        try:
            if listener.proxy_protocol:
                await self._learn_client(arrival)
                self._check_handshake_rate(arrival, listener)
            if listener.tls_context and self._handshakes >= EAGER_HANDSHAKES:
                async with asyncio.timeout_at(arrival.deadline):
                    await _wait_for_hello(arrival.socket)
            await self._hand_over(arrival, listener)
        except _RefusedError as refusal:
            self._refuse(arrival, refusal)
        except OSError as error:
            arrival.turn_away()
            is_failed = isinstance(error, ssl.SSLError) and error.reason is not None
            self._counters.shook_hands(Handshake.FAILED if is_failed else Handshake.BROKEN_OFF)
            _tell_broken_off(arrival.client, error)
        except BaseException:
            arrival.turn_away()
            raise

    async def _hand_over(self, arrival: Arrival, listener: Listener) -> None:
        """Make the TLS handshake, and give the connection to the way in."""
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
        """Read the PROXY header, which tells whose connection this is."""
        try:
            async with asyncio.timeout_at(arrival.deadline):
                header = await _read_proxy_header(arrival.socket)
        except MalformedError as error:
            raise _RefusedError(ConnectionRefusal.PROXY_HEADER, str(error)) from error
        if header.address is None:
            return
        proxy = arrival.client.address
        # The connection has counted for the proxy until now.
        arrival.leave()
        network = network_of(header.address)
        arrival.client = ClientConnection(
            address=header.address, port=header.port, network=network, proxy=proxy
        )
        arrival.is_trusted_proxy = self._is_trusted(arrival.client)
        arrival.enter()


def _client(peer: object) -> ClientConnection:
    if isinstance(peer, tuple):
        # The kernel writes IPv4 addresses in their one form; IPv4 clients of dual-stack sockets are mapped.
        address = peer[0] if len(peer) == 2 else str(parse_address(peer[0]))
        return ClientConnection(address=address, port=peer[1], network=network_of(address))
    return ClientConnection(address=UNIX_PEER, network=UNIX_PEER)


async def _read_proxy_header(sock: socket.socket) -> ProxyHeader:
    """Read the header and not one byte more: the bytes after it belong to TLS or HTTP.

    Raises:
        MalformedError: this is no header.
        ConnectionError: the connection ended before the header did.
    """
    data = bytearray()
    while True:
        await _wait_for_data(sock)
        seen = sock.recv(proxy_header.MAX_HEADER_BYTES - len(data), socket.MSG_PEEK)
        if not seen:
            raise ConnectionAbortedError("no PROXY header")
        header, length = proxy_header.parse(data + seen)
        # All bytes of an unfinished header belong to it.
        data += sock.recv(length - len(data) if header else len(seen))
        if header:
            return header


async def _wait_for_hello(sock: socket.socket) -> None:
    """Wait until the client's first message of TLS is in the kernel's buffer, or something else that ends it.

    The kernel wakes us when so many bytes are there as are asked for (SO_RCVLOWAT of socket(7)), not before.

    Raises:
        ConnectionError: it is larger than the buffer should hold.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, client_hello.HEAD_BYTES)
    await _wait_for_data(sock)
    try:
        count = client_hello.hello_bytes(sock.recv(client_hello.HEAD_BYTES, socket.MSG_PEEK))
    except MalformedError as error:
        raise ConnectionAbortedError(str(error)) from error
    if count:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        await _wait_for_data(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _wait_for_data(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    is_there = loop.create_future()
    loop.add_reader(sock, _settle, is_there)
    try:
        await is_there
    finally:
        loop.remove_reader(sock)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _tell_accept_failed(listener: Listener, error: OSError) -> None:
    logger.warning("accept_failed", sum_by=("accept", listener.url), listen=listener.url, reason=str(error))


def _tell_accept_works(listener: Listener) -> None:
    # The same key: of what goes up and down, the last word is told last.
    logger.info("accept_recovered", sum_by=("accept", listener.url), listen=listener.url)


def _tell_broken_off(client: ClientConnection, error: OSError) -> None:
    """Log why a handshake failed; a client that leaves is only a debug event."""
    peer = {"client": client.address, "port": client.port or None, "proxy": client.proxy}
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason is None:
        logger.debug("tls_handshake_aborted", **peer, reason=_words(error))
        return
    logger.info(
        "tls_handshake_failed",
        sum_by=("tls_handshake_failed", client.network, reason),
        **peer,
        reason=reason,
        advice=ADVICE.get(reason),
    )


def _words(error: OSError) -> str:
    return str(error) or type(error).__name__
