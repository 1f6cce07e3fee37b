"""An HTTP way in runs, drains and stops. The worker's tests have it with all of its parts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from kkdcpd.config import ConnectionsConfig, HttpConfig
from kkdcpd.frontends.http.acceptor import Acceptor, Listener
from kkdcpd.frontends.http.bridge import Head
from kkdcpd.frontends.http.connection import Connection
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.http.server import HttpServer
from kkdcpd.frontends.http.way_in import HttpWayIn
from kkdcpd.metrics.counters import Counters
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening
from tests.support.http_client import post
from tests.support.shared import own_counts


class Answering:
    """Answers every request at once."""

    def __init__(self) -> None:
        counters = Counters.discarding()
        self.server = HttpServer(self, HttpConfig(), ConnectionsConfig(), counters)
        self.drain = self.server.drain

    async def stop(self) -> None:
        await self.server.stop(0.1)

    async def handle(self, head: Head, connection: Connection) -> Response:
        del head, connection
        return Response(status=200, body=b"done")

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        raise AssertionError(connection, detail)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[HttpWayIn, Listener, asyncio.Task[None]]]:
    frontend = Answering()
    async with listening() as listener, asyncio.TaskGroup() as tasks:
        acceptor = Acceptor(
            [listener],
            ConnectionsConfig(),
            own_counts(),
            handshake_timeout=1.0,
            counters=Counters.discarding(),
            make_connection=frontend.server.connection,
        )
        way_in = HttpWayIn("test", acceptor, frontend)
        serving = tasks.create_task(way_in.run(), name="way in")
        yield way_in, listener, serving
        serving.cancel()


async def ask(talk: Talk) -> None:
    await talk.send(post(b"x"))
    assert await talk.response() == (200, b"done")


async def test_drained_way_in_ends_with_its_last_connection() -> None:
    async with running() as (way_in, listener, serving), Talk.to(listener) as talk:
        await ask(talk)
        assert way_in.open == 1
        way_in.drain()
        await asyncio.sleep(0.05)
        assert not serving.done()
        assert listener.socket.fileno() == -1
        await ask(talk)
        assert await talk.rest() == b""
        await asyncio.wait_for(serving, PATIENCE_SECONDS)
        assert way_in.open == 0


async def test_stop_closes_the_connections_that_are_left() -> None:
    async with running() as (way_in, listener, serving), Talk.to(listener) as talk:
        await ask(talk)
        serving.cancel()
        await asyncio.wait([serving])
        await way_in.stop()
        assert await talk.rest() == b""


async def test_few_connections_are_no_load() -> None:
    async with running() as (way_in, listener, _), Talk.to(listener) as talk:
        await ask(talk)
        assert (way_in.has_load_dropped(), way_in.has_outlived_load) == (False, False)
