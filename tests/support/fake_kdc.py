"""A KDC on loopback that follows scripts, for faults that no real KDC produces on demand.

A script handles one TCP connection or one datagram; `reply` is the script of a healthy KDC. In the event loop
of a test:

    async with FakeKdc(tcp=garbage()) as kdc:
        ...  # talk to 127.0.0.1, kdc.port
        assert kdc.tcp_messages == [payload]

and in a test without an event loop, because kkdcpd is a process:

    with FakeKdcThread(tcp=reply(payload)) as kdc:
        ...

One port serves both transports. A transport without a script refuses. With DROP, TCP never answers a SYN. A
test may replace a script at any time: `kdc.tcp = silent()`.
"""

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar, cast

__all__ = [
    "DROP",
    "REFUSE",
    "FakeKdc",
    "FakeKdcThread",
    "Link",
    "Script",
    "announce",
    "close_after_message",
    "close_at_once",
    "dribble",
    "flood",
    "garbage",
    "reply",
    "reset_after_message",
    "send",
    "silent",
]

PATIENCE_SECONDS = 10.0
"""More than every step takes on a busy machine."""

BIND_TRIES = 20

PREFIX_BYTES = 4
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

T = TypeVar("T")
Address = tuple[str | Any, int]


class Unserved(enum.Enum):
    """The failure of a port without a script."""

    REFUSE = "refuse"
    DROP = "drop"


REFUSE: Final = Unserved.REFUSE
DROP: Final = Unserved.DROP


class Link(Protocol):
    """One TCP connection, or one datagram and the address of its sender."""

    async def message(self) -> bytes:
        """Wait for the next message and return its payload. If the client closes before, the script ends."""

    async def reply(self, payload: bytes) -> None:
        """Send a payload, over TCP with its length."""

    async def write(self, data: bytes) -> None:
        """Send data without a length."""

    async def hold(self) -> None:
        """Send nothing until the client closes."""

    def reset(self) -> None:
        """End the connection by RST when the script ends."""


Script = Callable[[Link], Awaitable[None]]


def reply(*payloads: bytes, when: asyncio.Event | None = None) -> Script:
    """Answer messages with these payloads in turn; the last payload answers all further messages.

    If `when` is given, replies wait for this event. Another thread sets the event by `FakeKdcThread.set`.
    """
    left = list(payloads)

    async def script(link: Link) -> None:
        await link.message()
        payload = left.pop(0) if len(left) > 1 else left[0]
        if when:
            await when.wait()
        await link.reply(payload)
        await link.hold()

    return script


def send(data: bytes) -> Script:
    """Read the message, send exactly this data, then close."""

    async def script(link: Link) -> None:
        await link.message()
        await link.write(data)

    return script


def garbage() -> Script:
    """Answer with a valid frame around data that is not Kerberos."""
    return reply(b"This is not Kerberos.")


def silent() -> Script:
    """Read the message and send nothing until the client closes."""

    async def script(link: Link) -> None:
        await link.message()
        await link.hold()

    return script


def close_at_once() -> Script:
    """Close the connection without reading; the client may get a RST for its message."""

    async def script(link: Link) -> None:
        del link

    return script


def close_after_message() -> Script:
    """Read the message and close the connection."""

    async def script(link: Link) -> None:
        await link.message()

    return script


def reset_after_message() -> Script:
    """Read the message and reset the connection."""

    async def script(link: Link) -> None:
        await link.message()
        link.reset()

    return script


def dribble(payload: bytes) -> Script:
    """Answer over TCP with one byte in each segment."""

    async def script(link: Link) -> None:
        await link.message()
        for byte in len(payload).to_bytes(PREFIX_BYTES, "big") + payload:
            await link.write(bytes((byte,)))
            await asyncio.sleep(0)
        await link.hold()

    return script


def announce(length: int, data: bytes = b"") -> Script:
    """Announce a reply of `length` bytes (up to 4 GiB), send `bytes` of it and hold the connection."""

    async def script(link: Link) -> None:
        await link.message()
        await link.write(length.to_bytes(PREFIX_BYTES, "big") + data)
        await link.hold()

    return script


