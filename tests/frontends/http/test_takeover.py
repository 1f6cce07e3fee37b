"""A connection that another protocol takes over after a request, on both event loops."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from kkdcpd.config import ConnectionsConfig, HttpConfig, TlsConfig
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.frontends.http.connection import Connection, HttpServer
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.http.takeover import Upgrade
from kkdcpd.metrics.counters import Counters
from kkdcpd.tls import build_server_context
from kkdcpd.values import ConnectionActivity
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_acceptor
from tests.support.http_client import post

HEAD_TIMEOUT = 0.2
WRITE_TIMEOUT = 0.3
UPGRADE_REQUEST = b"GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


class Echo:
    """Returns each byte, and records the calls."""

    def __init__(self) -> None:
        self.activity = ConnectionActivity.SERVING
        self.transport: asyncio.Transport | None = None
        self.calls: list[str] = []
        self.is_lost = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport
        self.transport.write(data)

    def eof_received(self) -> None:
        self.calls.append("eof")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self.is_lost.set()


@dataclass
class Tunnels:
    """Answers GET with an upgrade, and POST with 200."""

    echoes: list[Echo] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest, connection: Connection) -> Response | Upgrade:
        if request.method == "POST" or not connection.can_upgrade(request):
            return Response(status=200, body=b"no upgrade")
        echo = Echo()
        self.echoes.append(echo)
        return Upgrade(headers=(("Upgrade", "websocket"),), successor=echo)

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        del connection
        return Response(status=400, body=detail.encode())


@dataclass
class Running:
    listener: Listener
    tunnels: Tunnels
    server: HttpServer
    client_tls: ssl.SSLContext | None

    @contextlib.asynccontextmanager
    async def upgraded(self, behind: bytes = b"", *, host: str | None = None) -> AsyncIterator[Talk]:
        """Connect and let the connection be taken over. `behind` is sent with the request."""
        async with Talk.to(self.listener, tls=self.client_tls, host=host) as talk:
            await talk.send(UPGRADE_REQUEST + behind)
            head = await talk.read_until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            assert b"Upgrade: websocket\r\n" in head
            assert b"Content-Length" not in head
            yield talk


@pytest.fixture(scope="module", params=["plain", "TLS"])
def contexts(
    request: pytest.FixtureRequest, authority: Authority
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The TLS contexts of the server and the client."""
    if request.param == "plain":
        return None, None
    pair = authority.issue("localhost", file_name="takeover")
    return (
        build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key)),
        ssl.create_default_context(cafile=str(authority.certificate)),
    )


@pytest.fixture
async def running(
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None],
) -> AsyncIterator[Running]:
    server_tls, client_tls = contexts
    tunnels, counters = Tunnels(), Counters.discarding()
    limits = ConnectionsConfig(write_timeout=WRITE_TIMEOUT, maximum=2, per_client=1)
    http = HttpConfig(head_timeout=HEAD_TIMEOUT, keepalive_timeout=HEAD_TIMEOUT)
    server = HttpServer(tunnels, http, limits, counters)
    async with (
        listening(tls=server_tls) as listener,
        running_acceptor(
            listener, make_connection=server.connection, counters=counters, maximum=2, per_client=1
        ),
    ):
        yield Running(listener, tunnels, server, client_tls)
        await server.stop(1.0)


async def wait(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE_SECONDS)


async def test_bytes_reach_the_successor_both_ways(running: Running) -> None:
    async with running.upgraded() as talk:
        await talk.send(b"\x00\xff no HTTP")
        assert await talk.read(10) == b"\x00\xff no HTTP"
    (echo,) = running.tunnels.echoes
    await wait(echo.is_lost)


async def test_bytes_behind_the_request_reach_the_successor(running: Running) -> None:
    async with running.upgraded(b"early\r\n\r\n") as talk:
        assert await talk.read(9) == b"early\r\n\r\n"


async def test_request_before_the_upgrade_is_answered(running: Running) -> None:
    async with Talk.to(running.listener, tls=running.client_tls) as talk:
        await talk.send(post(b"x") + UPGRADE_REQUEST)
        assert await talk.response() == (200, b"no upgrade")
        assert (await talk.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await talk.send(b"echo")
        assert await talk.read(4) == b"echo"


async def test_deadlines_of_http_end_with_the_take_over(running: Running) -> None:
    async with running.upgraded() as talk:
        await asyncio.sleep(3 * HEAD_TIMEOUT)
        await talk.send(b"late")
        assert await talk.read(4) == b"late"


@pytest.mark.parametrize(
    "head",
    [
        UPGRADE_REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"),
        UPGRADE_REQUEST.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n"),
    ],
    ids=["HTTP/1.0", "body"],
)
async def test_request_with_a_body_or_of_1_0_cannot_upgrade(running: Running, head: bytes) -> None:
    async with Talk.to(running.listener, tls=running.client_tls) as talk:
        await talk.send(head)
        assert await talk.response() == (200, b"no upgrade")


async def test_client_that_does_not_read_is_cut_off(running: Running) -> None:
    async with running.upgraded() as talk:
        (echo,) = running.tunnels.echoes
        talk.pause()
        assert echo.transport
        echo.transport.write(bytes(8_000_000))
        await wait(echo.is_lost)
    assert echo.calls == ["pause"]


async def test_client_that_reads_late_gets_everything(running: Running) -> None:
    async with running.upgraded() as talk:
        (echo,) = running.tunnels.echoes
        assert echo.transport
        echo.transport.write(bytes(1_000_000))
        assert await talk.read(1_000_000) == bytes(1_000_000)
        assert echo.calls in (["pause", "resume"], [])


async def test_successor_that_closes_sends_everything_first(running: Running) -> None:
    async with running.upgraded() as talk:
        (echo,) = running.tunnels.echoes
        assert echo.transport
        echo.transport.write(bytes(1_000_000))
        echo.transport.close()
        assert await talk.rest() == bytes(1_000_000)
    await wait(echo.is_lost)


async def test_end_of_the_client_s_data_ends_the_connection(running: Running) -> None:
    async with running.upgraded():
        (echo,) = running.tunnels.echoes
    await wait(echo.is_lost)
    assert echo.calls == ["eof"]


async def test_idle_successor_makes_room_and_a_serving_one_does_not(running: Running) -> None:
    async with running.upgraded() as first:
        (echo,) = running.tunnels.echoes
        async with Talk.to(running.listener) as second:
            assert await second.rest() == b""
        echo.activity = ConnectionActivity.IDLE
        async with running.upgraded():
            await wait(echo.is_lost)
            assert await first.rest() == b""


async def test_stop_closes_the_connection(running: Running) -> None:
    async with running.upgraded() as talk:
        await running.server.stop(1.0)
        assert await talk.rest() == b""
