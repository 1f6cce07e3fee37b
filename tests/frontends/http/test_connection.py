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
from typing import Any

import pytest
from aiohttp import web

from kkdcpd.config import ConnectionsConfig, HttpConfig, TlsConfig
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.frontends.http.connection import MAX_HEAD_BYTES, Connection, HttpServer
from kkdcpd.frontends.http.holdings import Holdings
from kkdcpd.frontends.http.responses import Response
from kkdcpd.metrics.counters import Counters
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_acceptor, running_worker
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD
from tests.support.fake_kdc import FakeKdc, Link, Script, reply
from tests.support.http_client import post
from tests.support.messages import krb_error
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
    raw = GOOD_REQUEST.replace(b" /KdcProxy ", f" http://{host}/KdcProxy ".encode())
    assert raw != GOOD_REQUEST
    async with Talk.to(listener) as talk:
        await talk.send(raw)
        assert await talk.response() == (200, GOOD_REPLY)


async def test_connect_to_what_is_no_host_is_not_found(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"CONNECT xn--0a:443 HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _ = await talk.response()
        assert (status, await talk.rest()) == (404, b"")


async def test_connection_with_an_unexpected_failure_is_closed(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(web.BaseRequest, "__init__", fail)
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


def held_until_it_ends(has_ended: asyncio.Event) -> Script:
    """Say nothing to a message, and tell when its exchange is over."""

    async def script(link: Link) -> None:
        await link.message()
        await link.hold()
        has_ended.set()

    return script


async def test_client_that_goes_ends_its_exchange(
    listener: Listener, kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    has_ended = asyncio.Event()

    kdc.tcp = held_until_it_ends(has_ended)
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
        record.message == "connection_aborted" and record.fields["reason"] == reason  # type: ignore[attr-defined]
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
        await eventually(partial(is_cut_off, log, "the client does not read its reply"))


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
        await eventually(partial(is_cut_off, log, "the client does not read its reply"))
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
    return await is_cut_off(log, "the client does not read its reply") or any(
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


async def test_response_in_the_kernel_s_hands_outlives_the_eviction_of_its_connection(
    kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    kdc.tcp = reply(krb_error(25, data=bytes(20_000)))
    settings = f"""
        [connections]
        per_client = 1
        [realms."EXAMPLE.COM"]
        kdc = ["tcp://127.0.0.1:{kdc.port}"]
    """
    async with (
        listening() as listener,
        running_worker(settings, listener),
        unread(listener) as (reader, writer),
    ):
        writer.write(GOOD_REQUEST)
        await eventually(partial(is_idle_connection_evicted_for_another, listener, log))
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].split()[0])
            assert len(await reader.readexactly(length)) > 20_000


async def test_connection_with_a_whole_request_is_not_evicted(kdc: FakeKdc) -> None:
    settings = f"""
        [connections]
        per_client = 1
        [realms."EXAMPLE.COM"]
        kdc = ["tcp://127.0.0.1:{kdc.port}"]
    """
    loop = asyncio.get_running_loop()
    async with listening() as listener, running_worker(settings, listener), asyncio.timeout(PATIENCE_SECONDS):
        address = listener.socket.getsockname()
        with (
            socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as first,
            socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as second,
        ):
            await loop.sock_connect(first, address)
            first.send(GOOD_REQUEST)
            assert GOOD_REPLY in await loop.sock_recv(first, 65536)
            # The worker finds both events in one round of its event loop, and the request first.
            first.send(GOOD_REQUEST)
            second.connect_ex(address)
            assert GOOD_REPLY in await loop.sock_recv(first, 65536)


async def is_idle_connection_evicted_for_another(listener: Listener, log: pytest.LogCaptureFixture) -> bool:
    if exchange_fields(log):
        async with Talk.to(listener):
            await asyncio.sleep(0.05)
    return any(record.message == "connection_evicted" for record in log.records)


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
    # Built before the connection, whose head has a short deadline.
    raw = in_chunks_of(1, bytes(262144))
    async with Talk.to(listener) as talk:
        if is_second:
            await talk.send(GOOD_REQUEST)
            await talk.response()
        await talk.send(raw)
        assert await talk.rest() == b""
    assert await is_cut_off(log, "too many chunks")


@pytest.mark.parametrize("size", [128, 4096, 262144])
async def test_body_in_chunks_of_some_size_is_read(listener: Listener, size: int) -> None:
    raw = in_chunks_of(size, bytes(262144))
    async with Talk.to(listener) as talk:
        await talk.send(raw)
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
    """A request whose head has this many bytes, in lines within the limit."""
    start, end = GOOD_REQUEST.split(b"\r\n\r\n", 1)
    lines = b""
    while (left := length - len(start) - len(lines) - 4) > 3000:
        lines += b"\r\nX: " + b"a" * 1995
    lines += b"\r\nX: " + b"a" * (left - 5)
    assert len(start + lines + b"\r\n\r\n") == length
    return start + lines + b"\r\n\r\n" + end


async def in_one(talk: Talk, raw: bytes) -> None:
    await talk.send(raw)


async def in_parts(talk: Talk, raw: bytes) -> None:
    for start in range(0, len(raw), 500):
        with contextlib.suppress(ConnectionError):
            await talk.send(raw[start : start + 500])
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
    assert fields["detail"] == f"head of more than {MAX_HEAD_BYTES} bytes"


Handle = Callable[[web.BaseRequest, Connection], Awaitable[Response]]


class Answering:
    """A handler that does as the test says."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def refuse_malformed(self, connection: Connection, detail: str) -> Response:
        del connection
        return Response(status=400, body=detail.encode())


@contextlib.asynccontextmanager
async def handling(handle: Handle, holdings: Holdings | None = None) -> AsyncIterator[Listener]:
    """Connections without the rest of the way in."""
    counters = Counters.discarding()
    server = HttpServer(
        Answering(handle), HttpConfig(head_timeout=HEAD_TIMEOUT), ConnectionsConfig(), counters
    )
    server.holdings = holdings or server.holdings
    async with (
        listening() as listener,
        running_acceptor(listener, make_connection=server.connection, counters=counters),
    ):
        yield listener
    await server.stop(LONG)


async def test_body_that_is_not_whole_is_held(log: pytest.LogCaptureFixture) -> None:
    """Two clients with nearly a whole body each, where there is room for one."""
    begun = asyncio.Event()

    async def read(_: web.BaseRequest, connection: Connection) -> Response:
        begun.set()
        await connection.read_body(200_000)
        raise AssertionError

    async with (
        handling(read, Holdings(200_000)) as listener,
        Talk.to(listener) as first,
        Talk.to(listener) as second,
    ):
        await first.send(post(bytes(131072))[:-1])
        await asyncio.wait_for(begun.wait(), PATIENCE_SECONDS)
        await second.send(post(bytes(131072))[:-1])
        assert await first.rest() == b""
    assert await is_cut_off(log, "too much is held")


async def test_head_after_a_refused_body_has_its_time() -> None:
    async def refuse_body(_: web.BaseRequest, connection: Connection) -> Response:
        del connection
        return Response(status=403, body=b"No.")

    async with handling(refuse_body) as listener, Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        assert await talk.response() == (403, b"No.")
        await talk.send(b"POST")
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


# -- What follows a request ----------------------------------------------------------------------------------

JUNK = b"\x00\xffnothing of HTTP\r\n\r\n"


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "raw",
    [GOOD_REQUEST, in_chunks_of(50, GOOD_BODY), in_chunks_of(1, GOOD_BODY)],
    ids=["length", "chunks", "small chunks"],
)
async def test_good_requests_with_junk_behind_them_are_answered_first(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, raw: bytes, count: int
) -> None:
    async with (
        listening() as listener,
        running_worker(slow_settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(raw * count + JUNK)
        for _ in range(count):
            assert await talk.response() == (200, GOOD_REPLY)
        assert (await talk.response())[0] == 400
        assert await talk.rest() == b""
    *answered, refused = exchange_fields(log)
    assert [fields["outcome"] for fields in answered] == ["answered"] * count
    assert refused["detail"] == (f"request line: unknown method (after request {count} of the connection)")


BROKEN_BODIES = {
    b"zz\r\n": "chunk size: not a hexadecimal number",
    b"1\r\nab\r\n": "chunk data: longer than the chunk size",
    b"1" + b"0" * 17 + b"\r\n": "chunk size: too large a number",
    b"1\rx": "chunk size: the line ends without LF",
}


@pytest.mark.parametrize("cut", ["one segment", "two segments"])
@pytest.mark.parametrize("end", BROKEN_BODIES)
async def test_broken_body_is_refused_at_once_however_it_comes(
    listener: Listener, log: pytest.LogCaptureFixture, end: bytes, cut: str
) -> None:
    """aiohttp tells of an error in a body only when the request is answered, which waits for the body."""
    head = b"POST /KdcProxy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    async with Talk.to(listener) as talk:
        if cut == "one segment":
            await talk.send(head + end)
        else:
            await talk.send(head)
            await asyncio.sleep(0.05)
            await talk.send(end)
        async with asyncio.timeout(LONG):
            assert (await talk.response())[0] == 400
        assert await talk.rest() == b""
    (fields,) = exchange_fields(log)
    assert (fields["outcome"], fields["detail"]) == ("malformed_http", BROKEN_BODIES[end])


BROKEN_AND_WITHOUT_END = {
    b"POST /KdcProxy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n": "chunk size:",
    b"POST /KdcProxy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc": "chunk data:",
    b"\0\r\n\0": "request line:",
    b"POST /KdcProxy HTTP/1.1\r\nA B: c": "header:",
}


@pytest.mark.parametrize("before", [0, 1], ids=["first", "second"])
@pytest.mark.parametrize("raw", BROKEN_AND_WITHOUT_END)
async def test_broken_request_is_refused_and_logged_even_if_the_client_ends_its_side(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, raw: bytes, before: int
) -> None:
    async with (
        listening() as listener,
        running_worker(slow_settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST * before + raw)
        talk.end()
        for _ in range(before):
            assert await talk.response() == (200, GOOD_REPLY)
        assert (await talk.response())[0] == 400
        assert await talk.rest() == b""
    refused = exchange_fields(log)[-1]
    assert refused["outcome"] == "malformed_http"
    assert refused["detail"].startswith(BROKEN_AND_WITHOUT_END[raw])


# -- Clients that end only their own side --------------------------------------------------------------------


class TlsClient:
    """A client's TLS over a plain socket, so that each of both can end by itself."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    @classmethod
    async def connect(cls, listener: Listener, context: ssl.SSLContext) -> "TlsClient":
        sock = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        await asyncio.get_running_loop().sock_connect(sock, listener.socket.getsockname())
        client = cls(sock, context)
        await client.do(client._tls.do_handshake)
        return client

    async def do(self, action: Callable[[], Any]) -> Any:
        """Do something that may have to send and receive."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    done = action()
                except ssl.SSLWantReadError:
                    done = None
                if self._outgoing.pending:
                    await loop.sock_sendall(self._sock, self._outgoing.read())
                if done is not None or (action == self._tls.do_handshake and self._tls.version()):
                    return done
                data = await loop.sock_recv(self._sock, 65536)
                if not data:
                    return b""
                self._incoming.write(data)

    async def send_and_end(self, raw: bytes) -> None:
        """Send bytes and close_notify at once."""
        self._tls.write(raw)
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        await asyncio.get_running_loop().sock_sendall(self._sock, self._outgoing.read())

    async def read(self) -> bytes:
        """Read some bytes, none at the end."""
        try:
            data: bytes = await self.do(lambda: self._tls.read(65536))
        except (ssl.SSLZeroReturnError, ssl.SSLSyscallError):
            return b""
        return data

    def close(self) -> None:
        """End TCP."""
        self._sock.close()


@pytest.fixture(scope="module")
def tls_contexts(authority: Authority) -> Contexts:
    pair = authority.issue("localhost", file_name="half-close")
    return Contexts(
        server=build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key)),
        client=ssl.create_default_context(cafile=str(authority.certificate)),
    )


@contextlib.asynccontextmanager
async def tls_client(kdc: FakeKdc, contexts: Contexts, settings: str = "") -> AsyncIterator[TlsClient]:
    assert contexts.client
    async with (
        listening(tls=contexts.server) as listener,
        running_worker(settings or slow_settings(kdc), listener),
    ):
        client = await TlsClient.connect(listener, contexts.client)
        try:
            yield client
        finally:
            client.close()


async def test_client_that_sends_close_notify_gets_its_reply(
    kdc: FakeKdc, tls_contexts: Contexts, may_answer: asyncio.Event, log: pytest.LogCaptureFixture
) -> None:
    may_answer.clear()
    async with tls_client(kdc, tls_contexts) as client:
        await client.send_and_end(GOOD_REQUEST)
        await kdc.wait_for_messages()
        await asyncio.sleep(0.1)
        may_answer.set()
        answer = b""
        while not answer.endswith(GOOD_REPLY):
            answer += await client.read()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert await client.read() == b""
    (fields,) = exchange_fields(log)
    assert fields["outcome"] == "answered"


@pytest.mark.parametrize("raw", [b"", b"POST", GOOD_REQUEST[:-1]], ids=["nothing", "a head", "a body"])
async def test_close_notify_ends_a_connection_without_a_whole_request(
    kdc: FakeKdc, tls_contexts: Contexts, raw: bytes
) -> None:
    async with tls_client(kdc, tls_contexts) as client:
        async with asyncio.timeout(LONG):
            if raw:
                await client.send_and_end(raw)
            else:
                await client.send_and_end(GOOD_REQUEST)
                while not (await client.read()).endswith(GOOD_REPLY):
                    pass
            assert await client.read() == b""


async def test_client_that_ends_tcp_under_tls_has_left(
    kdc: FakeKdc, tls_contexts: Contexts, log: pytest.LogCaptureFixture
) -> None:
    has_ended = asyncio.Event()

    kdc.tcp = held_until_it_ends(has_ended)
    async with tls_client(kdc, tls_contexts) as client:
        await client.send_and_end(GOOD_REQUEST)
        await kdc.wait_for_messages()
        client.close()
        await asyncio.wait_for(has_ended.wait(), PATIENCE_SECONDS)
    (gone,) = exchange_fields(log)
    assert gone["outcome"] == "client_gone"


@pytest.mark.parametrize("is_unix", [False, True], ids=["TCP", "unix"])
async def test_client_that_shuts_down_its_side_gets_its_replies(
    kdc: FakeKdc, tmp_path: Path, may_answer: asyncio.Event, is_unix: bool
) -> None:
    may_answer.clear()
    path = tmp_path / "http.sock"
    async with (
        listening(unix_path=path if is_unix else None) as listener,
        running_worker(slow_settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST * 2)
        talk.end()
        await kdc.wait_for_messages()
        await asyncio.sleep(0.1)
        may_answer.set()
        for _ in range(2):
            assert await talk.response() == (200, GOOD_REPLY)
        assert await talk.rest() == b""


async def test_client_that_closes_its_unix_socket_has_left(
    kdc: FakeKdc, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    has_ended = asyncio.Event()

    kdc.tcp = held_until_it_ends(has_ended)
    async with (
        listening(unix_path=tmp_path / "http.sock") as listener,
        running_worker(slow_settings(kdc), listener),
    ):
        async with Talk.to(listener) as talk:
            await talk.send(GOOD_REQUEST)
            await kdc.wait_for_messages()
        await asyncio.wait_for(has_ended.wait(), PATIENCE_SECONDS)
    (gone,) = exchange_fields(log)
    assert gone["outcome"] == "client_gone"


# -- What a request takes, and when --------------------------------------------------------------------------


def crowded_settings(kdc: FakeKdc, rates: str) -> str:
    return f"""
        [guard.rates]
        {rates}
        [realms."EXAMPLE.COM"]
        kdc = ["tcp://127.0.0.1:{kdc.port}"]
    """


async def test_slow_bodies_hold_no_slots(kdc: FakeKdc) -> None:
    async with (
        listening() as listener,
        running_worker(crowded_settings(kdc, "client_concurrency = 1"), listener),
        contextlib.AsyncExitStack() as stack,
    ):
        slow = [await stack.enter_async_context(Talk.to(listener)) for _ in range(20)]
        for talk in slow:
            await talk.send(GOOD_REQUEST[:-1])
        async with Talk.to(listener) as honest:
            await honest.send(GOOD_REQUEST)
            assert await honest.response() == (200, GOOD_REPLY)
        for talk in slow:
            await talk.send(GOOD_REQUEST[-1:])
            assert await talk.response() == (200, GOOD_REPLY)


async def test_whole_requests_hold_slots(kdc: FakeKdc, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with (
        listening() as listener,
        running_worker(crowded_settings(kdc, "client_concurrency = 1"), listener),
        Talk.to(listener) as first,
        Talk.to(listener) as second,
    ):
        await first.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        await second.send(GOOD_REQUEST)
        assert (await second.response())[0] == 429
        may_answer.set()
        assert await first.response() == (200, GOOD_REPLY)


async def test_heads_without_bodies_are_charged(kdc: FakeKdc) -> None:
    async with (
        listening() as listener,
        running_worker(crowded_settings(kdc, "client_rate = 0.1\nclient_burst = 3"), listener),
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(3):
            talk = await stack.enter_async_context(Talk.to(listener))
            await talk.send(GOOD_REQUEST[:-1])
        await talk.send(GOOD_REQUEST[-1:])
        assert await talk.response() == (200, GOOD_REPLY)
        async with Talk.to(listener) as late:
            await late.send(GOOD_REQUEST[:-1])
            assert (await late.response())[0] == 429
