"""A connection with an unread response is not idle. test_connection has everything else, by requests."""

import asyncio
import contextlib
import socket
import ssl
import threading

import pytest

from kkdcpd.config import ConnectionsConfig, HttpConfig, TlsConfig
from kkdcpd.frontends.http.bridge import Head
from kkdcpd.frontends.http.connection import Connection
from kkdcpd.frontends.http.responses import Response
from kkdcpd.frontends.http.server import HttpServer
from kkdcpd.metrics.counters import Counters
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_acceptor
from tests.support.http_client import post
from tests.support.waiting import eventually

SMALL_BUFFER = 4096


class Handler:
    """Answers with a body of this size, and keeps the connection."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.connections: list[Connection] = []

    async def handle(self, head: Head, connection: Connection) -> Response:
        del head
        self.connections.append(connection)
        return Response(status=200, body=bytes(self.size))

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        raise AssertionError(connection, detail)


@pytest.fixture(scope="module", params=["plain", "TLS"])
def contexts(
    request: pytest.FixtureRequest, authority: Authority
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """The TLS contexts of the server and the client."""
    if request.param == "plain":
        return None, None
    pair = authority.issue("localhost", file_name="stream")
    return (
        build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key)),
        ssl.create_default_context(cafile=str(authority.certificate)),
    )


def read_late(address: tuple[str, int], tls: ssl.SSLContext | None, may_read: threading.Event) -> bytes:
    """Send a request from a small socket, and read everything when that is allowed."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.settimeout(PATIENCE_SECONDS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        sock.connect(address)
        if tls:
            sock = stack.enter_context(tls.wrap_socket(sock, server_hostname="localhost"))
        sock.sendall(post(b"x"))
        may_read.wait(PATIENCE_SECONDS)
        received = bytearray()
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            while data := sock.recv(65536):
                received += data
    return bytes(received)


@pytest.mark.parametrize("size", [20_000, 60_000, 120_000, 240_000])
async def test_evicted_connection_has_sent_its_whole_response(
    contexts: tuple[ssl.SSLContext | None, ssl.SSLContext | None], size: int
) -> None:
    """Whatever part of a response TLS keeps, a connection is idle only when the kernel has all of it."""
    handler, counters, may_read = Handler(size), Counters.discarding(), threading.Event()
    server = HttpServer(handler, HttpConfig(keepalive_timeout=0.5), ConnectionsConfig(), counters)
    async with (
        listening(tls=contexts[0]) as listener,
        running_acceptor(listener, make_connection=server.connection, counters=counters, per_client=1),
    ):
        address = listener.socket.getsockname()
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(
                asyncio.to_thread(read_late, address, contexts[1], may_read), name="client"
            )
            await eventually(lambda: has_connection(handler))
            async with Talk.to(listener) as second:
                # The new connection is refused at once, or the first one is evicted for it.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(second.rest(), 0.1)
                may_read.set()
                head, _, body = (await reading).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(body) == size


async def has_connection(handler: Handler) -> bool:
    return bool(handler.connections)
