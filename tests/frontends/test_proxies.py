"""Clients behind proxies: PROXY header and HTTP headers, true and spoofed, on both event loops."""

import asyncio
import contextlib
import logging
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import TlsConfig
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from tests.frontends.inside import Talk, listening, running_worker
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD
from tests.support.fake_kdc import FakeKdc, reply, silent
from tests.support.http_client import post
from tests.support.waiting import eventually

TRUSTED = "127.0.0.1"
UNTRUSTED = "127.0.0.9"
CLIENT = "192.0.2.7"
CLIENT_6 = "2001:db8::7"
PORT = 4711

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_TLV = b"\x04\x00\x08" + bytes(8)


def version_1(words: str) -> bytes:
    return f"PROXY {words}\r\n".encode()


def version_2(command: int, family: int, body: bytes) -> bytes:
    return _SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(body)) + body


V1 = version_1(f"TCP4 {CLIENT} 192.0.2.1 {PORT} 443")
V1_6 = version_1(f"TCP6 {CLIENT_6} 2001:db8::1 {PORT} 443")
V2 = version_2(1, 0x11, bytes((192, 0, 2, 7, 192, 0, 2, 1)) + struct.pack("!HH", PORT, 443))
V2_WITH_TLV = version_2(1, 0x11, V2[16:] + _TLV)
V2_6 = version_2(
    1,
    0x21,
    bytes.fromhex("20010db8" + "0" * 23 + "7" + "20010db8" + "0" * 23 + "1") + struct.pack("!HH", PORT, 443),
)
HEADERS = {
    "v1": (V1, CLIENT),
    "v1, IPv6": (V1_6, CLIENT_6),
    "v2": (V2, CLIENT),
    "v2, IPv6": (V2_6, CLIENT_6),
    "v2, TLV": (V2_WITH_TLV, CLIENT),
}
OWN = {"v1": version_1("UNKNOWN"), "v2": version_2(0, 0x00, b""), "v2, TLV": version_2(0, 0x00, _TLV)}


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("localhost", file_name="proxies")
    return build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key))


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kkdcpd")
    return caplog


@pytest.fixture
async def kdc() -> AsyncIterator[FakeKdc]:
    async with FakeKdc(tcp=reply(REPLY_PAYLOAD)) as running:
        yield running


def settings(kdc: FakeKdc, connections: str = "") -> str:
    return f"""
        [connections]
        trusted_proxies = ["{TRUSTED}", "127.0.0.2"]
        {connections}
        [http]
        handshake_timeout = 0.3
        [[listen]]
        address = "127.0.0.1:0"
        proxy_protocol = true
        [tls]
        certificate = "/nowhere"
        key = "/nowhere"
        [realms."EXAMPLE.COM"]
        kdc = ["tcp://127.0.0.1:{kdc.port}"]
    """


@pytest.fixture
async def plain(kdc: FakeKdc) -> AsyncIterator[Listener]:
    """A listener for proxies, without TLS."""
    async with listening(proxy_protocol=True) as listener, running_worker(settings(kdc), listener):
        yield listener


@pytest.fixture
async def by_tls(kdc: FakeKdc, server_context: ssl.SSLContext) -> AsyncIterator[Listener]:
    """A listener for proxies, with TLS."""
    async with (
        listening(proxy_protocol=True, tls=server_context) as listener,
        running_worker(settings(kdc), listener),
    ):
        yield listener


