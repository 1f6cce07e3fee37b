"""An HTTP way in ends its connections."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kkdcpd.config import ConnectionsConfig, HttpConfig
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.frontends.http.bridge import Head
from kkdcpd.frontends.http.connection import Connection
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.http.server import HttpServer
from kkdcpd.metrics.counters import Counters
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_acceptor
from tests.support.http_client import post


class Handler:
    """Answers when it may."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def handle(self, head: Head, connection: Connection) -> Response:
        del head, connection
        self.has_begun.set()
        await self.may_answer.wait()
        return Response(status=200, body=b"done")

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        raise AssertionError(connection, detail)


@contextlib.asynccontextmanager
async def running(handler: Handler) -> AsyncIterator[tuple[HttpServer, Listener]]:
    counters = Counters.discarding()
    server = HttpServer(handler, HttpConfig(), ConnectionsConfig(), counters)
    async with (
        listening() as listener,
        running_acceptor(listener, make_connection=server.connection, counters=counters),
    ):
        yield server, listener


async def test_connection_of_a_draining_server_ends_with_its_response() -> None:
    handler = Handler()
    async with running(handler) as (server, listener), Talk.to(listener) as talk:
        await talk.send(post(b"x"))
        await asyncio.wait_for(handler.has_begun.wait(), PATIENCE_SECONDS)
        server.drain()
        handler.may_answer.set()
        assert await talk.response() == (200, b"done")
        assert await talk.rest() == b""


async def test_stop_ends_idle_connections_and_finishes_requests() -> None:
    handler = Handler()
    async with running(handler) as (server, listener), Talk.to(listener) as idle, Talk.to(listener) as talk:
        handler.may_answer.set()
        await idle.send(post(b"x"))
        assert await idle.response() == (200, b"done")
        handler.has_begun.clear()
        handler.may_answer.clear()
        await talk.send(post(b"x"))
        await asyncio.wait_for(handler.has_begun.wait(), PATIENCE_SECONDS)
        stopping = asyncio.get_running_loop().create_task(server.stop(PATIENCE_SECONDS))
        assert await idle.rest() == b""
        handler.may_answer.set()
        assert await talk.response() == (200, b"done")
        await stopping
