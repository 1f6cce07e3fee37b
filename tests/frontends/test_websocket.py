"""Tunnels between aiohttp's WebSocket client and this way in, with the real guard, relay and a fake KDC."""

import asyncio
import contextlib
import hashlib
import logging
import random
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from kkdcpd import websocket
from kkdcpd.config import (
    Config,
    ConnectionsConfig,
    EndpointSpec,
    GuardConfig,
    HttpConfig,
    RatesConfig,
    RealmConfig,
    TunnelConfig,
    UpstreamConfig,
)
from kkdcpd.endpoints import Transport
from kkdcpd.frontends.kdc_proxy import KdcProxyFrontend
from kkdcpd.frontends.websocket import TunnelFrontend
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.tunnel import Accepted, GoneAway, Refused, Replied, Requester
from kkdcpd.values import Mode
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_acceptor
from tests.support.fake_kdc import REFUSE, FakeKdc, Link, Script, reply, silent
from tests.support.http_client import post
from tests.support.messages import as_rep, as_req, envelope, kpasswd_req, krb_error
from tests.support.shared import own_counts, own_table
from tests.support.upstream import running_relay
from tests.support.waiting import eventually

TUNNEL = TunnelConfig(paths=("/KdcTunnel",))
PROOF = as_req(padata=[(2, b"\x30\x00")])
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
)


@dataclass(slots=True, kw_only=True)
class Site:
    """A running way in, its KDC, and its log."""

    frontend: KdcProxyFrontend
    url: str
    listener: Any
    kdc: FakeKdc
    log: pytest.LogCaptureFixture

    def events(self, name: str) -> list[dict[str, Any]]:
        """The fields of the logged events of this name."""
        return [line.fields for line in self.log.records if line.message == name]  # type: ignore[attr-defined]

    async def logged(self, name: str) -> list[dict[str, Any]]:
        """Wait for events of this name; return their fields."""

        async def is_logged() -> bool:
            return bool(self.events(name))

        await eventually(is_logged)
        return self.events(name)

    @contextlib.asynccontextmanager
    async def open(self, path: str = "/KdcTunnel", **settings: Any) -> AsyncIterator["Client"]:
        """Open a tunnel."""
        settings = {"protocols": ["kkdcp.v1"], **settings}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.url + path, **settings) as connection,
        ):
            yield Client(connection)

    async def upgrade(self, *headers: str, path: str = "/KdcTunnel") -> tuple[int, str]:
        """Send a request for an upgrade that is refused; return the status and the sentence."""
        async with Talk.to(self.listener) as talk:
            lines = "".join(f"{line}\r\n" for line in headers)
            await talk.send(f"{UPGRADE.format(path=path)}{lines}\r\n".encode())
            status, body = await talk.response()
            return status, body.decode()


class Client:
    """The client of a tunnel: reads and writes by the protocol, over aiohttp's WebSocket."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection
        self.protocol = Requester()

    async def send(self, payload: bytes) -> int:
        """Send a request; return its number."""
        number, frame = self.protocol.request(envelope(payload))
        await self.connection.send_bytes(frame)
        return number

    async def event(self) -> Any:
        """Wait for an event."""
        frame = await asyncio.wait_for(self.connection.receive_bytes(), PATIENCE_SECONDS)
        return self.protocol.receive(frame)

    async def exchange(self, payload: bytes) -> list[Any]:
        """Send a request; return the events up to its end."""
        await self.send(payload)
        events = [await self.event()]
        while isinstance(events[-1], Accepted):
            events.append(await self.event())
        return events

    async def closing(self) -> tuple[int | None, str]:
        """Wait until the server closes; return its code and reason."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (message := await self.connection.receive()).type is WSMsgType.BINARY:
                pass
        return self.connection.close_code, message.extra or ""


