"""The door: accepts sockets, counts them, learns who they are from, and sees them through the TLS handshake.

We accept ourselves, since asyncio's own servers neither tell who failed a handshake and why, nor leave room
for what has to come before TLS: the limits on connections, and the PROXY header. A way in gets an `Arrival`.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_address

from kkdcpd.config import ConnectionsConfig
from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.guard.occupancy import Occupancy
from kkdcpd.metrics.columns import Handshake
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol import proxy_header
from kkdcpd.protocol.ip_addresses import network_of, parse_address
from kkdcpd.protocol.proxy_header import ProxyHeader
from kkdcpd.values import ClientConnection, ConnectionRefusal

__all__ = ["Arrival", "Door", "Listener", "Places"]

logger = logging.getLogger(__name__)

UNIX_PEER = "unix"

PROXIES = "proxies"
"""What connections of trusted proxies count as: they have no limit but that of all together."""

ACCEPT_RETRY_SECONDS = 0.5
"""The pause after a failed accept: descriptors or memory are short, and only time brings them back."""

MIN_HANDSHAKE_SECONDS = 0.1
"""What the TLS handshake has where a PROXY header took all of the time."""

CROWD = 128
"""So many connections are worth a word, or a trifle of work, when they are gone."""

LARGE_CROWD = 512
"""So many leave behind some 8 MiB, and so are worth a new process when they are gone."""

_FAILED_BEFORE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR}
"""Accept fails with these for one connection alone: the next one may be sound."""

_ADVICE = {
    "HTTP_REQUEST": "plain HTTP on a TLS port",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust our certificate's issuer: have it trust that CA "
    "(Windows: the machine's store; MIT krb5: http_anchors)",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client refuses our certificate: check the name in its URL",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client finds our certificate expired: check both clocks",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client refuses our certificate: check the name in its URL",
    "UNSUPPORTED_PROTOCOL": "the client's TLS version is older than tls.minimum_version",
    "WRONG_VERSION_NUMBER": "this is not TLS",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the listener requires a client certificate, and there is none",
}


@frozen
class Listener:
    """A listening socket, non-blocking; the TLS spoken on it, if any. `url` is for the log.

    With `proxy_protocol`, only trusted proxies may connect, and each connection begins with a PROXY header.
    """

    socket: socket.socket
    url: str
    tls_context: ssl.SSLContext | None = None
    proxy_protocol: bool = False


class Places:
    """How many connections there are, in all and from each client's network; and may be, in all processes.

    `taken` is how many this process has.
    """

    def __init__(self, here: Occupancy, *, maximum: int, per_client: int, counters: Counters) -> None:
        self._here = here
        self._counters = counters
        self._maximum = maximum
        self._per_client = per_client
        self.taken = 0
        self._peak = 0
        self._most = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def take(self, network: str) -> bool:
        """Count a connection from there, unless there are as many as may be."""
        if self._here.total >= self._maximum:
            return False
        self._here.enter(network)
        self.taken += 1
        self._counters.connections_are(self.taken)
        self._peak = max(self._peak, self.taken)
        self._most = max(self._most, self.taken)
        self._is_empty.clear()
        return True

    def is_over(self, network: str) -> bool:
        """Whether the client has more than it may, with the one that was just taken."""
        return self._here.count(network) > self._per_client

    def give_back(self, network: str) -> None:
        """Forget one."""
        self._here.leave(network)
        self.taken -= 1
        self._counters.connections_are(self.taken)
        if not self.taken:
            self._is_empty.set()

    async def wait_until_empty(self) -> None:
        """Wait until this process has no connection any more."""
        await self._is_empty.wait()

    def is_crowd_gone(self) -> bool:
        """Whether there were many connections, and most of them are gone; that is told once."""
        if self._peak < CROWD or self.taken > self._peak / 2:
            return False
        self._peak = self.taken
        return True

    @property
    def has_outlived_crowd(self) -> bool:
        """Whether this process has had a large crowd in its life, of which hardly anybody is left."""
        return self._most >= LARGE_CROWD and self.taken <= self._most / 10


class _RefusedError(Exception):
    """A connection isn't let in: for what reason, of a few, and what is special about this one."""

    def __init__(self, reason: ConnectionRefusal, detail: str | None = None) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason.value)


