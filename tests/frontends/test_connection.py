"""One connection's deadlines and counts, on both event loops."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web

from kkdcpd.config import ConnectionsConfig, HttpConfig, TlsConfig
from kkdcpd.frontends.connection import FREE_BYTES, MAX_HEAD_BYTES, Connection, Holdings, Request
from kkdcpd.frontends.door import Arrival, Door, Listener
from kkdcpd.metrics.counters import Counters
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_worker
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD
from tests.support.fake_kdc import FakeKdc, Link, reply
from tests.support.http_client import post
from tests.support.messages import krb_error
from tests.support.shared import alone
from tests.support.waiting import eventually

HEAD_TIMEOUT = 0.2
WRITE_TIMEOUT = 0.3
LONG = 5.0
"""A timeout that no test waits for."""


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kkdcpd")
    return caplog


@pytest.fixture
def may_answer() -> asyncio.Event:
    """Set when the KDC may answer: from the start, unless a test clears it."""
    event = asyncio.Event()
    event.set()
    return event


@pytest.fixture
async def kdc(may_answer: asyncio.Event) -> AsyncIterator[FakeKdc]:
    async with FakeKdc(tcp=reply(REPLY_PAYLOAD, when=may_answer)) as running:
        yield running


def settings(kdc: FakeKdc, keepalive_timeout: float = LONG) -> str:
    return f"""
        [http]
        head_timeout = {HEAD_TIMEOUT}
        keepalive_timeout = {keepalive_timeout}
        max_requests_per_connection = 3
        [realms."EXAMPLE.COM"]
        kdc = ["tcp://127.0.0.1:{kdc.port}"]
    """


@pytest.fixture
async def listener(kdc: FakeKdc) -> AsyncIterator[Listener]:
    """Where a worker listens."""
    async with listening() as listener, running_worker(settings(kdc), listener):
        yield listener


def exchange_fields(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in log.records if record.message == "exchange"]  # type: ignore[attr-defined]


async def elapsed_until_end(talk: Talk) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await talk.rest() == b""
    return loop.time() - started


async def test_silent_connection_ends_after_head_timeout(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


async def test_half_a_head_ends_after_head_timeout(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"POST /KdcProxy HTTP/1.1\r\n")
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


async def test_half_a_second_head_ends_after_head_timeout(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await talk.response()
        await talk.send(b"POST")
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


async def test_idle_connection_ends_after_keepalive_timeout_only(kdc: FakeKdc) -> None:
    async with (
        listening() as listener,
        running_worker(settings(kdc, keepalive_timeout=3 * HEAD_TIMEOUT), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await talk.response()
        assert 2 * HEAD_TIMEOUT < await elapsed_until_end(talk) < LONG


async def test_long_exchange_is_not_the_client_s_fault(kdc: FakeKdc, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    asyncio.get_running_loop().call_later(3 * HEAD_TIMEOUT, may_answer.set)
    async with (
        listening() as listener,
        running_worker(settings(kdc, keepalive_timeout=HEAD_TIMEOUT), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)


async def test_head_that_comes_during_an_exchange_waits_for_its_end(
    listener: Listener, kdc: FakeKdc, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        await talk.send(GOOD_REQUEST[:30])
        asyncio.get_running_loop().call_later(HEAD_TIMEOUT * 2, may_answer.set)
        assert await talk.response() == (200, GOOD_REPLY)
        await talk.send(GOOD_REQUEST[30:])
        assert await talk.response() == (200, GOOD_REPLY)


async def test_connection_ends_after_as_many_requests_as_it_may_bear(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        for _ in range(3):
            await talk.send(GOOD_REQUEST)
            assert await talk.response() == (200, GOOD_REPLY)
        assert await talk.rest() == b""


async def test_pipelined_requests_count_too(listener: Listener, kdc: FakeKdc) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST * 10)
        assert (await talk.rest()).count(b"HTTP/1.1 200 OK") == 3
    assert kdc.connections == 3


async def test_each_connection_counts_for_itself(listener: Listener) -> None:
    async with Talk.to(listener) as first, Talk.to(listener) as second:
        for talk in (first, second, first, second, first, second):
            await talk.send(GOOD_REQUEST)
            assert await talk.response() == (200, GOOD_REPLY)


async def test_malformed_request_is_answered_and_ends_the_connection(
    listener: Listener, log: pytest.LogCaptureFixture
) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"\0\r\n\r\n")
        status, _ = await talk.response()
        assert (status, await talk.rest()) == (400, b"")
    (fields,) = exchange_fields(log)
    assert fields["outcome"] == "malformed_http"
    assert "\n" not in fields["detail"]


@pytest.mark.parametrize("host", ["localhost", "xn--0a", "xn--a-.b", "[::1]", "a..b"])
async def test_host_in_a_target_means_nothing(listener: Listener, host: str) -> None:
    octets = GOOD_REQUEST.replace(b" /KdcProxy ", f" http://{host}/KdcProxy ".encode())
    assert octets != GOOD_REQUEST
    async with Talk.to(listener) as talk:
        await talk.send(octets)
        assert await talk.response() == (200, GOOD_REPLY)


async def test_connect_to_what_is_no_host_is_not_found(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"CONNECT xn--0a:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _ = await talk.response()
        assert (status, await talk.rest()) == (404, b"")


async def test_connection_that_fails_in_a_way_that_nobody_thought_of_is_given_up(
    kdc: FakeKdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Request, "__init__", fail)
    async with (
        listening() as listener,
        running_worker(slow_settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        assert WRITE_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


async def test_client_that_goes_ends_its_exchange(
    listener: Listener, kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    has_ended = asyncio.Event()

    async def script(link: Link) -> None:
        await link.message()
        await link.hold()
        has_ended.set()

    kdc.tcp = script
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        talk.reset()
        await asyncio.wait_for(has_ended.wait(), PATIENCE_SECONDS)
    (gone,) = exchange_fields(log)
    assert (gone["outcome"], "status" in gone) == ("client_gone", False)


async def test_client_is_known_by_its_address(listener: Listener, log: pytest.LogCaptureFixture) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await talk.response()
        address, port = talk.address
    (fields,) = exchange_fields(log)
    assert (fields["client"], fields["port"], fields["tls"]) == (address, port, "none")


async def test_client_by_ipv6_is_known_by_its_address(kdc: FakeKdc, log: pytest.LogCaptureFixture) -> None:
    async with (
        listening(host="::1") as listener,
        running_worker(settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await talk.response()
        address, port = talk.address
    (fields,) = exchange_fields(log)
    assert (fields["client"], fields["port"]) == (address, port)


async def test_client_of_a_unix_socket_is_known_as_such(
    kdc: FakeKdc, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "http.sock"
    async with (
        listening(unix_path=path) as listener,
        running_worker(settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
    (fields,) = exchange_fields(log)
    assert (fields["client"], "port" in fields) == ("unix", False)


# -- Clients that take or give too much ----------------------------------------------------------------------

BIG_REPLY = krb_error(25, data=bytes(900_000))
"""More than the kernel takes for a client that doesn't read."""

