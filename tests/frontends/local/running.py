"""The local way in within the test's own event loop, in front of the real guard, relay and pipeline."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from kkdcpd.config import Config, ConnectionsConfig, EndpointSpec, FailuresConfig, GuardConfig, RealmConfig
from kkdcpd.endpoints import Transport
from kkdcpd.frontends.http.connection_limits import ConnectionLimits
from kkdcpd.frontends.local.frontend import LocalFrontend
from kkdcpd.frontends.local.options import LocalListener, LocalOptions
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.joining import JoiningLimits
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.values import Mode
from lab.ports import free_port
from tests.support.messages import prefixed
from tests.support.shared import own_counts, own_table
from tests.support.upstream import running_relay
from tests.support.waiting import eventually

__all__ = [
    "LOOPBACK",
    "PATIENCE_SECONDS",
    "Local",
    "Stream",
    "Udp",
    "config_for",
    "fields_of",
    "running_local",
]

LOOPBACK = "127.0.0.1"
PATIENCE_SECONDS = 15.0


def config_for(*kdcs: int, kpasswd: int | None = None, name: str = "EXAMPLE.COM", **settings: Any) -> Config:
    """Return the configuration of a realm with servers at these ports of loopback, by TCP.

    `settings` are sections. As for an agent, the failure gate is off.
    """

    def specs(ports: Sequence[int]) -> tuple[EndpointSpec, ...]:
        return tuple(EndpointSpec(host=LOOPBACK, port=port, transports=(Transport.TCP,)) for port in ports)

    realm = RealmConfig(
        name=name, kdc=specs(kdcs), kpasswd=specs((kpasswd,) if kpasswd else kdcs), discovery="none"
    )
    defaults = {"guard": GuardConfig(failures=FailuresConfig(mode=Mode.OFF))}
    return replace(Config(realms=(realm,)), **{**defaults, **settings})


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """A running local way in: one port for TCP and UDP, and a UNIX socket."""

    frontend: LocalFrontend
    keeping: asyncio.Task[None]
    port: int
    unix_path: Path

    async def wait_for_copies(self, count: int) -> None:
        """Wait until this number of copies has been joined with a request in flight."""

        async def are_joined() -> bool:
            exchanges = self.frontend._joiner._exchanges.values()
            return any(exchange.request.copies == count for exchange in exchanges)

        await eventually(are_joined)

    def udp(self, host: str = LOOPBACK) -> "Udp":
        return Udp(host, self.port)

    @contextlib.asynccontextmanager
    async def tcp(self) -> AsyncIterator["Stream"]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            stream = Stream(*await asyncio.open_connection(LOOPBACK, self.port))
        with contextlib.closing(stream):
            yield stream

    @contextlib.asynccontextmanager
    async def unix(self) -> AsyncIterator["Stream"]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            stream = Stream(*await asyncio.open_unix_connection(str(self.unix_path)))
        with contextlib.closing(stream):
            yield stream


@contextlib.asynccontextmanager
async def running_local(
    directory: Path,
    config: Config,
    *,
    host: str = LOOPBACK,
    uids: frozenset[int] = frozenset(),
    joining: JoiningLimits | None = None,
    connections: ConnectionsConfig | None = None,
    **options: Any,
) -> AsyncIterator[Local]:
    """Run a local way in until the context ends, which cancels what has not ended by itself."""
    counters = Counters.discarding()
    port = free_port((host,))
    path = directory / f"kdc-{port}.sock"
    listeners = [
        LocalListener(socket=bound((host, port), socket.SOCK_DGRAM)),
        LocalListener(socket=bound((host, port), socket.SOCK_STREAM)),
        LocalListener(socket=bound(str(path), socket.SOCK_STREAM), uids=uids),
    ]
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for listener in listeners:
            stack.enter_context(listener.socket)
        relay = await stack.enter_async_context(running_relay(config))
        pipeline = Pipeline(
            guard=Guard(config, own_table(), own_counts(), time.monotonic),
            relay=relay,
            counters=counters,
            config=config.guard,
        )
        frontend = LocalFrontend(
            LocalOptions(joining=joining or JoiningLimits(), **options),
            listeners,
            pipeline,
            ConnectionLimits(own_counts(), connections or ConnectionsConfig(), counters),
            counters,
        )
        keeping = tasks.create_task(frontend.run(), name="local")
        yield Local(frontend=frontend, keeping=keeping, port=port, unix_path=path)
        keeping.cancel()


def bound(address: tuple[str, int] | str, kind: socket.SocketKind) -> socket.socket:
    """Return a non-blocking socket at an address, listening if it is of streams."""
    is_unix = isinstance(address, str)
    family = socket.AF_UNIX if is_unix else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    if not is_unix:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address)
    if kind == socket.SOCK_STREAM:
        sock.listen(128)
    return sock


class Udp:
    """A program's UDP socket."""

    def __init__(self, host: str, port: int) -> None:
        self.socket = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        )
        # The kernel then drops datagrams from other addresses, as it does for programs.
        self.socket.connect((host, port))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, payload: bytes) -> None:
        self.socket.send(payload)

    async def receive(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asyncio.get_running_loop().sock_recv(self.socket, 65536)

    async def ask(self, payload: bytes) -> bytes:
        self.send(payload)
        return await self.receive()

    @property
    def has_answer(self) -> bool:
        """Whether a datagram waits in the kernel."""
        try:
            return bool(self.socket.recv(65536, socket.MSG_PEEK))
        except BlockingIOError:
            return False


class Stream:
    """A program's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def close(self) -> None:
        self.writer.close()

    def send(self, payload: bytes) -> None:
        self.writer.write(prefixed(payload))

    async def receive(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            length = int.from_bytes(await self.reader.readexactly(4), "big")
            return await self.reader.readexactly(length)

    async def ask(self, payload: bytes) -> bytes:
        self.send(payload)
        return await self.receive()

    async def rest(self) -> bytes:
        """Wait for the end of the connection, and return the bytes before it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


def fields_of(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of the lines of ended requests."""
    return [line.fields for line in log.records if line.message == "exchange"]  # type: ignore[attr-defined]