class Arrival:
    """A connection from its accept until it is gone: its socket, its place, and who it is from.

    `is_trusted_proxy` is true of a client that may tell in whose name it asks. Who serves the connection
    calls `leave` at its end.
    """

    __slots__ = ("_network", "_places", "client", "deadline", "is_trusted_proxy", "socket")

    def __init__(
        self,
        sock: socket.socket,
        client: ClientConnection,
        places: Places,
        deadline: float,
        *,
        is_trusted_proxy: bool,
    ) -> None:
        self.socket = sock
        self.client = client
        self.deadline = deadline
        self.is_trusted_proxy = is_trusted_proxy
        self._places = places
        self._network: str | None = None

    def must_be_trusted_proxy(self) -> None:
        """Refuse the others."""
        if not self.is_trusted_proxy:
            raise _RefusedError(ConnectionRefusal.NO_TRUSTED_PROXY)

    def take_place(self) -> None:
        """Count it for its client. A proxy has many clients behind it, and no count of its own."""
        network = PROXIES if self.is_trusted_proxy else self.client.network
        if not self._places.take(network):
            raise _RefusedError(ConnectionRefusal.MAXIMUM)
        self._network = network
        if not self.is_trusted_proxy and self._places.is_over(network):
            raise _RefusedError(ConnectionRefusal.PER_CLIENT)

    def leave(self) -> None:
        """Give the place back; more than once does no harm."""
        if self._network is not None:
            self._places.give_back(self._network)
            self._network = None

    def turn_away(self) -> None:
        """End it before it was handed over."""
        self.socket.close()
        self.leave()


def _tell_refused(client: ClientConnection, refusal: _RefusedError) -> None:
    reason = str(refusal)
    fields: dict[str, object] = {"client": client.address, "reason": reason}
    if client.proxy:
        fields["proxy"] = client.proxy
    if refusal.detail:
        fields["detail"] = refusal.detail
    logger.warning(
        "connections_refused", extra={"fields": fields, "repeats": ("connections_refused", reason)}
    )


class _Entrance:
    """Accepts on one listener, one connection at a time, as another worker may be idle.

    Nothing here waits: an accept that is waited for, and cancelled, may lose the connection that has come.
    """

    def __init__(
        self, listener: Listener, receive: Callable[[socket.socket, object, Listener], None]
    ) -> None:
        self._listener = listener
        self._receive = receive
        self._is_short = False
        self._pause: asyncio.TimerHandle | None = None
        self._open()

    def accept_rest(self) -> None:
        """Let in who is in the kernel's queue: whoever is there when a socket is closed is reset."""
        with contextlib.suppress(OSError):
            while True:
                self._let_in(*self._listener.socket.accept())

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


