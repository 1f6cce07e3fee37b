"""A KDC proxy over TLS on loopback that follows scripts, for faults that no real one produces on demand.

A script handles one connection, after the TLS handshake:

    async with FakeKdcProxy(files, script=answer(payload)) as proxy:
        ...  # talk to proxy.endpoint
        assert proxy.copies_of(message) == 1

`answer` is the script of a healthy proxy. A test may replace the script at any time.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.protocol.kkdcp import decode_proxy_message
from lab.authority import CertificateFiles
from tests.support import messages

__all__ = [
    "NAME",
    "PORTAL",
    "FakeKdcProxy",
    "Link",
    "Received",
    "Script",
    "answer",
    "close_after_request",
    "hold",
    "response",
    "send",
]

NAME = "proxy.test"
PORTAL = b"<!DOCTYPE html><html><title>Log in to the guest network</title></html>"
PATIENCE_SECONDS = 10.0
CLOSE_SECONDS = 1.0
"""How long a connection waits for the client's close_notify."""

_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A request: its request line, its headers in lower case, and its body."""

    line: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def payload(self) -> bytes:
        """The Kerberos message in the body, without its length."""
        return decode_proxy_message(self.body).kerb_message[4:] if self.body else b""


class Link:
    """One connection."""

    def __init__(
        self, proxy: "FakeKdcProxy", reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._proxy = proxy
        self._reader = reader
        self._writer = writer

    async def request(self) -> Received:
        """Wait for the next request. If the client closes before, the script ends."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = (field.partition(": ") for field in fields)
        headers = {name.lower(): value for name, _, value in pairs}
        length = _LENGTH.search(head)
        body = await self._reader.readexactly(int(length[1])) if length else b""
        received = Received(line=line, headers=headers, body=body)
        await self._proxy.note(received)
        return received

    async def read(self) -> bytes:
        """Wait for bytes of any kind. If the client closes before, the script ends."""
        data = await self._reader.read(65536)
        if not data:
            raise EOFError
        return data

    async def write(self, data: bytes) -> None:
        """Send data."""
        self._writer.write(data)
        await self._writer.drain()

    async def relay_to(self, port: int) -> None:
        """Pass on all bytes to a port of this host and back, until one side closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as tasks:
                ways = [
                    tasks.create_task(_copy(self._reader, writer), name="to the server"),
                    tasks.create_task(_copy(reader, self._writer), name="to the client"),
                ]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in ways:
                    way.cancel()
        finally:
            await _abort(writer)

    async def hold(self) -> None:
        """Send nothing until the client closes."""
        await self._reader.read()


async def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


Script = Callable[[Link], Awaitable[None]]


def response(status: int, body: bytes = b"", *headers: str) -> bytes:
    """Build a response with Content-Length."""
    lines = (f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def answer(*payloads: bytes, when: asyncio.Event | None = None, headers: Sequence[str] = ()) -> Script:
    """Answer requests with these payloads in turn; the last payload answers all further requests.

    If `when` is given, replies wait for this event.
    """
    left = list(payloads)

    async def script(link: Link) -> None:
        while True:
            await link.request()
            if when:
                await when.wait()
            payload = left.pop(0) if len(left) > 1 else left[0]
            await link.write(response(200, messages.envelope(payload, None), *headers))

    return script


def send(data: bytes, *, holds: bool = True) -> Script:
    """Answer each request with exactly this data; close after the first one unless the script `holds`."""

    async def script(link: Link) -> None:
        while True:
            await link.request()
            await link.write(data)
            if not holds:
                return

    return script


def hold() -> Script:
    """Read requests and answer none."""

    async def script(link: Link) -> None:
        await link.request()
        await link.hold()

    return script


def close_after_request() -> Script:
    """Read one request and close the connection."""

    async def script(link: Link) -> None:
        await link.request()

    return script


class FakeKdcProxy:
    """A KDC proxy in the running event loop. `requests` are all requests, `connections` counts connections.

    Without `files` it speaks no TLS, as a plain HTTP server on the wrong port. With `client_ca` it demands a
    client certificate. `is_dead`: it accepts connections in the kernel only.
    """

    def __init__(
        self,
        files: CertificateFiles | None,
        *,
        script: Script,
        path: str = "/KdcProxy",
        name: str = NAME,
        client_ca: str | None = None,
        is_dead: bool = False,
    ) -> None:
        self.script = script
        self.path = path
        self.name = name
        self.port = 0
        self.connections = 0
        self.requests: list[Received] = []
        self._files = files
        self._client_ca = client_ca
        self._is_dead = is_dead
        self._arrival = asyncio.Condition()
        self._stack = contextlib.AsyncExitStack()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_stopped = False
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        sock = self._stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        if self._is_dead:
            sock.listen()
            return self
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        self._stack.callback(self._end_links)
        self._server = await asyncio.start_server(
            self._accept, sock=sock, ssl=self._context() if self._files else None
        )
        self._stack.callback(self.stop)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    @property
    def endpoint(self) -> KdcEndpoint:
        """The endpoint, as locating finds it."""
        return KdcEndpoint(
            name=self.name, address="127.0.0.1", port=self.port, transport=Transport.HTTPS, path=self.path
        )

    @property
    def payloads(self) -> list[bytes]:
        """The Kerberos messages of all requests."""
        return [request.payload for request in self.requests]

    def copies_of(self, payload: bytes) -> int:
        """Return how often the message has arrived. Probes are other messages."""
        return self.payloads.count(payload)

    async def note(self, request: Received) -> None:
        """Take a request."""
        self.requests.append(request)
        async with self._arrival:
            self._arrival.notify_all()

    async def wait_for_requests(self, count: int = 1) -> None:
        """Wait until `count` requests have arrived."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= count)

    async def wait_until_closed(self) -> None:
        """Wait until the scripts of all connections have ended."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await asyncio.gather(*self._links)

    def _context(self) -> ssl.SSLContext:
        assert self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.certificate, self._files.key)
        if self._client_ca:
            context.load_verify_locations(self._client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def stop(self) -> None:
        """Refuse further connections, and reset the open ones."""
        self._is_stopped = True
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def _end_links(self) -> None:
        for task in self._links:
            task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_stopped:
            writer.transport.abort()
            return
        self.connections += 1
        self._writers.add(writer)
        task = self._tasks.create_task(self._serve(reader, writer), name="fake KDC proxy connection")
        self._links.add(task)
        task.add_done_callback(self._links.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                await self.script(Link(self, reader, writer))
                writer.close()
                async with asyncio.timeout(CLOSE_SECONDS):
                    await writer.wait_closed()
        except TimeoutError:
            pass
        finally:
            self._writers.discard(writer)
            await _abort(writer)
