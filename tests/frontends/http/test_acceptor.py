"""Connections that are accepted or refused, and their log lines, on both event loops."""

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import pytest

from kkdcpd.config import ConnectionsConfig, TlsConfig
from kkdcpd.frontends.http.acceptor import EAGER_HANDSHAKES, Arrival, Listener
from kkdcpd.guard.limits import HandshakeRate
from kkdcpd.tls import build_server_context
from kkdcpd.values import ConnectionActivity
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_acceptor
from tests.support.http_client import HttpClient
from tests.support.shared import own_table
from tests.support.waiting import eventually

HANDSHAKE_TIMEOUT = 0.3
GREETING = b"Accepted."


class Greeter(asyncio.Protocol):
    """A way in that sends a greeting and ends."""

    def __init__(self, arrival: Arrival) -> None:
        self._leave = arrival.leave

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self._leave()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(GREETING)
        transport.close()


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("localhost", file_name="acceptor")
    return build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key))


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture(scope="module")
def distrust() -> ssl.SSLContext:
    return ssl.create_default_context()


class Log(logging.Handler):
    """Collects the log records of the acceptor, so that a test can wait for the next record."""

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
    logger = logging.getLogger("kkdcpd.frontends.http")
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    yield log
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(log)


greeting_acceptor = partial(running_acceptor, make_connection=Greeter, handshake_timeout=HANDSHAKE_TIMEOUT)
"""Runs an acceptor. Its connections send a greeting and end."""


@pytest.fixture
async def listener(server_context: ssl.SSLContext) -> AsyncIterator[Listener]:
    """A listener that speaks TLS, with the acceptor behind it."""
    async with listening(tls=server_context) as listener, greeting_acceptor(listener):
        yield listener


async def test_tls_client_is_accepted(listener: Listener, trust: ssl.SSLContext) -> None:
    async with Talk.to(listener, tls=trust) as talk:
        assert await talk.rest() == GREETING


async def test_client_without_tls_is_accepted_by_a_listener_without_tls() -> None:
    async with (
        listening() as listener,
        greeting_acceptor(listener),
        Talk.to(listener) as talk,
    ):
        assert await talk.rest() == GREETING


async def test_every_listener_is_served(server_context: ssl.SSLContext, trust: ssl.SSLContext) -> None:
    async with (
        listening() as plain,
        listening(host="::1", tls=server_context) as by_ipv6,
        greeting_acceptor(plain, by_ipv6),
        Talk.to(plain) as first,
        Talk.to(by_ipv6, tls=trust) as second,
    ):
        assert (await first.rest(), await second.rest()) == (GREETING, GREETING)


async def test_client_that_distrusts_our_issuer_is_logged_with_advice(
    listener: Listener, distrust: ssl.SSLContext, log: Log
) -> None:
    # asyncio's own client would not send its alert.
    port = listener.socket.getsockname()[1]
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.to_thread(HttpClient, port, tls=distrust)
    logged = await log.next()
    assert (logged["event"], logged["level"]) == ("tls_handshake_failed", "INFO")
    assert logged["reason"] == "TLSV1_ALERT_UNKNOWN_CA"
    assert "http_anchors" in logged["advice"]


@pytest.mark.parametrize(
    ("raw", "reason", "advice"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP_REQUEST", "plain HTTP on a TLS port"),
        (b"POST /KdcProxy HTTP/1.0\r\n\r\n", "HTTP_REQUEST", "plain HTTP on a TLS port"),
        (b"\x00\x00\x00\x05hello and more", "WRONG_VERSION_NUMBER", "this is not TLS"),
    ],
)
async def test_client_of_another_protocol_is_logged_with_advice(
    listener: Listener, log: Log, raw: bytes, reason: str, advice: str
) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(raw)
        assert await talk.rest() == b""
        logged = await log.next()
    assert logged == {
        "event": "tls_handshake_failed",
        "level": "INFO",
        "client": "127.0.0.1",
        "port": talk.address[1],
        "reason": reason,
        "advice": advice,
    }


