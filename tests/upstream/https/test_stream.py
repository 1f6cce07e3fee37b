"""A TCP connection that turns to TLS, on real sockets."""

import asyncio
import socket
import ssl

import pytest

from kkdcpd.config import HttpsConfig
from kkdcpd.upstream.https.client_tls import build_client_context
from kkdcpd.upstream.https.stream import Stream
from kkdcpd.upstream.sockets import Readiness
from lab.authority import CertificateFiles
from tests.support import fake_kdc_proxy
from tests.support.fake_kdc_proxy import NAME, FakeKdcProxy, Link

PATIENCE_SECONDS = 10.0


class Recorder:
    """Records the events of a stream in a queue."""

    def __init__(self) -> None:
        self._events: asyncio.Queue[str | bytes | OSError] = asyncio.Queue()

    def connected(self) -> None:
        self._events.put_nowait("connected")

    def secured(self) -> None:
        self._events.put_nowait("secured")

    def received(self, data: bytes) -> None:
        self._events.put_nowait(data)

    def ended(self, error: OSError) -> None:
        self._events.put_nowait(error)

    async def next(self) -> str | bytes | OSError:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._events.get()

    async def next_bytes(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = await self.next()
            assert isinstance(part, bytes)
            data += part
        return data

    @property
    def is_quiet(self) -> bool:
        return self._events.empty()


def stream_of(recorder: Recorder) -> Stream:
    return Stream(socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK), Readiness(), recorder)


async def secured_stream(proxy: FakeKdcProxy, recorder: Recorder, options: HttpsConfig) -> Stream:
    stream = stream_of(recorder)
    stream.connect(("127.0.0.1", proxy.port))
    assert await recorder.next() == "connected"
    stream.secure(build_client_context(options), NAME)
    assert await recorder.next() == "secured"
    return stream


async def echo(link: Link) -> None:
    while True:
        await link.write(await link.read())


@pytest.mark.parametrize("size", [1, 16384, 5_000_000])
async def test_bytes_of_any_number_go_both_ways(
    size: int, options: HttpsConfig, files: CertificateFiles
) -> None:
    recorder, data = Recorder(), bytes(range(256)) * (size // 256 + 1)
    async with FakeKdcProxy(files, script=echo) as proxy:
        stream = await secured_stream(proxy, recorder, options)
        before = stream.bytes_sent
        stream.write(data)
        assert await recorder.next_bytes(len(data)) == data
        assert stream.bytes_sent - before > len(data)
        stream.close()


async def test_bytes_before_tls_leave_in_clear() -> None:
    recorder = Recorder()
    async with FakeKdcProxy(None, script=echo) as proxy:
        stream = stream_of(recorder)
        stream.connect(("127.0.0.1", proxy.port))
        assert await recorder.next() == "connected"
        stream.write(b"clear")
        assert await recorder.next_bytes(5) == b"clear"
        assert stream.bytes_sent == 5
        stream.close()


async def test_end_of_the_server_is_an_empty_read(options: HttpsConfig, files: CertificateFiles) -> None:
    recorder = Recorder()

    async def write_and_close(link: Link) -> None:
        await link.write(b"x")

    async with FakeKdcProxy(files, script=write_and_close) as proxy:
        stream = await secured_stream(proxy, recorder, options)
        assert [await recorder.next(), await recorder.next()] == [b"x", b""]
        stream.close()


async def test_refused_connect_is_an_error() -> None:
    recorder = Recorder()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    stream_of(recorder).connect(("127.0.0.1", port))
    assert isinstance(await recorder.next(), ConnectionRefusedError)


async def test_error_of_the_handshake_names_the_fault(options: HttpsConfig, files: CertificateFiles) -> None:
    recorder = Recorder()
    async with FakeKdcProxy(files, script=echo) as proxy:
        stream = stream_of(recorder)
        stream.connect(("127.0.0.1", proxy.port))
        assert await recorder.next() == "connected"
        stream.secure(build_client_context(options), "other.test")
        error = await recorder.next()
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert "other.test" in error.verify_message


async def test_closed_stream_has_no_events(options: HttpsConfig, files: CertificateFiles) -> None:
    recorder = Recorder()
    async with FakeKdcProxy(files, script=fake_kdc_proxy.hold()) as proxy:
        stream = await secured_stream(proxy, recorder, options)
        stream.close()
        stream.close()
        stream.poll()
        assert recorder.is_quiet


async def test_poll_reads_what_has_arrived(options: HttpsConfig, files: CertificateFiles) -> None:
    recorder = Recorder()
    has_written = asyncio.Event()

    async def write_at_once(link: Link) -> None:
        await link.write(b"x")
        has_written.set()
        await link.hold()

    async with FakeKdcProxy(files, script=write_at_once) as proxy:
        stream = await secured_stream(proxy, recorder, options)
        await has_written.wait()
        stream.poll()
        assert await recorder.next() == b"x"
        stream.close()


async def test_session_makes_the_next_handshake_a_resumption(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    context = build_client_context(options)
    session = None
    resumed = []
    async with FakeKdcProxy(files, script=echo) as proxy:
        for _ in range(2):
            recorder = Recorder()
            stream = stream_of(recorder)
            stream.connect(("127.0.0.1", proxy.port))
            assert await recorder.next() == "connected"
            stream.secure(context, NAME, session)
            assert await recorder.next() == "secured"
            stream.write(b"x")
            await recorder.next_bytes(1)
            assert stream.tls
            session = stream.tls.session
            resumed.append(stream.tls.session_reused)
            stream.close()
    assert resumed == [False, True]