@contextlib.asynccontextmanager
async def running(
    log: pytest.LogCaptureFixture,
    script: Script | Any,
    settings: TunnelConfig = TUNNEL,
    *,
    write_timeout: float = 30.0,
    token: bytes | None = None,
) -> AsyncIterator[Site]:
    log.set_level(logging.INFO, "kkdcpd")
    async with FakeKdc(tcp=script) as kdc:
        spec = EndpointSpec(host=kdc.host, port=kdc.port, transports=(Transport.TCP,))
        tokens = (hashlib.sha256(token).digest(),) if token else ()
        realm = RealmConfig(name="EXAMPLE.COM", kdc=(spec,), kpasswd=(spec,), discovery="none", tokens=tokens)
        config = Config(
            realms=(realm,),
            guard=GuardConfig(rates=RatesConfig(mode=Mode.OFF)),
            upstream=UpstreamConfig(max_in_flight_per_kdc=1000, connect_timeout=20.0, reach_timeout=20.0),
            connections=ConnectionsConfig(write_timeout=write_timeout),
            http=HttpConfig(cors_origins=("https://good.example",)),
            tunnel=settings,
        )
        counters = Counters.discarding()
        async with running_relay(config) as relay, listening() as listener:
            pipeline = Pipeline(
                guard=Guard(config, own_table(), own_counts(), time.monotonic),
                relay=relay,
                counters=counters,
                config=config.guard,
            )
            tunnel = TunnelFrontend(config, pipeline)
            frontend = KdcProxyFrontend(config, pipeline, counters, tunnel=tunnel)
            async with running_acceptor(listener, make_connection=frontend.connection, counters=counters):
                port = listener.socket.getsockname()[1]
                yield Site(
                    frontend=frontend,
                    url=f"http://127.0.0.1:{port}",
                    listener=listener,
                    kdc=kdc,
                    log=log,
                )
                await frontend.stop()


def echoing(delay: float = 0.0) -> Script:
    """Answer each AS-REQ with a KRB-ERROR that names its client, after a random time."""

    async def script(link: Link) -> None:
        message = await link.message()
        await asyncio.sleep(random.random() * delay)
        found = re.search(rb"user-\d+", message)
        await link.reply(krb_error(25, text=found[0].decode() if found else "a probe"))
        await link.hold()

    return script


async def test_request_is_accepted_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, reply(as_rep())) as site:
        async with site.open() as client:
            events = await client.exchange(as_req())
        (line,) = site.events("exchange")
    assert events[0] == Accepted(number=1)
    assert isinstance(events[1], Replied)
    assert decode_proxy_message(events[1].envelope).kerb_message[4:] == as_rep()
    assert (line["outcome"], line["status"], line["kind"]) == ("answered", 200, "AS_REQ")


async def test_replies_of_500_requests_in_flight_are_not_mixed_up(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, echoing(0.5)) as site, site.open() as client:
        sent: dict[int, str] = {}
        for number in range(500):
            name = f"user-{number}"
            sent[await client.send(as_req(cname=(1, (name,))))] = name
        replied: list[int] = []
        while len(replied) < len(sent):
            event = await client.event()
            if isinstance(event, Accepted):
                continue
            assert isinstance(event, Replied), event
            assert re.search(rb"user-\d+", event.envelope)[0].decode() == sent[event.number]  # type: ignore[index]
            replied.append(event.number)
    assert replied != sorted(replied)
    assert sum(b"user-" in message for message in site.kdc.messages) == 500


