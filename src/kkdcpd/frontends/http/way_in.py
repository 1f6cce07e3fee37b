"""Runs an HTTP way in: accepts connections, drains them, and closes the rest."""

import asyncio
from typing import Protocol

from kkdcpd.frontends.http.acceptor import Acceptor

__all__ = ["Frontend", "HttpWayIn"]


class Frontend(Protocol):
    """The part of a way in that serves accepted connections."""

    def drain(self) -> None:
        """Let each connection end with its next response."""

    async def stop(self) -> None:
        """Close every connection."""


class HttpWayIn:
    """A way in that listens on sockets and speaks HTTP. `name` is for the names of tasks."""

    def __init__(self, name: str, acceptor: Acceptor, frontend: Frontend) -> None:
        self.name = name
        self._acceptor = acceptor
        self._connections = acceptor.connections
        self._frontend = frontend
        self.stop = frontend.stop
        """Closes every connection."""
        self.has_load_dropped = self._connections.has_load_dropped
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
        """Accept and serve connections. After `drain`, return when all connections are closed.

        Cancelling this ends handshakes that are under way, and no connection.
        """
        async with asyncio.TaskGroup() as tasks:
            room = tasks.create_task(self._connections.keep_room(), name=f"{self.name} room")
            await self._acceptor.keep()
            await self._connections.wait_until_empty()
            room.cancel()

    def drain(self) -> None:
        """Accept the backlog, and close the listeners. Each connection may have one more response."""
        self._frontend.drain()
        self._acceptor.close()