SMALL_BUFFER = 4096


def slow_settings(kdc: FakeKdc) -> str:
    return f"""
        [connections]
        write_timeout = {WRITE_TIMEOUT}
        [realms."EXAMPLE.COM"]
        kdc = ["tcp://127.0.0.1:{kdc.port}"]
    """


@contextlib.asynccontextmanager
async def unread(
    listener: Listener, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect as a client that reads nothing by itself, and has little room."""
    sock = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    await asyncio.get_running_loop().sock_connect(sock, listener.socket.getsockname())
    reader, writer = await asyncio.open_connection(
        sock=sock, ssl=tls, server_hostname="localhost" if tls else None, limit=SMALL_BUFFER
    )
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def is_cut_off(log: pytest.LogCaptureFixture, reason: str) -> bool:
    return any(
        record.message == "connection_cut_off" and record.fields["reason"] == reason  # type: ignore[attr-defined]
        for record in log.records
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    """Of both ends: None without TLS."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None


@pytest.fixture(scope="module", params=["plain", "TLS"])
def contexts(request: pytest.FixtureRequest, authority: Authority) -> Contexts:
    if request.param == "plain":
        return Contexts()
    pair = authority.issue("localhost", file_name="connection")
    return Contexts(
        server=build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key)),
        client=ssl.create_default_context(cafile=str(authority.certificate)),
    )


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
async def test_client_that_does_not_read_its_reply_is_cut_off(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, contexts: Contexts, version: str
) -> None:
    kdc.tcp = reply(BIG_REPLY)
    async with (
        listening(tls=contexts.server) as listener,
        running_worker(slow_settings(kdc), listener),
        unread(listener, contexts.client) as (_reader, writer),
    ):
        writer.write(post(GOOD_BODY, version=version))
        await eventually(partial(is_cut_off, log, "the reply isn't read"))