class TlsTalk:
    """TLS over a Talk, so that a test decides what is in one segment with the ClientHello."""

    def __init__(self, talk: Talk, trust: ssl.SSLContext) -> None:
        self._talk = talk
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = trust.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        """Begin the handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    async def ask(self, raw: bytes) -> bytes:
        """End the handshake, send bytes, and wait for some."""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                break
            await self._read()
        self._tls.write(raw)
        await self._talk.send(self._outgoing.read())
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return self._tls.read(65536)
            await self._read()

    async def _read(self) -> None:
        raw = await self._talk.read_some()
        assert raw, "the connection ended"
        self._incoming.write(raw)


def exchange_of(log: pytest.LogCaptureFixture) -> dict[str, Any]:
    (fields,) = (record.fields for record in log.records if record.message == "exchange")  # type: ignore[attr-defined]
    return dict(fields)


def refusal_of(log: pytest.LogCaptureFixture) -> dict[str, Any]:
    (fields,) = (
        record.fields  # type: ignore[attr-defined]
        for record in log.records
        if record.message == "connections_refused"
    )
    return dict(fields)


async def send_singly(talk: Talk, raw: bytes) -> None:
    """Send each byte by itself, and let the server see it."""
    for byte in raw:
        await talk.send(bytes((byte,)))
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("name", HEADERS)
async def test_header_in_one_segment_with_the_client_hello(
    by_tls: Listener, trust: ssl.SSLContext, log: pytest.LogCaptureFixture, name: str
) -> None:
    header, client = HEADERS[name]
    async with Talk.to(by_tls) as talk:
        tls = TlsTalk(talk, trust)
        await talk.send(header + tls.hello())
        assert (await tls.ask(GOOD_REQUEST)).startswith(b"HTTP/1.1 200 OK")
    line = exchange_of(log)
    assert (line["client"], line["port"], line["proxy"], line["tls"]) == (client, PORT, TRUSTED, "TLSv1.3")


@pytest.mark.parametrize("name", HEADERS)
async def test_header_and_client_hello_byte_by_byte(
    by_tls: Listener, trust: ssl.SSLContext, log: pytest.LogCaptureFixture, name: str
) -> None:
    header, client = HEADERS[name]
    async with Talk.to(by_tls) as talk:
        tls = TlsTalk(talk, trust)
        await send_singly(talk, header + tls.hello())
        assert (await tls.ask(GOOD_REQUEST)).startswith(b"HTTP/1.1 200 OK")
    assert (exchange_of(log)["client"], exchange_of(log)["port"]) == (client, PORT)


@pytest.mark.parametrize("name", HEADERS)
async def test_header_in_one_segment_with_a_request(
    plain: Listener, log: pytest.LogCaptureFixture, name: str
) -> None:
    header, client = HEADERS[name]
    async with Talk.to(plain) as talk:
        await talk.send(header + GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
        assert exchange_of(log)["client"] == client


@pytest.mark.parametrize("cut", range(1, len(V2)))
async def test_header_in_two_segments(plain: Listener, log: pytest.LogCaptureFixture, cut: int) -> None:
    async with Talk.to(plain) as talk:
        await talk.send(V2[:cut])
        for _ in range(3):
            await asyncio.sleep(0)
        await talk.send(V2[cut:] + GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
        assert exchange_of(log)["client"] == CLIENT


@pytest.mark.parametrize("name", OWN)
async def test_proxy_that_connects_for_itself_is_the_client(
    plain: Listener, log: pytest.LogCaptureFixture, name: str
) -> None:
    async with Talk.to(plain) as talk:
        await talk.send(OWN[name] + GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
        line = exchange_of(log)
    assert (line["client"], "proxy" in line) == (TRUSTED, False)


async def test_header_on_a_unix_socket_is_trusted(
    kdc: FakeKdc, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    async with (
        listening(unix_path=tmp_path / "http.sock", proxy_protocol=True) as listener,
        running_worker(settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(V1 + GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
    assert (exchange_of(log)["client"], exchange_of(log)["proxy"]) == (CLIENT, "unix")


@pytest.mark.parametrize("raw", [V1 + GOOD_REQUEST, V2 + GOOD_REQUEST, GOOD_REQUEST, b""])
async def test_untrusted_peer_is_refused_by_a_listener_for_proxies(
    plain: Listener, kdc: FakeKdc, log: pytest.LogCaptureFixture, raw: bytes
) -> None:
    async with Talk.to(plain, host=UNTRUSTED) as talk:
        with contextlib.suppress(ConnectionError):
            await talk.send(raw)
        assert await talk.rest() == b""
    line = refusal_of(log)
    assert (line["client"], line["reason"], "proxy" in line) == (UNTRUSTED, "no trusted proxy", False)
    assert not kdc.messages


@pytest.mark.parametrize("host", [TRUSTED, UNTRUSTED])
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
async def test_header_is_not_read_by_a_listener_without_proxy_protocol(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, host: str, header: bytes
) -> None:
    async with (
        listening() as listener,
        running_worker(settings(kdc), listener),
        Talk.to(listener, host=host) as talk,
    ):
        await talk.send(header + GOOD_REQUEST)
        assert (await talk.response())[0] == 400
    line = exchange_of(log)
    assert (line["client"], line["outcome"]) == (host, "malformed_http")


@pytest.mark.parametrize(
    "raw",
    [
        GOOD_REQUEST,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PROXY TCP4 here there 1 2\r\n",
        b"PROXY " + b"A" * 200,
        version_2(1, 0x11, b"short"),
        version_2(3, 0x11, bytes(12)),
        version_2(1, 0x11, bytes(60_000)),
    ],
    ids=["HTTP", "TLS", "bad address", "no end", "too short", "unknown command", "too long"],
)
async def test_trusted_proxy_without_a_valid_header_is_refused(
    plain: Listener, kdc: FakeKdc, log: pytest.LogCaptureFixture, raw: bytes
) -> None:
    async with Talk.to(plain) as talk:
        with contextlib.suppress(ConnectionError):
            await talk.send(raw)
        assert await talk.rest() == b""
    line = refusal_of(log)
    assert (line["client"], line["reason"], "PROXY header" in line["detail"]) == (
        TRUSTED,
        "PROXY header",
        True,
    )
    assert not kdc.messages


@pytest.mark.parametrize("raw", [b"", V1[:-1], V2[:-1]], ids=["none", "v1", "v2"])
async def test_unfinished_header_ends_in_time(plain: Listener, raw: bytes) -> None:
    async with Talk.to(plain) as talk:
        await talk.send(raw)
        assert await talk.rest() == b""


@pytest.mark.parametrize("raw", [b"", V1[:-1], V2[:-1]], ids=["none", "v1", "v2"])
async def test_proxy_that_leaves_before_its_header_is_not_logged(
    plain: Listener, log: pytest.LogCaptureFixture, raw: bytes
) -> None:
    async with Talk.to(plain) as talk:
        await talk.send(raw)
        talk.reset()
    async with Talk.to(plain) as talk:
        await talk.send(V1 + GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
    assert all(record.levelno <= logging.INFO for record in log.records if "handshake" in record.message)


async def test_clients_behind_a_proxy_are_counted_separately(
    kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    async def has_message() -> bool:
        return bool(kdc.tcp_messages)

    async with (
        listening(proxy_protocol=True) as listener,
        running_worker(settings(kdc, "per_client = 1"), listener),
        Talk.to(listener) as first,
        Talk.to(listener) as second,
        Talk.to(listener) as third,
    ):
        # Only a connection with a request in flight makes no room for another one.
        kdc.tcp = silent()
        await first.send(V1 + GOOD_REQUEST)
        await eventually(has_message)
        kdc.tcp = reply(REPLY_PAYLOAD)
        await second.send(V1 + GOOD_REQUEST)
        assert await second.rest() == b""
        await third.send(V1_6 + GOOD_REQUEST)
        assert await third.response() == (200, GOOD_REPLY)
    line = refusal_of(log)
    assert (line["client"], line["proxy"], line["reason"]) == (CLIENT, TRUSTED, "connections.per_client")


def naming(header: str, *values: str) -> bytes:
    return post(GOOD_BODY, *(f"{header}: {value}" for value in values))


@contextlib.asynccontextmanager
async def asked(
    kdc: FakeKdc, forwarded: str, raw: bytes, *, host: str = TRUSTED, start: bytes = b""
) -> AsyncIterator[None]:
    connections = f'forwarded = "{forwarded}"'
    async with (
        listening(proxy_protocol=bool(start)) as listener,
        running_worker(settings(kdc, connections), listener),
        Talk.to(listener, host=host) as talk,
    ):
        await talk.send(start + raw)
        assert await talk.response() == (200, GOOD_REPLY)
        yield


@pytest.mark.parametrize(
    ("header", "values", "client"),
    [
        ("X-Forwarded-For", [CLIENT], CLIENT),
        ("X-Forwarded-For", [CLIENT_6], CLIENT_6),
        ("X-Forwarded-For", [f"10.0.0.1, {CLIENT}"], CLIENT),
        ("X-Forwarded-For", ["10.0.0.1", CLIENT], CLIENT),
        ("X-Forwarded-For", [f"{CLIENT}, 127.0.0.2"], CLIENT),
        ("X-Forwarded-For", ["a-name"], TRUSTED),
        ("X-Forwarded-For", [], TRUSTED),
        ("Forwarded", [f"for={CLIENT}"], CLIENT),
        ("Forwarded", [f'for="[{CLIENT_6}]:4711";proto=https'], CLIENT_6),
        ("Forwarded", [f"for=10.0.0.1, for={CLIENT}"], CLIENT),
        ("Forwarded", ["for=_hidden"], TRUSTED),
    ],
)
async def test_trusted_proxy_names_its_client(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, header: str, values: Sequence[str], client: str
) -> None:
    async with asked(kdc, header.lower(), naming(header, *values)):
        line = exchange_of(log)
    assert (line["client"], line.get("proxy")) == (client, TRUSTED if client != TRUSTED else None)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize("value", [CLIENT, f"for={CLIENT}", TRUSTED, f"for={TRUSTED}"])
async def test_header_of_an_untrusted_peer_is_ignored(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, header: str, value: str
) -> None:
    async with asked(kdc, header.lower(), naming(header, value), host=UNTRUSTED):
        line = exchange_of(log)
    assert (line["client"], "proxy" in line) == (UNTRUSTED, False)


@pytest.mark.parametrize(
    ("setting", "header"), [("none", "X-Forwarded-For"), ("forwarded", "X-Forwarded-For")]
)
async def test_header_that_is_not_configured_is_not_read(
    kdc: FakeKdc, log: pytest.LogCaptureFixture, setting: str, header: str
) -> None:
    async with asked(kdc, setting, naming(header, CLIENT)):
        line = exchange_of(log)
    assert (line["client"], "proxy" in line) == (TRUSTED, False)


async def test_proxy_behind_a_proxy_names_the_client(kdc: FakeKdc, log: pytest.LogCaptureFixture) -> None:
    outer = version_1("TCP4 127.0.0.2 192.0.2.1 1 443")
    async with asked(kdc, "x-forwarded-for", naming("X-Forwarded-For", CLIENT), start=outer):
        line = exchange_of(log)
    assert (line["client"], line["proxy"]) == (CLIENT, "127.0.0.2")


async def test_entries_of_an_untrusted_client_are_ignored(
    kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    async with asked(kdc, "x-forwarded-for", naming("X-Forwarded-For", CLIENT_6), start=V1):
        line = exchange_of(log)
    assert (line["client"], line["proxy"]) == (CLIENT, TRUSTED)


async def test_each_request_on_a_connection_may_have_another_client(
    kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    async with (
        listening() as listener,
        running_worker(settings(kdc, 'forwarded = "x-forwarded-for"'), listener),
        Talk.to(listener) as talk,
    ):
        for client in (CLIENT, CLIENT_6):
            await talk.send(naming("X-Forwarded-For", client))
            await talk.response()
        await talk.send(GOOD_REQUEST)
        await talk.response()
    clients = [record.fields["client"] for record in log.records if record.message == "exchange"]  # type: ignore[attr-defined]
    assert clients == [CLIENT, CLIENT_6, TRUSTED]