async def test_handshake_slower_than_its_timeout_ends(listener: Listener, log: Log) -> None:
    async with Talk.to(listener) as talk:
        assert await talk.rest() == b""
        logged = await log.next()
    assert logged["level"] == "DEBUG"


async def test_handshake_that_stops_half_way_ends(listener: Listener, log: Log) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"\x16\x03\x01\x02\x00\x01")
        assert await talk.rest() == b""
        logged = await log.next()
    assert logged["level"] == "DEBUG"


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_port_scan_is_logged_at_debug_only(listener: Listener, log: Log, how: str) -> None:
    async with Talk.to(listener) as talk:
        if how == "reset":
            talk.reset()
    assert (await log.next())["level"] == "DEBUG"


async def test_slow_handshake_delays_no_other_client(listener: Listener, trust: ssl.SSLContext) -> None:
    async with Talk.to(listener), Talk.to(listener, tls=trust) as talk:
        assert await talk.rest() == GREETING


async def test_hundred_failed_handshakes_do_not_stop_the_acceptor(
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


async def test_cancelled_acceptor_ends_handshakes_under_way(server_context: ssl.SSLContext) -> None:
    async with listening(tls=server_context) as listener, contextlib.AsyncExitStack() as stack:
        async with greeting_acceptor(listener):
            talk = await stack.enter_async_context(Talk.to(listener))
            # Later connections are accepted by now, so the first is within its handshake.
            other = await stack.enter_async_context(Talk.to(listener))
            await other.send(b"GET / HTTP/1.0\r\n\r\n")
            await other.rest()
        assert await talk.rest() == b""


class Guest(asyncio.Protocol):
    """A way in that greets, and stays until the client goes. It is always answering a request."""

    activity = ConnectionActivity.SERVING

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(GREETING)
        self._arrival.begin(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        del exc
        self._arrival.leave()

    def cut_off(self, reason: str) -> None:
        del reason
        self._transport.abort()


class IdleGuest(Guest):
    """A way in with connections that wait for their next request."""

    activity = ConnectionActivity.IDLE


hosting_acceptor = partial(running_acceptor, make_connection=Guest, handshake_timeout=HANDSHAKE_TIMEOUT)
"""Runs an acceptor. Its connections stay until the client leaves."""


async def enter(
    stack: contextlib.AsyncExitStack, listener: Listener, *, host: str = "127.0.0.1"
) -> Talk | None:
    """Connect; None if that is refused."""
    talk = await stack.enter_async_context(Talk.to(listener, host=host))
    try:
        return talk if await talk.read(len(GREETING)) == GREETING else None
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


async def has_room(listener: Listener) -> bool:
    async with contextlib.AsyncExitStack() as stack:
        return await enter(stack, listener) is not None


async def test_connections_over_the_maximum_are_closed_at_once(log: Log) -> None:
    async with (
        listening() as listener,
        hosting_acceptor(listener, maximum=16),
        contextlib.AsyncExitStack() as stack,
    ):
        entered = [await enter(stack, listener, host=f"127.0.0.{n + 1}") for n in range(20)]
        assert [bool(talk) for talk in entered] == [True] * 16 + [False] * 4
        assert await log.next() == {
            "event": "connections_refused",
            "level": "WARNING",
            "client": "127.0.0.17",
            "reason": "connections.maximum",
        }


async def test_ended_connection_no_longer_counts() -> None:
    async with (
        listening() as listener,
        hosting_acceptor(listener, maximum=16, per_client=2),
    ):
        for _ in range(10):
            async with contextlib.AsyncExitStack() as stack:
                talks = [await enter(stack, listener) for _ in range(2)]
                assert all(talks)
            await eventually(partial(has_room, listener))


async def test_failed_handshake_no_longer_counts(
    server_context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async def is_let_in(listener: Listener) -> bool:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            async with Talk.to(listener, tls=trust) as talk:
                return await talk.read(len(GREETING)) == GREETING
        return False

    async with (
        listening(tls=server_context) as listener,
        hosting_acceptor(listener, per_client=2),
    ):
        for raw in (b"This is no TLS.", b"", b"\x16\x03\x01") * 4:
            async with Talk.to(listener) as talk:
                await talk.send(raw)
                talk.reset()
        await eventually(partial(is_let_in, listener))


@pytest.mark.parametrize("raw", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"])
async def test_oldest_handshake_of_a_client_makes_room_for_its_next_connection(
    server_context: ssl.SSLContext, trust: ssl.SSLContext, log: Log, raw: bytes
) -> None:
    async with (
        listening(tls=server_context) as listener,
        hosting_acceptor(listener, per_client=2, handshake_timeout=PATIENCE_SECONDS),
        Talk.to(listener, host="127.0.0.2") as first,
        Talk.to(listener, host="127.0.0.2") as second,
    ):
        for talk in (first, second):
            await talk.send(raw)
        async with Talk.to(listener, tls=trust, host="127.0.0.2") as third:
            assert await third.read(len(GREETING)) == GREETING
            assert await first.rest() == b""
            assert await log.next() == {
                "event": "connection_evicted",
                "level": "WARNING",
                "client": "127.0.0.2",
                "reason": "connections.per_client",
                "activity": "receiving",
            }
            async with Talk.to(listener, tls=trust, host="127.0.0.2") as fourth:
                assert await fourth.read(len(GREETING)) == GREETING
            assert await second.rest() == b""


async def test_idle_connection_of_the_largest_network_makes_room(log: Log) -> None:
    async with (
        listening() as listener,
        hosting_acceptor(listener, make_connection=IdleGuest, maximum=16),
        contextlib.AsyncExitStack() as stack,
    ):
        large = [await enter(stack, listener, host="127.0.1.1") for _ in range(9)]
        small = [await enter(stack, listener, host=f"127.0.{n}.1") for n in range(2, 9)]
        assert await enter(stack, listener, host="127.0.9.1")
        assert large[0]
        assert await large[0].rest() == b""
        assert all(large)
        assert all(small)
        logged = await log.next()
    assert logged == {
        "event": "connection_evicted",
        "level": "WARNING",
        "client": "127.0.1.1",
        "reason": "connections.maximum",
        "activity": "idle",
    }


async def test_trusted_proxy_s_idle_connections_make_room_last() -> None:
    async with (
        listening() as listener,
        hosting_acceptor(
            listener, make_connection=IdleGuest, maximum=16, trusted_proxies=(ip_network("127.0.0.2"),)
        ),
        contextlib.AsyncExitStack() as stack,
    ):
        of_proxy = [await enter(stack, listener, host="127.0.0.2") for _ in range(15)]
        other = await enter(stack, listener, host="127.0.0.3")
        assert other
        assert await enter(stack, listener, host="127.0.0.2")
        assert await other.rest() == b""
        assert await enter(stack, listener, host="127.0.0.4")
        assert all(of_proxy)


@pytest.mark.parametrize(
    ("raw", "is_ended"),
    [
        (b"", False),
        (b"\x16\x03\x01", False),
        (b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(16000), False),
        (b"\x16\x03\x01\x40\x00\x01\x00\xff\xff" + bytes(8), True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
    ],
)
async def test_beyond_some_handshakes_each_begins_when_its_hello_is_there(
    server_context: ssl.SSLContext, trust: ssl.SSLContext, raw: bytes, *, is_ended: bool
) -> None:
    """A hello that is sent in pieces, later, is served; none that isn't whole makes an object of TLS."""
    async with (
        listening(tls=server_context) as listener,
        hosting_acceptor(listener, handshake_timeout=PATIENCE_SECONDS),
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(EAGER_HANDSHAKES):
            await stack.enter_async_context(Talk.to(listener))
        async with Talk.to(listener) as slow:
            before = len(tls_objects())
            await slow.send(raw)
            async with Talk.to(listener, tls=trust) as talk:
                assert await talk.read(len(GREETING)) == GREETING
            if is_ended:
                assert await slow.rest() == b""
            else:
                assert len(tls_objects()) <= before + 2  # of the other client and of the acceptor


async def test_hello_in_pieces_is_served_beside_many_handshakes(
    server_context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with (
        listening(tls=server_context) as listener,
        hosting_acceptor(listener, handshake_timeout=PATIENCE_SECONDS),
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(EAGER_HANDSHAKES):
            await stack.enter_async_context(Talk.to(listener))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
        async with Talk.to(listener) as talk:
            for is_first in (True, False):
                with contextlib.suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                flight = outgoing.read()
                for at in range(0, len(flight), 100 if is_first else len(flight)):
                    await talk.send(flight[at : at + 100] if is_first else flight)
                    await asyncio.sleep(0.001)
                if is_first:
                    incoming.write(await talk.read_some())
            incoming.write(await talk.read_some())
            assert tls.read(len(GREETING)) == GREETING


def tls_objects() -> list[ssl.SSLObject]:
    return [each for each in gc.get_objects() if isinstance(each, ssl.SSLObject)]


async def test_client_that_begins_too_many_handshakes_is_refused_before_tls(
    server_context: ssl.SSLContext, trust: ssl.SSLContext, log: Log
) -> None:
    connections = ConnectionsConfig(handshake_rate=0.1, handshake_burst=3)
    rate = HandshakeRate(connections, own_table(1024), lambda: 1000.0)
    async with (
        listening(tls=server_context) as listener,
        listening() as plain,
        hosting_acceptor(listener, plain, handshake_rate=rate),
    ):
        for _ in range(3):
            async with Talk.to(listener, tls=trust, host="127.0.0.2") as talk:
                assert await talk.read(len(GREETING)) == GREETING
        async with Talk.to(listener, host="127.0.0.2") as fourth:
            assert await fourth.rest() == b""
        assert await log.next() == {
            "event": "connections_refused",
            "level": "WARNING",
            "client": "127.0.0.2",
            "reason": "connections.handshake_rate",
        }
        async with Talk.to(listener, tls=trust, host="127.0.0.3") as other:
            assert await other.read(len(GREETING)) == GREETING
        async with Talk.to(plain, host="127.0.0.2") as without_tls:
            assert await without_tls.read(len(GREETING)) == GREETING


async def test_client_with_too_many_connections_is_refused_and_others_are_not(log: Log) -> None:
    async with (
        listening() as listener,
        hosting_acceptor(listener, per_client=3),
        contextlib.AsyncExitStack() as stack,
    ):
        entered = [await enter(stack, listener, host="127.0.0.2") for _ in range(5)]
        assert [bool(talk) for talk in entered] == [True] * 3 + [False] * 2
        assert await enter(stack, listener, host="127.0.0.3")
        logged = await log.next()
    assert (logged["client"], logged["reason"]) == ("127.0.0.2", "connections.per_client")


async def test_connections_of_a_trusted_proxy_have_no_client_limit() -> None:
    async with (
        listening() as listener,
        hosting_acceptor(listener, per_client=1, trusted_proxies=(ip_network("127.0.0.2"),)),
        contextlib.AsyncExitStack() as stack,
    ):
        assert all([await enter(stack, listener, host="127.0.0.2") for _ in range(5)])


async def test_connections_of_a_unix_socket_have_no_client_limit(tmp_path: Path) -> None:
    async with (
        listening(unix_path=tmp_path / "acceptor.sock") as listener,
        hosting_acceptor(listener, per_client=1),
        contextlib.AsyncExitStack() as stack,
    ):
        assert all([await enter(stack, listener) for _ in range(5)])


async def test_kernel_drops_unsent_bytes_after_the_write_timeout() -> None:
    milliseconds: list[int] = []

    class Observer(Guest):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            sock = transport.get_extra_info("socket")
            milliseconds.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            super().connection_made(transport)

    async with (
        listening() as listener,
        hosting_acceptor(listener, make_connection=Observer, write_timeout=7),
        Talk.to(listener) as talk,
    ):
        await talk.read(len(GREETING))
    assert milliseconds == [7000]