@pytest.mark.parametrize("message", [as_req(), kpasswd_req()])
async def test_message_that_no_kdc_got_may_be_sent_elsewhere(
    message: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(caplog, REFUSE) as site, site.open() as client:
        (event,) = await client.exchange(message)
    assert isinstance(event, Refused)
    assert (event.refusal.status, event.refusal.may_be_delivered) == (503, False)


async def test_message_that_a_kdc_may_have_may_not_be_sent_elsewhere(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def close(link: Link) -> None:
        await link.message()

    async with running(caplog, close) as site, site.open() as client:
        accepted, refused = await client.exchange(PROOF)
    assert accepted == Accepted(number=1)
    assert isinstance(refused, Refused)
    assert (refused.refusal.status, refused.refusal.may_be_delivered) == (503, True)
    assert site.kdc.messages.count(PROOF) == 1  # the others are probes


async def test_message_that_is_no_kerberos_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, silent()) as site:
        async with site.open() as client:
            (event,) = await client.exchange(b"This is not Kerberos.")
        (line,) = site.events("exchange")
    assert isinstance(event, Refused)
    assert (event.refusal.status, event.refusal.may_be_delivered) == (400, False)
    assert line["outcome"] == "malformed_message"


@pytest.mark.parametrize(
    ("headers", "status", "sentence"),
    [
        ((), 400, "well-formed"),
        (("Sec-WebSocket-Protocol: chat",), 400, "well-formed"),
        (("Sec-WebSocket-Protocol: kkdcp.v1", "Origin: https://evil.example"), 403, ""),
        (("Sec-WebSocket-Protocol: kkdcp.v1", "Sec-WebSocket-Version: 8"), 400, "well-formed"),
    ],
    ids=["no subprotocol", "unknown subprotocol", "unlisted origin", "two versions"],
)
async def test_upgrade_is_refused(
    headers: tuple[str, ...], status: int, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(caplog, silent()) as site:
        assert (await site.upgrade(*headers))[0] == status
        assert sentence in (await site.upgrade(*headers))[1]
        assert len(site.events("exchange")) == 2


async def test_listed_origin_may_open_a_tunnel(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, reply(as_rep())) as site, site.open(origin="https://good.example") as client:
        assert isinstance((await client.exchange(as_req()))[-1], Replied)


@pytest.mark.parametrize(
    ("path", "protocols"),
    [("/KdcTunnel/secret", ["kkdcp.v1"]), ("/KdcTunnel", ["kkdcp.v1", "kkdcp.token.c2VjcmV0"])],
    ids=["path", "subprotocol"],
)
async def test_token_comes_in_the_path_or_as_a_subprotocol(
    path: str, protocols: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with running(caplog, reply(as_rep()), token=b"secret") as site:
        async with site.open(path, protocols=protocols) as client:
            assert client.connection.protocol == "kkdcp.v1"
            assert isinstance((await client.exchange(as_req()))[-1], Replied)
        assert "secret" not in caplog.text
        assert "c2VjcmV0" not in caplog.text


async def test_request_without_its_token_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    protocols = ["kkdcp.v1", "kkdcp.token.b3RoZXI"]
    async with (
        running(caplog, reply(as_rep()), token=b"secret") as site,
        site.open(protocols=protocols) as client,
    ):
        (refused,) = await client.exchange(as_req())
        assert (refused.refusal.status, refused.refusal.may_be_delivered) == (403, False)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", 1002),
        (b"\x07\x00\x00\x00\x01", 1002),
        (b"\x02\x00\x00\x00\x01reply", 1002),
        (b"\x01\x00\x00\x00\x00", 1002),
        (b"\x01\x00\x00\x00\x01" + bytes(HttpConfig().max_body_bytes + 1), 1009),
        ("text", 1003),
    ],
    ids=["empty", "unknown kind", "reply", "number 0", "oversized", "text"],
)
async def test_peer_that_breaks_the_protocol_is_closed(
    message: bytes | str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(caplog, silent()) as site, site.open() as client:
        if isinstance(message, str):
            await client.connection.send_str(message)
        else:
            await client.connection.send_bytes(message)
        assert (await client.closing())[0] == code


async def test_peer_that_sends_garbage_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, silent()) as site, Talk.to(site.listener) as talk:
        await talk.send(
            f"{UPGRADE.format(path='/KdcTunnel')}Sec-WebSocket-Protocol: kkdcp.v1\r\n\r\n".encode()
        )
        await talk.read_until(b"\r\n\r\n")
        await talk.send(random.Random(3).randbytes(5000))
        assert len(await talk.rest()) < 200


async def test_number_that_is_used_again_closes_the_tunnel(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, silent()) as site, site.open() as client:
        _, frame = client.protocol.request(envelope(as_req()))
        await client.connection.send_bytes(frame)
        await client.connection.send_bytes(frame)
        assert (await client.closing())[0] == 1002


async def test_tunnel_closes_with_more_requests_in_flight_than_allowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = replace(TUNNEL, max_exchanges=3)
    async with running(caplog, silent(), settings) as site, site.open() as client:
        for _ in range(4):
            await client.send(PROOF)
        assert (await client.closing())[0] == 1002


@pytest.mark.parametrize("write_timeout", [0.3, 30.0], ids=["slow", "too many bytes"])
async def test_peer_that_reads_nothing_is_closed(
    write_timeout: float, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if write_timeout > 1:
        monkeypatch.setattr(websocket, "MAX_UNSENT_BYTES", 200_000)
    release = asyncio.Event()
    script = reply(krb_error(25, text="x" * 60000), when=release)
    async with (
        running(caplog, script, write_timeout=write_timeout) as site,
        Talk.to(site.listener) as talk,
    ):
        await talk.send(
            f"{UPGRADE.format(path='/KdcTunnel')}Sec-WebSocket-Protocol: kkdcp.v1\r\n\r\n".encode()
        )
        await talk.read_until(b"\r\n\r\n")
        talk.pause()
        client = Requester()
        for _ in range(100):
            await talk.send(masked(client.request(envelope(as_req()))[1]))
        await site.kdc.wait_for_messages(100)
        release.set()
        await site.logged("tunnel_closed")


def masked(frame: bytes) -> bytes:
    """Return a masked binary WebSocket frame (RFC 6455 5.2). A mask of zeros changes nothing."""
    return b"\x82\xfe" + len(frame).to_bytes(2, "big") + bytes(4) + frame


async def test_draining_tunnel_answers_the_requests_that_it_took(caplog: pytest.LogCaptureFixture) -> None:
    release = asyncio.Event()
    async with running(caplog, reply(as_rep(), when=release)) as site, site.open() as client:
        first = await client.send(as_req())
        assert await client.event() == Accepted(number=first)
        site.frontend.drain()
        second = await client.send(as_req())
        assert await client.event() == GoneAway(untouched=(second,))
        release.set()
        assert isinstance(await client.event(), Replied)
        assert (await client.closing())[0] == 1001
        assert len(site.kdc.messages) == 1
        assert (await site.upgrade("Sec-WebSocket-Protocol: kkdcp.v1"))[0] == 503


async def test_client_that_leaves_ends_its_requests(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, silent()) as site:
        async with site.open() as client:
            await client.send(as_req())
            await client.event()
        (line,) = await site.logged("exchange")
        assert line["outcome"] == "client_gone"
        (closed,) = await site.logged("tunnel_closed")
        assert closed["requests"] == 1


async def test_silent_peer_is_pinged_and_an_unused_tunnel_is_closed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "HEARTBEAT_SECONDS", 0.05)
    async with running(caplog, silent(), replace(TUNNEL, idle_timeout=0.3)) as site:
        async with site.open() as client:  # this client answers pings
            assert await client.closing() == (1000, "idle")
        async with Talk.to(site.listener) as talk:  # this one does not
            await talk.send(
                f"{UPGRADE.format(path='/KdcTunnel')}Sec-WebSocket-Protocol: kkdcp.v1\r\n\r\n".encode()
            )
            await talk.read_until(b"\r\n\r\n")
            assert await talk.rest() == b"\x89\x00"


async def test_post_and_tunnel_share_a_listener(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, reply(krb_error(25))) as site, site.open() as client:
        events = await client.exchange(as_req())
        async with Talk.to(site.listener) as talk:
            await talk.send(post(envelope(as_req())))
            status, body = await talk.response()
        assert (status, body) == (200, events[-1].envelope)


async def test_only_get_opens_a_tunnel(caplog: pytest.LogCaptureFixture) -> None:
    async with running(caplog, reply(krb_error(25))) as site:
        for method in ("POST", "HEAD", "PUT"):
            async with Talk.to(site.listener) as talk:
                request = UPGRADE.replace("GET", method).format(path="/KdcTunnel")
                await talk.send(f"{request}Sec-WebSocket-Protocol: kkdcp.v1\r\n\r\n".encode())
                assert (await talk.read_until(b"\r\n")).split()[1] in {b"400", b"404"}
