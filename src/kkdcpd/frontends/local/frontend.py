"""The local way in: serves programs of this host by UDP, TCP and UNIX sockets.

Only one process may serve a socket, because a `Joiner` knows the copies of one process.
"""

import asyncio
import socket
from collections.abc import Sequence
from functools import partial

from kkdcpd.frontends.http.connection_limits import ConnectionLimits
from kkdcpd.frontends.local.datagrams import Datagrams
from kkdcpd.frontends.local.options import LocalListener, LocalOptions, check_reach
from kkdcpd.frontends.local.streams import StreamConnection, Streams
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.joining import Joiner
from kkdcpd.pipeline.pipeline import Pipeline

__all__ = ["LocalFrontend"]


class LocalFrontend:
    """A way in that serves its listeners while `run` runs. `connections` limits its connections.

    Raises:
        ConfigError: other hosts can reach a listener, and the options do not allow it.
    """

    name = "local"

    def __init__(
        self,
        options: LocalOptions,
        listeners: Sequence[LocalListener],
        pipeline: Pipeline,
        connections: ConnectionLimits,
        counters: Counters,
    ) -> None:
        for listener in listeners:
            check_reach(listener, options)
        self._options = options
        self._listeners = listeners
        self._joiner = Joiner(pipeline, options.joining)
        self._streams = Streams(options, pipeline, self._joiner, connections, counters)
        self._is_closing = asyncio.Event()
        self._connections = connections
        self.has_load_dropped = connections.has_load_dropped
        """Whether there were many connections, and most of them are gone. True once for each load."""

    @property
    def open(self) -> int:
        """The number of open connections."""
        return self._connections.open

    @property
    def has_outlived_load(self) -> bool:
        """Whether there were very many connections once, and few are left."""
        return self._connections.has_outlived_load

    async def run(self) -> None:
        """Serve until `drain`, then finish all requests and connections. Cancellation ends them at once."""
        async with asyncio.TaskGroup() as tasks:
            room = tasks.create_task(self._connections.keep_room(), name="local room")
            await self._serve()
            room.cancel()

    async def _serve(self) -> None:
        try:
            async with self._joiner:
                listening = [await self._open(listener) for listener in self._listeners]
                try:
                    await self._is_closing.wait()
                finally:
                    for each in listening:
                        each.close()
                await self._streams.drain()
        finally:
            self._streams.abort()
            for listener in self._listeners:
                listener.socket.close()

    async def stop(self) -> None:
        """Close every connection."""
        self._streams.abort()

    def drain(self) -> None:
        """Take no more datagrams and connections. Each open connection may send one more request."""
        self._is_closing.set()

    async def _open(self, listener: LocalListener) -> asyncio.Server | Datagrams:
        sock = listener.socket
        if sock.type == socket.SOCK_DGRAM:
            return Datagrams(listener, self._options, self._joiner)
        loop = asyncio.get_running_loop()
        make = partial(StreamConnection, self._streams, listener)
        if sock.family == socket.AF_UNIX:
            return await loop.create_unix_server(make, sock=sock)
        return await loop.create_server(make, sock=sock)