class Door:
    """Lets connections in until it is closed."""

    def __init__(
        self,
        listeners: Sequence[Listener],
        connections: ConnectionsConfig,
        here: Occupancy,
        *,
        handshake_timeout: float,
        counters: Counters,
        make_connection: Callable[[Arrival], asyncio.BaseProtocol],
    ) -> None:
        self._listeners = listeners
        self._trusted = connections.trusted_proxies
        self.places = Places(
            here, maximum=connections.maximum, per_client=connections.per_client, counters=counters
        )
        self._counters = counters
        self._handshake_timeout = handshake_timeout
        self._write_milliseconds = round(connections.write_timeout * 1000)
        self._make_connection = make_connection
        self._is_closing = asyncio.Event()

    async def keep(self) -> None:
        """Accept on every listener until `close`, and see those through their handshakes who came until then.

        Cancelling this ends handshakes that are under way, not connections.
        """
        async with asyncio.TaskGroup() as tasks:
            receive = partial(self._receive, tasks)
            entrances = [_Entrance(listener, receive) for listener in self._listeners]
            try:
                await self._is_closing.wait()
                for entrance in entrances:
                    entrance.accept_rest()
            finally:
                for entrance in entrances:
                    entrance.close()

    def close(self) -> None:
        """Let in who waits to be accepted, and have the listeners closed: others are refused from then on.

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
            self.places,
            asyncio.get_running_loop().time() + self._handshake_timeout,
            is_trusted_proxy=self._is_trusted(client),
        )
        try:
            if listener.proxy_protocol:
                arrival.must_be_trusted_proxy()
            arrival.take_place()
        except _RefusedError as refusal:
            self._refuse(arrival, refusal)
            return
        if client.address != UNIX_PEER:
            # What is in the kernel's hands has its time to be taken, even after the end.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._write_milliseconds)
        tasks.create_task(self._welcome(arrival, listener), name="welcome")

    def _refuse(self, arrival: Arrival, refusal: _RefusedError) -> None:
        arrival.turn_away()
        self._counters.connection_refused(refusal.reason)
        _tell_refused(arrival.client, refusal)

    def _is_trusted(self, client: ClientConnection) -> bool:
        """Whether the peer may say in whose name it comes: who may write to our unix socket may."""
        if client.address == UNIX_PEER:
            return True
        if not self._trusted:
            return False
        address = ip_address(client.address)
        return any(address in network for network in self._trusted)

    async def _welcome(self, arrival: Arrival, listener: Listener) -> None:
        """See it through what comes before HTTP, and hand it over."""
        loop = asyncio.get_running_loop()
        timeout = None
        try:
            if listener.proxy_protocol:
                await self._learn_client(arrival)
            if listener.tls_context:
                timeout = max(arrival.deadline - loop.time(), MIN_HANDSHAKE_SECONDS)
            self._counters.connection_opened()
            await loop.connect_accepted_socket(
                partial(self._make_connection, arrival),
                arrival.socket,
                ssl=listener.tls_context,
                ssl_handshake_timeout=timeout,
            )
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
        network = network_of(header.address)
        arrival.client = ClientConnection(
            address=header.address, port=header.port, network=network, proxy=proxy
        )
        arrival.is_trusted_proxy = self._is_trusted(arrival.client)
        # It has been the proxy's until now.
        arrival.leave()
        arrival.take_place()


def _client(peer: object) -> ClientConnection:
    if isinstance(peer, tuple):
        # The kernel writes IPv4 addresses in their one form; IPv4 clients of dual-stack sockets are mapped.
        address = peer[0] if len(peer) == 2 else str(parse_address(peer[0]))
        return ClientConnection(address=address, port=peer[1], network=network_of(address))
    return ClientConnection(address=UNIX_PEER, network=UNIX_PEER)


async def _read_proxy_header(sock: socket.socket) -> ProxyHeader:
    """Read the header and not one octet more: what follows it may be there already, and isn't for us.

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
        # Of an unfinished header all octets are its own.
        data += sock.recv(length - len(data) if header else len(seen))
        if header:
            return header


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
    fields = {"listen": listener.url, "reason": str(error)}
    logger.warning("accept_failed", extra={"fields": fields, "repeats": ("accept", listener.url)})


def _tell_accept_works(listener: Listener) -> None:
    # The same key: of what goes up and down, the last word is told last.
    fields = {"listen": listener.url}
    logger.info("accept_works_again", extra={"fields": fields, "repeats": ("accept", listener.url)})


def _tell_broken_off(client: ClientConnection, error: OSError) -> None:
    """Say why a handshake failed; that somebody only knocked is nothing to tell."""
    fields: dict[str, object] = {"client": client.address}
    if client.port:
        fields["port"] = client.port
    if client.proxy:
        fields["proxy"] = client.proxy
    reason = error.reason if isinstance(error, ssl.SSLError) else None
    if reason is None:
        logger.debug("tls_handshake_broken_off", extra={"fields": fields | {"reason": _words(error)}})
        return
    fields["reason"] = reason
    if reason in _ADVICE:
        fields["advice"] = _ADVICE[reason]
    repeats = ("tls_handshake_failed", client.network, reason)
    logger.info("tls_handshake_failed", extra={"fields": fields, "repeats": repeats})


def _words(error: OSError) -> str:
    return str(error) or type(error).__name__