def flood(length: int = 0xFFFFFFFF) -> Script:
    """Announce a reply of `length` bytes, then send without end."""

    async def script(link: Link) -> None:
        await link.message()
        await link.write(length.to_bytes(PREFIX_BYTES, "big"))
        while True:
            await link.write(bytes(65536))

    return script


class FakeKdc:
    """A KDC in the running event loop. `port` is one port for TCP and UDP.

    `connections` counts accepted connections; `tcp_messages` and `udp_messages` are all received payloads.
    """

    def __init__(
        self, *, tcp: Script | Unserved = REFUSE, udp: Script | Unserved = REFUSE, host: str = "127.0.0.1"
    ) -> None:
        self.tcp = tcp
        self.udp = udp
        self.host = host
        self.port = 0
        self.connections = 0
        self.tcp_messages: list[bytes] = []
        self.udp_messages: list[bytes] = []
        self._arrival = asyncio.Condition()
        self._links: set[asyncio.Task[None]] = set()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            tcp, udp = self._bind_both(stack)
            if self.tcp is DROP:
                self._fill(tcp, stack)
            self._tasks = await stack.enter_async_context(asyncio.TaskGroup())
            stack.callback(self._end_links)
            if not isinstance(self.tcp, Unserved):
                self._listen(tcp, stack)
            if udp:
                datagrams, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                    lambda: _Datagrams(self._receive), sock=udp
                )
                stack.callback(datagrams.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def messages(self) -> list[bytes]:
        """All payloads, first of TCP, then of UDP."""
        return self.tcp_messages + self.udp_messages

    async def wait_for_messages(self, count: int = 1) -> Sequence[bytes]:
        """Wait until `count` messages have arrived, and return all messages."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrival:
            await self._arrival.wait_for(lambda: len(self.messages) >= count)
        return self.messages

    def _bind_both(self, stack: contextlib.AsyncExitStack) -> tuple[socket.socket, socket.socket | None]:
        """Bind one port for both transports. The UDP port of a free TCP port may be taken."""
        wanted = self.port
        for tries_left in reversed(range(BIND_TRIES)):
            with contextlib.ExitStack() as sockets:
                try:
                    tcp = self._bind(socket.SOCK_STREAM, sockets)
                    udp = None if self.udp is REFUSE else self._bind(socket.SOCK_DGRAM, sockets)
                except OSError:
                    if wanted or not tries_left:
                        raise
                    self.port = 0
                else:
                    stack.push(sockets.pop_all())
                    return tcp, udp
        raise AssertionError("the last try returns or raises")

    def _bind(self, kind: socket.SocketKind, stack: contextlib.ExitStack) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        sock = stack.enter_context(socket.socket(family, kind))
        sock.setblocking(False)
        sock.bind((self.host, self.port))
        self.port = sock.getsockname()[1]
        return sock

    def _fill(self, listener: socket.socket, stack: contextlib.AsyncExitStack) -> None:
        """Fill the backlog of the listener, so that Linux drops further SYNs."""
        listener.listen(0)
        for _ in range(2):
            filler = stack.enter_context(socket.socket(listener.family, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex((self.host, self.port))

    def _start(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = self._tasks.create_task(work, name=f"fake KDC {name}")
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        return task

    def _end_links(self) -> None:
        for task in self._links:
            task.cancel()

    def _listen(self, listener: socket.socket, stack: contextlib.AsyncExitStack) -> None:
        """Accept connections until the stack ends.

        `loop.sock_accept` would lose a connection: one that is accepted when the waiting task is cancelled.
        """
        listener.listen(1024)  # tests connect hundreds of times at once
        loop = asyncio.get_running_loop()
        loop.add_reader(listener, self._accept, listener)
        stack.callback(loop.remove_reader, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has reset the connection
        sock.setblocking(False)
        self.connections += 1
        task = self._start(self._run_tcp(sock), "connection")
        # A task that is cancelled before it starts runs nothing of its own.
        task.add_done_callback(lambda _: sock.close())

    async def _run_tcp(self, sock: socket.socket) -> None:
        assert not isinstance(self.tcp, Unserved)
        with contextlib.suppress(OSError, EOFError):
            await self.tcp(_Connection(sock, self._note_tcp))

    def _receive(self, transport: asyncio.DatagramTransport, payload: bytes, peer: Address) -> None:
        self.udp_messages.append(payload)
        self._start(self._run_udp(_Datagram(transport, payload, peer)), "datagram")

    async def _run_udp(self, link: Link) -> None:
        assert not isinstance(self.udp, Unserved)
        await self._announce_arrival()
        await self.udp(link)

    async def _note_tcp(self, payload: bytes) -> None:
        self.tcp_messages.append(payload)
        await self._announce_arrival()

    async def _announce_arrival(self) -> None:
        async with self._arrival:
            self._arrival.notify_all()


class _Connection:
    """The link of a TCP connection."""

    def __init__(self, sock: socket.socket, note: Callable[[bytes], Awaitable[None]]) -> None:
        self._sock = sock
        self._note = note

    async def message(self) -> bytes:
        payload = await self._read(int.from_bytes(await self._read(PREFIX_BYTES), "big"))
        await self._note(payload)
        return payload

    async def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = await asyncio.get_running_loop().sock_recv(self._sock, count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    async def reply(self, payload: bytes) -> None:
        await self.write(len(payload).to_bytes(PREFIX_BYTES, "big") + payload)

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def hold(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            while await asyncio.get_running_loop().sock_recv(self._sock, 65536):
                pass

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


class _Datagrams(asyncio.DatagramProtocol):
    """Receives datagrams; uvloop has no sock_recvfrom."""

    def __init__(self, receive: Callable[[asyncio.DatagramTransport, bytes, Address], None]) -> None:
        self._receive = receive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._receive(self._transport, data, addr)


class _Datagram:
    """The link of a datagram."""

    def __init__(self, transport: asyncio.DatagramTransport, payload: bytes, peer: Address) -> None:
        self._transport = transport
        self._payload = payload
        self._peer = peer

    async def message(self) -> bytes:
        return self._payload

    async def reply(self, payload: bytes) -> None:
        await self.write(payload)

    async def write(self, data: bytes) -> None:
        self._transport.sendto(data, self._peer)

    async def hold(self) -> None:
        """Return at once: a datagram has no connection to close."""

    def reset(self) -> None:
        raise TypeError("a datagram can't be reset")


class FakeKdcThread:
    """A FakeKdc with its own event loop in its own thread, for tests without a loop."""

    def __init__(
        self, *, tcp: Script | Unserved = REFUSE, udp: Script | Unserved = REFUSE, host: str = "127.0.0.1"
    ) -> None:
        self._kdc = FakeKdc(tcp=tcp, udp=udp, host=host)
        self._runner = asyncio.Runner()
        self._thread = threading.Thread(target=self._runner.get_loop().run_forever, name="fake KDC")

    def __enter__(self) -> Self:
        self._thread.start()
        self._await(self._kdc.__aenter__())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._await(self._kdc.__aexit__(kind, error, traceback))
        finally:
            loop = self._runner.get_loop()
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join(PATIENCE_SECONDS)
            self._runner.close()

    @property
    def port(self) -> int:
        """The port of TCP and UDP."""
        return self._kdc.port

    @property
    def connections(self) -> int:
        """The number of accepted connections."""
        return self._kdc.connections

    @property
    def messages(self) -> Sequence[bytes]:
        """All payloads so far, first of TCP, then of UDP."""
        return tuple(self._kdc.messages)

    def play(self, *, tcp: Script | None = None, udp: Script | None = None) -> None:
        """Replace scripts; open connections keep their scripts."""
        self._kdc.tcp = tcp or self._kdc.tcp
        self._kdc.udp = udp or self._kdc.udp

    def set(self, event: asyncio.Event) -> None:
        """Set an event that scripts wait for."""
        self._runner.get_loop().call_soon_threadsafe(event.set)

    def wait_for_messages(self, count: int = 1) -> Sequence[bytes]:
        """Wait until `count` messages have arrived, and return all messages."""
        return self._await(self._kdc.wait_for_messages(count))

    def _await(self, work: Coroutine[None, None, T]) -> T:
        loop = self._runner.get_loop()
        return asyncio.run_coroutine_threadsafe(work, loop).result(2 * PATIENCE_SECONDS)
