"""A steady load of clients, some of which keep their connections, each from an address of its own."""

import asyncio
import contextlib
import itertools
import ssl
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST

__all__ = ["Load", "Tally"]

PATIENCE_SECONDS = 20.0
PAUSE_SECONDS = 0.05

_networks = itertools.count(16)


@dataclass(slots=True, kw_only=True)
class Tally:
    """The results of the clients' requests. `lost` has the reason of each request without a response.

    `retried` weren't answered at first, but when they were sent again. `refused` were never sent, as there
    was no connection.
    """

    answered: int = 0
    retried: int = 0
    refused: int = 0
    connections: int = 0
    certificates: set[bytes] = field(default_factory=set)
    lost: list[str] = field(default_factory=list)


class _RefusedError(Exception):
    """No connection can be had."""


class _Conversation:
    """A connection for one request, or for many requests until a response says that it closes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.is_over = False

    async def ask(self) -> None:
        """Send one request. Raise the error if no response comes."""
        self._writer.write(GOOD_REQUEST)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        body = await self._reader.readexactly(len(GOOD_REPLY))
        if not head.startswith("HTTP/1.1 200 ") or body != GOOD_REPLY:
            raise ConnectionError(head.partition("\r\n")[0])
        self.is_over = "connection: close" in head.lower()


class Load:
    """Clients that ask again and again, in a thread of their own, until the end of the `with` block.

    Once `may_be_refused` is set, a client that gets no connection has come to its end. With `retries`, a
    request that isn't answered is sent once more.
    """

    def __init__(
        self,
        port: int,
        trust: ssl.SSLContext,
        *,
        keeping: int = 12,
        single: int = 6,
        may_be_refused: bool = False,
        retries: bool = False,
    ) -> None:
        self._port = port
        self._trust = trust
        self._counts = {"keeping": keeping, "single": single}
        self._retries = retries
        self._network = next(_networks)
        self.may_be_refused = may_be_refused
        self.tally = Tally()
        self._has_ended = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def end(self) -> Tally:
        """Let all clients come to their end."""
        self._has_ended = True
        self._thread.join(2 * PATIENCE_SECONDS)
        assert not self._thread.is_alive()
        return self.tally

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for kind, count in self._counts.items():
                for _ in range(count):
                    host = f"127.1.{self._network}.{len(tasks._tasks) + 1}"
                    tasks.create_task(self._keep_asking(host, is_keeping=kind == "keeping"), name=host)

    async def _keep_asking(self, host: str, *, is_keeping: bool) -> None:
        while not self._has_ended:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS), self._connected(host) as conversation:
                    await self._talk(conversation, is_keeping=is_keeping)
            except _RefusedError as error:
                self.tally.refused += 1
                if not self.may_be_refused:
                    await self._not_answered(host, error)
                await asyncio.sleep(PAUSE_SECONDS)
            except (OSError, EOFError, TimeoutError) as error:
                await self._not_answered(host, error)

    async def _talk(self, conversation: _Conversation, *, is_keeping: bool) -> None:
        end = asyncio.get_running_loop().time() + PATIENCE_SECONDS / 2
        while not self._has_ended and not conversation.is_over:
            await conversation.ask()
            self.tally.answered += 1
            await asyncio.sleep(PAUSE_SECONDS)
            if not is_keeping or asyncio.get_running_loop().time() > end:
                return

    async def _not_answered(self, host: str, error: Exception) -> None:
        if not self._retries:
            self.tally.lost.append(repr(error))
            return
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._connected(host) as conversation:
                await conversation.ask()
        except (_RefusedError, OSError, EOFError, TimeoutError) as second:
            self.tally.lost.append(f"{error!r}, then {second!r}")
        else:
            self.tally.retried += 1

    @contextlib.asynccontextmanager
    async def _connected(self, host: str) -> AsyncIterator[_Conversation]:
        try:
            reader, writer = await asyncio.open_connection(
                *("127.0.0.1", self._port),
                ssl=self._trust,
                server_hostname="localhost",
                local_addr=(host, 0),
            )
        except OSError as error:
            raise _RefusedError(repr(error)) from error
        self.tally.connections += 1
        self.tally.certificates.add(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        try:
            yield _Conversation(reader, writer)
        finally:
            writer.transport.abort()