async def test_client_that_asks_again_and_never_reads_is_cut_off(
    kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    kdc.tcp = reply(krb_error(25, data=bytes(60_000)))
    async with (
        listening() as listener,
        running_worker(slow_settings(kdc), listener),
        unread(listener) as (_reader, writer),
    ):
        writer.write(GOOD_REQUEST * 200)
        await eventually(partial(is_cut_off, log, "the reply isn't read"))
    assert len(kdc.messages) < 200


async def test_client_that_half_closes_and_never_reads_is_cut_off(
    kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    kdc.tcp = reply(BIG_REPLY)
    async with (
        listening() as listener,
        running_worker(slow_settings(kdc), listener),
        unread(listener) as (_reader, writer),
    ):
        writer.write(GOOD_REQUEST)
        await kdc.wait_for_messages()
        writer.write_eof()
        await eventually(partial(is_cut_off_or_gone, log))


async def is_cut_off_or_gone(log: pytest.LogCaptureFixture) -> bool:
    return await is_cut_off(log, "the reply isn't read") or any(
        fields["outcome"] == "client_gone" for fields in exchange_fields(log)
    )


async def test_long_reply_reaches_a_client_that_reads(kdc: FakeKdc, contexts: Contexts) -> None:
    kdc.tcp = reply(BIG_REPLY)
    async with (
        listening(tls=contexts.server) as listener,
        running_worker(slow_settings(kdc), listener),
        unread(listener, contexts.client) as (reader, writer),
    ):
        writer.write(GOOD_REQUEST)
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].split()[0])
            assert BIG_REPLY in await reader.readexactly(length)


