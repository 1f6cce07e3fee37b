"""kkdcpd's worker in the test's own event loop, for what must hold on every loop."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from kkdcpd.config import ConnectionsConfig, SystemFiles, read_config
from kkdcpd.frontends.http.acceptor import Acceptor, Arrival, Listener
from kkdcpd.guard.limits import HandshakeRate
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics
from kkdcpd.supervisor.inet_sockets import SOCKET_BUFFER_BYTES
from kkdcpd.worker import Worker
from tests.support.shared import own_counts, shared_memory

__all__ = ["PATIENCE_SECONDS", "Talk", "listening", "running_acceptor", "running_worker"]

PATIENCE_SECONDS = 10.0

NO_SYSTEM_FILES = SystemFiles()


@contextlib.asynccontextmanager
async def listening(
    *,
    host: str = "127.0.0.1",
    unix_path: Path | None = None,
    tls: ssl.SSLContext | None = None,
    proxy_protocol: bool = False,
) -> AsyncIterator[Listener]:
    """Listen on any free port of the address, or on a unix socket."""
    family = socket.AF_UNIX if unix_path else socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        # As the supervisor has it: left alone, Linux takes megabytes for a client that doesn't read.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        sock.bind(str(unix_path) if unix_path else (host, 0))
        sock.listen()
        yield Listener(socket=sock, url="test:", tls_context=tls, proxy_protocol=proxy_protocol)


@contextlib.asynccontextmanager
async def running_worker(
    settings: str, *listeners: Listener, metrics: Metrics | None = None
) -> AsyncIterator[asyncio.Event]:
    """Run a worker with this configuration, on these listeners; the event stops it. It counts in row 0."""
    config = read_config(settings, source=Path("/nowhere/config.toml"))
    stop = asyncio.Event()
    memory = shared_memory(config.guard.table_entries, metrics)
    worker = Worker(config, listeners, NO_SYSTEM_FILES, memory, 0, notify=lambda _news: None)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worker.run(stop), name="worker")
        try:
            yield stop
        finally:
            stop.set()


@contextlib.asynccontextmanager
async def running_acceptor(
    *listeners: Listener,
    make_connection: Callable[[Arrival], asyncio.BaseProtocol],
    handshake_timeout: float = 1.0,
    handshake_rate: HandshakeRate | None = None,
    counters: Counters | None = None,
    **settings: Any,
) -> AsyncIterator[Acceptor]:
    """Run an acceptor without the rest of a worker. `settings` are those of [connections]."""
    acceptor = Acceptor(
        listeners,
        ConnectionsConfig(**settings),
        own_counts(),
        handshake_timeout=handshake_timeout,
        handshake_rate=handshake_rate,
        counters=counters or Counters.discarding(),
        make_connection=make_connection,
    )
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(acceptor.keep(), name="acceptor")
        yield acceptor
        keeping.cancel()


class Talk:
    """A client's connection; every wait is bounded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(
        cls, listener: Listener, *, tls: ssl.SSLContext | None = None, host: str | None = None
    ) -> AsyncIterator["Talk"]:
        """Connect to a listener, from the address `host` if it is given."""
        place = listener.socket.getsockname()
        name = "localhost" if tls else None
        async with asyncio.timeout(PATIENCE_SECONDS):
            if isinstance(place, str):
                reader, writer = await asyncio.open_unix_connection(place)
            else:
                reader, writer = await asyncio.open_connection(
                    place[0],
                    place[1],
                    ssl=tls,
                    server_hostname=name,
                    local_addr=(host, 0) if host else None,
                )
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    @property
    def address(self) -> tuple[str, int]:
        """Our own end of the connection."""
        address: tuple[str, int] = self._writer.get_extra_info("sockname")
        return address[:2]

    async def send(self, raw: bytes) -> None:
        """Send bytes."""
        self._writer.write(raw)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._writer.drain()

    async def read(self, count: int) -> bytes:
        """Wait for this many bytes."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._reader.readexactly(count)

    async def read_until(self, end: bytes) -> bytes:
        """Wait for these bytes, and return everything up to their end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._reader.readuntil(end)

    def pause(self) -> None:
        """Stop reading, so that the buffers fill."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined] # it is one for streams

    async def read_some(self) -> bytes:
        """Wait for any bytes, or the end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._reader.read(65536)

    async def response(self) -> tuple[int, bytes]:
        """Wait for a response; return its status and body."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            length = next(line for line in head.split("\r\n") if line.startswith("Content-Length: "))
            return int(head.split(" ")[1]), await self._reader.readexactly(int(length.partition(": ")[2]))

    async def rest(self) -> bytes:
        """Wait for the end of the connection; return what came before it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self._reader.read()
            except ConnectionError:
                return b""

    def end(self) -> None:
        """End our side of the connection alone."""
        self._writer.write_eof()

    def reset(self) -> None:
        """End the connection with a RST: this client has left, and has not only ended its own side."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
