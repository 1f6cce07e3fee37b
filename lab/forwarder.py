"""Forwards connections from other loopback addresses, so that programs appear to be on other machines.

All addresses of 127.0.0.0/8 are local, but a program connects from 127.0.0.1 unless it binds another address.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self, cast

__all__ = ["Forwarder"]

_START_SECONDS = 10.0
_CHUNK = 65536


class Forwarder:
    """Forwards to a port of 127.0.0.1 while its context lasts.

    It runs in its own thread, with its own event loop.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._ports: dict[str, int] = {}
        self._is_ready = threading.Event()
        self._runner = asyncio.Runner()
        self._thread = threading.Thread(target=self._run, name="forwarder")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._is_ready.wait(_START_SECONDS):
            raise RuntimeError("the forwarder doesn't start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._runner.get_loop().call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_SECONDS)

    def port_of(self, address: str) -> int:
        """Return the port of 127.0.0.1 that forwards from `address`, such as 127.0.0.66."""
        if address not in self._ports:
            listening = asyncio.run_coroutine_threadsafe(self._listen(address), self._runner.get_loop())
            self._ports[address] = listening.result(_START_SECONDS)
        return self._ports[address]

    def _run(self) -> None:
        with self._runner:
            self._runner.run(self._keep())

    async def _keep(self) -> None:
        self._stop = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        async with contextlib.AsyncExitStack() as self._servers:
            self._is_ready.set()
            await self._stop.wait()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _listen(self, address: str) -> int:
        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = cast("asyncio.Task[None]", asyncio.current_task())
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
            async with _closing(writer):
                far_reader, far_writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, local_addr=(address, 0)
                )
                async with _closing(far_writer), asyncio.TaskGroup() as ways:
                    ways.create_task(_pump(reader, far_writer), name=f"from {address}")
                    ways.create_task(_pump(far_reader, writer), name=f"to {address}")

        server = await self._servers.enter_async_context(await asyncio.start_server(forward, "127.0.0.1"))
        port = server.sockets[0].getsockname()[1]
        assert isinstance(port, int)
        return port


@contextlib.asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward all data, then the end of the data."""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
    writer.close()