async def test_requests_far_ahead_of_their_replies_are_cut_off(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with (
        listening() as listener,
        running_worker(slow_settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        with contextlib.suppress(ConnectionError):
            for _ in range(30):
                await talk.send(post(bytes(20_000)))
        assert await talk.rest() == b""
    assert await is_cut_off(log, "too many requests ahead")


def in_chunks_of(size: int, body: bytes) -> bytes:
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"POST /KdcProxy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize("is_second", [False, True], ids=["first request", "second request"])
async def test_body_in_thousands_of_chunks_is_cut_off(
    listener: Listener, log: pytest.LogCaptureFixture, is_second: bool
) -> None:
    async with Talk.to(listener) as talk:
        if is_second:
            await talk.send(GOOD_REQUEST)
            await talk.response()
        await talk.send(in_chunks_of(1, bytes(262144)))
        assert await talk.rest() == b""
    assert await is_cut_off(log, "too many chunks")


@pytest.mark.parametrize("size", [128, 4096, 262144])
async def test_body_in_chunks_of_some_size_is_read(listener: Listener, size: int) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(in_chunks_of(size, bytes(262144)))
        status, _ = await talk.response()
        assert status == 400


async def test_one_whole_request_may_be_ahead(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with (
        listening() as listener,
        running_worker(slow_settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        await talk.send(post(bytes(262144)))
        may_answer.set()
        assert await talk.response() == (200, GOOD_REPLY)
        assert (await talk.response())[0] == 400
    assert [fields["outcome"] for fields in exchange_fields(log)] == ["answered", "malformed_message"]


def head_of(length: int) -> bytes:
    """A request whose head has so many octets, in lines that are none too long."""
    start, end = GOOD_REQUEST.split(b"\r\n\r\n", 1)
    lines = b""
    while (left := length - len(start) - len(lines) - 4) > 3000:
        lines += b"\r\nX: " + b"a" * 1995
    lines += b"\r\nX: " + b"a" * (left - 5)
    assert len(start + lines + b"\r\n\r\n") == length
    return start + lines + b"\r\n\r\n" + end


async def in_one(talk: Talk, octets: bytes) -> None:
    await talk.send(octets)


async def in_parts(talk: Talk, octets: bytes) -> None:
    for start in range(0, len(octets), 500):
        with contextlib.suppress(ConnectionError):
            await talk.send(octets[start : start + 500])
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("send", [in_one, in_parts])
async def test_longest_head_is_taken(listener: Listener, send: Callable[..., Awaitable[None]]) -> None:
    async with Talk.to(listener) as talk:
        for _ in range(2):
            await send(talk, head_of(MAX_HEAD_BYTES))
            assert await talk.response() == (200, GOOD_REPLY)


@pytest.mark.parametrize(
    ("send", "length"),
    [(in_one, MAX_HEAD_BYTES + 1), (in_parts, MAX_HEAD_BYTES + 1), (in_one, 40_000)],
)
async def test_longer_head_is_malformed(
    listener: Listener,
    log: pytest.LogCaptureFixture,
    send: Callable[..., Awaitable[None]],
    length: int,
) -> None:
    async with Talk.to(listener) as talk:
        await send(talk, head_of(length))
        assert (await talk.response())[0] == 400
        assert await talk.rest() == b""
    (fields,) = exchange_fields(log)
    assert fields["detail"] == f"head of more than {MAX_HEAD_BYTES} octets"


class Held:
    """A connection of which only matters whether it is cut off."""

    def __init__(self, name: str, cut: list[str]) -> None:
        self._name = name
        self._cut = cut

    def cut_off(self, reason: str) -> None:
        assert reason == "too much is held"
        self._cut.append(self._name)


def test_who_has_held_too_much_for_longest_is_cut_off() -> None:
    cut: list[str] = []
    first, second, third = (cast("Connection", Held(name, cut)) for name in ("first", "second", "third"))
    holdings = Holdings(100_000)
    holdings.hold(first, 40_000)
    holdings.hold(second, 40_000)
    holdings.hold(first, 60_000)
    assert not cut
    holdings.hold(third, 20_000)
    assert cut == ["first"]
    holdings.hold(second, 80_000)
    assert cut == ["first"]
    holdings.release(third)
    holdings.hold(first, 20_000)
    assert cut == ["first"]
    holdings.hold(first, 20_001)
    assert cut == ["first", "second"]


def test_little_is_never_held_against_anybody() -> None:
    cut: list[str] = []
    holdings = Holdings(100_000)
    for number in range(100):
        holdings.hold(cast("Connection", Held(str(number), cut)), FREE_BYTES)
    assert not cut


@contextlib.asynccontextmanager
async def handling(
    handle: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], holdings: Holdings
) -> AsyncIterator[Listener]:
    """Connections without the rest of the way in."""
    server = web.Server(handle, handler_cancellation=True)
    counters = Counters.unread()

    def make(arrival: Arrival) -> Connection:
        config = HttpConfig(head_timeout=HEAD_TIMEOUT)
        return Connection(
            server, config, ConnectionsConfig(), arrival, holdings, counters=counters, refuse_malformed=refuse
        )

    async with listening() as listener, asyncio.TaskGroup() as tasks:
        door = Door(
            [listener],
            ConnectionsConfig(),
            alone(),
            handshake_timeout=1,
            counters=counters,
            make_connection=make,
        )
        keeping = tasks.create_task(door.keep(), name="door")
        yield listener
        keeping.cancel()
    await server.shutdown(LONG)


def refuse(connection: Connection, detail: str) -> web.StreamResponse:
    raise AssertionError(connection, detail)


async def test_body_that_is_not_whole_is_held(log: pytest.LogCaptureFixture) -> None:
    """Two clients with nearly a whole body each, where there is room for one."""
    nearly = asyncio.Event()

    async def read(request: web.BaseRequest) -> web.StreamResponse:
        count = 0
        while count < 262143:
            count += len(await request.content.readany())
        nearly.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with (
        handling(read, Holdings(300_000)) as listener,
        Talk.to(listener) as first,
        Talk.to(listener) as second,
    ):
        await first.send(post(bytes(262144))[:-1])
        await asyncio.wait_for(nearly.wait(), PATIENCE_SECONDS)
        await second.send(post(bytes(262144))[:-1])
        assert await first.rest() == b""
    assert await is_cut_off(log, "too much is held")


async def test_head_after_a_body_that_nobody_wanted_has_its_time() -> None:
    async def refuse_body(request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("Connection", request.protocol)
        connection.request_begins()
        connection.request_ends()
        return web.Response(status=403, text="No.")

    async with handling(refuse_body, Holdings()) as listener, Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        assert await talk.response() == (403, b"No.")
        await talk.send(b"POST")
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG
