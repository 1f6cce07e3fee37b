"""Who gets in, and what is told of those who don't, on both event loops."""

import asyncio
import contextlib
import logging
import resource
import ssl
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from kkdcpd.config import TlsConfig
from kkdcpd.frontends.door import Door, Listener
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening
from tests.frontends.site import Site, parse_line
from tests.support.http_client import HttpClient

HANDSHAKE_TIMEOUT = 0.3
GREETING = b"You are in."


class Greeter(asyncio.Protocol):
    """A way in that says so, and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(GREETING)
        transport.close()


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("localhost", file_name="door")
    return build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key))


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture(scope="module")
def distrust() -> ssl.SSLContext:
    return ssl.create_default_context()


class Log(logging.Handler):
    """What the door tells, as one can wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self._records: asyncio.Queue[logging.LogRecord] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._records.put_nowait(record)

    async def next(self) -> dict[str, Any]:
        """Wait for the next line."""
        record = await asyncio.wait_for(self._records.get(), PATIENCE_SECONDS)
        fields: dict[str, Any] = getattr(record, "fields", {})
        return {"event": record.getMessage(), "level": record.levelname, **fields}


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    log = Log()
    logger = logging.getLogger("kkdcpd.frontends.door")
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    yield log
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(log)


@contextlib.asynccontextmanager
async def keeping_door(*listeners: Listener, tls_context: ssl.SSLContext) -> AsyncIterator[None]:
    door = Door(
        listeners, tls_context=tls_context, handshake_timeout=HANDSHAKE_TIMEOUT, make_connection=Greeter
    )
    async with asyncio.TaskGroup() as tasks:
        keeping = tasks.create_task(door.keep(), name="door")
        yield
        keeping.cancel()


@pytest.fixture
async def listener(server_context: ssl.SSLContext) -> AsyncIterator[Listener]:
    """A listener that speaks TLS, with the door behind it."""
    async with listening(tls=True) as listener, keeping_door(listener, tls_context=server_context):
        yield listener


async def test_client_that_speaks_tls_is_let_in(listener: Listener, trust: ssl.SSLContext) -> None:
    async with Talk.to(listener, tls=trust) as talk:
        assert await talk.rest() == GREETING


async def test_plain_client_is_let_in_where_no_tls_is_spoken(server_context: ssl.SSLContext) -> None:
    async with (
        listening() as listener,
        keeping_door(listener, tls_context=server_context),
        Talk.to(listener) as talk,
    ):
        assert await talk.rest() == GREETING


async def test_every_listener_is_served(server_context: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    async with (
        listening() as plain,
        listening(host="::1", tls=True) as by_ipv6,
        keeping_door(plain, by_ipv6, tls_context=server_context),
        Talk.to(plain) as first,
        Talk.to(by_ipv6, tls=trust) as second,
    ):
        assert (await first.rest(), await second.rest()) == (GREETING, GREETING)


async def test_distrust_of_our_issuer_is_told_with_a_hint(
    listener: Listener, distrust: ssl.SSLContext, log: Log
) -> None:
    # asyncio's own client would not send its alert.
    port = listener.socket.getsockname()[1]
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(HttpClient, port, tls=distrust)
    told = await log.next()
    assert (told["event"], told["level"]) == ("tls handshake failed", "INFO")
    assert told["reason"] == "TLSV1_ALERT_UNKNOWN_CA"
    assert "http_anchors" in told["hint"]


@pytest.mark.parametrize(
    ("octets", "reason", "hint"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP_REQUEST", "plain HTTP on a TLS port"),
        (b"POST /KdcProxy HTTP/1.0\r\n\r\n", "HTTP_REQUEST", "plain HTTP on a TLS port"),
        (b"\x00\x00\x00\x05hello and more", "WRONG_VERSION_NUMBER", "this is not TLS"),
    ],
)
async def test_client_that_speaks_something_else_is_told_with_a_hint(
    listener: Listener, log: Log, octets: bytes, reason: str, hint: str
) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(octets)
        assert await talk.rest() == b""
        told = await log.next()
    assert told == {
        "event": "tls handshake failed",
        "level": "INFO",
        "client": "127.0.0.1",
        "port": talk.address[1],
        "reason": reason,
        "hint": hint,
    }


async def test_handshake_slower_than_its_timeout_ends(listener: Listener, log: Log) -> None:
    async with Talk.to(listener) as talk:
        assert await talk.rest() == b""
        told = await log.next()
    assert told["level"] == "DEBUG"


async def test_handshake_that_stops_half_way_ends(listener: Listener, log: Log) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"\x16\x03\x01\x02\x00\x01")
        assert await talk.rest() == b""
        told = await log.next()
    assert told["level"] == "DEBUG"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_port_scan_is_told_at_debug_only(listener: Listener, log: Log, how: str) -> None:
    async with Talk.to(listener) as talk:
        if how == "reset":
            talk.reset()
    assert (await log.next())["level"] == "DEBUG"


async def test_slow_handshake_holds_up_nobody_else(listener: Listener, trust: ssl.SSLContext) -> None:
    async with Talk.to(listener), Talk.to(listener, tls=trust) as talk:
        assert await talk.rest() == GREETING


async def test_hundred_failures_leave_the_door_open(
    listener: Listener, trust: ssl.SSLContext, log: Log
) -> None:
    for number in range(100):
        async with Talk.to(listener) as talk:
            await talk.send(b"\x16\x03\x01" + bytes(number))
            talk.reset()
    async with Talk.to(listener, tls=trust) as talk:
        assert await talk.rest() == GREETING
    levels = {(await log.next())["level"] for _ in range(100)}
    assert levels <= {"DEBUG", "INFO"}


async def test_closed_door_ends_handshakes_that_are_under_way(server_context: ssl.SSLContext) -> None:
    async with listening(tls=True) as listener, contextlib.AsyncExitStack() as stack:
        async with keeping_door(listener, tls_context=server_context):
            talk = await stack.enter_async_context(Talk.to(listener))
            # Whoever connected later is let in by now, so the first is within its handshake.
            other = await stack.enter_async_context(Talk.to(listener))
            await other.send(b"GET / HTTP/1.0\r\n\r\n")
            await other.rest()
        assert await talk.rest() == b""


def test_lack_of_descriptors_is_told_and_gets_over(site: Site) -> None:
    """The process's limit is lowered to what it has open, and raised again."""
    pid = site.daemon.pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    after = len(site.daemon.lines)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with site.plain_client() as client:
            line = site.daemon.wait_for_line(lambda line: "accept failed" in line, after=after)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert client.response().status == 405
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    told = parse_line(line)
    assert (told["level"], told["reason"]) == ("warning", "[Errno 24] Too many open files")
