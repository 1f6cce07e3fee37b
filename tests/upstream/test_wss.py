"""Exchanges through tunnels: a real KDC proxy with the tunnel, over TLS, in front of fake and real KDCs."""

import asyncio
import contextlib
import re
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import (
    Config,
    GuardConfig,
    HttpsConfig,
    RatesConfig,
    TlsConfig,
    TunnelConfig,
    UpstreamConfig,
    read_config,
)
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.errors import ExchangeError, NoKdcReachedError, NoKdcReplyError
from kkdcpd.frontends.kdc_proxy import KdcProxyFrontend
from kkdcpd.frontends.websocket import TunnelFrontend
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.tls import build_server_context
from kkdcpd.upstream.wss import WssOptions
from kkdcpd.values import Candidate, KdcReply, Mode, Route
from lab.authority import Authority
from lab.client import KerberosClient, RealmServers
from lab.daemon import Daemon
from lab.realm import MitRealm, Principal
from tests.frontends.inside import listening, running_acceptor
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import FakeKdc, Link, Script
from tests.support.shared import own_counts, own_table
from tests.support.upstream import candidate, request_of, running_relay, running_upstream

PROOF = messages.as_req(padata=[(2, b"\x30\x00")])
REPLY = messages.as_rep()
PASSWORD = "correct horse"
SETTINGS = """
[[listen]]
address = "127.0.0.1:0"
tls = false
[realms."{realm}"]
kdc = ["{kdc}"]
kpasswd = ["{kpasswd}"]
"""


@dataclass(slots=True, kw_only=True)
class Proxy:
    """A running KDC proxy with the tunnel. `connections` counts what it has accepted."""

    frontend: KdcProxyFrontend
    port: int
    connections: int = 0

    def candidate(self, priority: int = 0, path: str = "/KdcTunnel") -> Candidate:
        endpoint = KdcEndpoint(
            name="localhost", address="127.0.0.1", port=self.port, transport=Transport.WSS, path=path
        )
        return Candidate(endpoint=endpoint, source="test", priority=priority)


@pytest.fixture(scope="module")
def server_tls(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("localhost", file_name="wss")
    return build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key))


@pytest.fixture
def https(authority: Authority) -> HttpsConfig:
    return HttpsConfig(ca_file=authority.certificate)


@contextlib.asynccontextmanager
async def proxy_of(config: Config, tls: ssl.SSLContext) -> AsyncIterator[Proxy]:
    counters = Counters.discarding()
    config = replace(config, tunnel=TunnelConfig(paths=("/KdcTunnel",)))
    async with running_relay(config) as relay, listening(tls=tls) as listener:
        guard = Guard(config, own_table(), own_counts(), time.monotonic)
        pipeline = Pipeline(guard=guard, relay=relay, counters=counters, config=config.guard)
        tunnel = TunnelFrontend(config, pipeline)
        frontend = KdcProxyFrontend(config, pipeline, counters, tunnel=tunnel)
        proxy = Proxy(frontend=frontend, port=listener.socket.getsockname()[1])

        def connection(arrival: object) -> asyncio.BaseProtocol:
            proxy.connections += 1
            return frontend.connection(arrival)  # type: ignore[arg-type] # the acceptor's

        async with running_acceptor(listener, make_connection=connection, counters=counters):
            yield proxy
            await frontend.stop()


def config_for(kdc: str, kpasswd: str | None = None, realm: str = "EXAMPLE.COM") -> Config:
    settings = SETTINGS.format(realm=realm, kdc=kdc, kpasswd=kpasswd or kdc)
    config = read_config(settings, source=Path("/nowhere/config.toml"))
    return Config(
        realms=config.realms,
        guard=GuardConfig(rates=RatesConfig(mode=Mode.OFF)),
        upstream=UpstreamConfig(max_in_flight_per_kdc=1000, connect_timeout=20.0, reach_timeout=20.0),
    )


@contextlib.asynccontextmanager
async def proxy_before(script: Script, tls: ssl.SSLContext) -> AsyncIterator[tuple[Proxy, FakeKdc]]:
    async with (
        FakeKdc(tcp=script) as kdc,
        proxy_of(config_for(f"tcp://{kdc.host}:{kdc.port}"), tls) as proxy,
    ):
        yield proxy, kdc


async def failure_of(exchange: Coroutine[Any, Any, KdcReply]) -> ExchangeError | None:
    try:
        await exchange
    except ExchangeError as error:
        return error
    return None


def route_of(*candidates: Candidate) -> Route:
    return Route(realm="EXAMPLE.COM", kerberos_realm="EXAMPLE.COM", candidates=candidates)


async def test_replies_of_500_exchanges_in_one_tunnel_are_not_mixed_up(
    server_tls: ssl.SSLContext, https: HttpsConfig
) -> None:
    async def echo(link: Link) -> None:
        # A probe of a busy proxy has another name.
        found = re.search(rb"user-\d+", await link.message()) or [b"probe"]
        await asyncio.sleep(hash(found[0]) % 100 / 1000)
        await link.reply(messages.krb_error(25, text=found[0].decode()))
        await link.hold()

    async with (
        proxy_before(echo, server_tls) as (proxy, kdc),
        running_upstream(
            https=https, max_in_flight_per_kdc=1000, connect_timeout=20.0, reach_timeout=20.0
        ) as (upstream, _),
    ):

        async def exchange(name: str) -> bool:
            request = request_of(messages.as_req(cname=(1, (name,)), padata=[(2, b"\x30\x00")]))
            reply = await upstream.exchange(request, route_of(proxy.candidate()))
            return name.encode() in reply.payload

        names = [f"user-{number:03}" for number in range(500)]
        assert all(await asyncio.gather(*map(exchange, names)))
        assert proxy.connections == 1
        copies = Counter(re.findall(rb"user-\d+", b"".join(kdc.messages)))
        assert (len(copies), set(copies.values())) == (500, {1})


async def test_proof_that_no_kdc_has_goes_to_the_next_endpoint(
    server_tls: ssl.SSLContext, https: HttpsConfig
) -> None:
    async with (
        proxy_of(config_for("tcp://127.0.0.1:1"), server_tls) as proxy,
        FakeKdc(tcp=fake_kdc.reply(REPLY)) as other,
        running_upstream(https=https) as (upstream, _),
    ):
        route = route_of(proxy.candidate(), candidate(other, priority=1))
        reply = await upstream.exchange(request_of(PROOF), route)
        assert (reply.endpoint.port, reply.attempts) == (other.port, 2)
        assert not reply.failures[0].may_be_delivered


@pytest.mark.parametrize("cause", ["refused", "lost"])
async def test_proof_that_a_kdc_may_have_goes_nowhere_else(
    cause: str, server_tls: ssl.SSLContext, https: HttpsConfig
) -> None:
    script = fake_kdc.close_after_message() if cause == "refused" else fake_kdc.silent()
    async with (
        proxy_before(script, server_tls) as (proxy, kdc),
        FakeKdc(tcp=fake_kdc.reply(REPLY)) as other,
        running_upstream(https=https) as (upstream, _),
        asyncio.TaskGroup() as tasks,
    ):
        route = route_of(proxy.candidate(), candidate(other, priority=1))
        exchange = tasks.create_task(failure_of(upstream.exchange(request_of(PROOF), route)), name="proof")
        await kdc.wait_for_messages(1)
        if cause == "lost":
            await proxy.frontend.stop()
        assert isinstance(await exchange, NoKdcReplyError)
        assert (len(kdc.messages), len(other.messages)) == (1, 0)


async def test_proof_avoids_a_proxy_that_drains_and_its_tunnel_finishes(
    server_tls: ssl.SSLContext, https: HttpsConfig
) -> None:
    release = asyncio.Event()
    async with (
        proxy_before(fake_kdc.reply(REPLY, when=release), server_tls) as (proxy, kdc),
        FakeKdc(tcp=fake_kdc.reply(REPLY)) as other,
        running_upstream(https=https) as (upstream, _),
        asyncio.TaskGroup() as tasks,
    ):
        route = route_of(proxy.candidate(), candidate(other, priority=1))
        first = tasks.create_task(upstream.exchange(request_of(PROOF), route), name="proof")
        await kdc.wait_for_messages(1)
        proxy.frontend.drain()
        assert (await upstream.exchange(request_of(PROOF), route)).endpoint.port == other.port
        release.set()
        assert (await first).endpoint.port == proxy.port


async def test_silent_tunnel_that_answers_a_ping_is_used_again(
    server_tls: ssl.SSLContext, https: HttpsConfig
) -> None:
    options = WssOptions(fresh_seconds=0.0, test_timeout=5.0)
    async with (
        proxy_before(fake_kdc.reply(REPLY), server_tls) as (proxy, _),
        running_upstream(https=https, wss=options) as (upstream, _),
    ):
        for _ in range(3):
            await upstream.exchange(request_of(PROOF), route_of(proxy.candidate()))
        assert proxy.connections == 1


async def test_silent_tunnel_that_answers_no_ping_is_replaced(
    server_tls: ssl.SSLContext, https: HttpsConfig
) -> None:
    # No answer comes within no time.
    options = WssOptions(fresh_seconds=0.0, test_timeout=0.0)
    async with (
        proxy_before(fake_kdc.reply(REPLY), server_tls) as (proxy, kdc),
        running_upstream(https=https, wss=options) as (upstream, _),
    ):
        for _ in range(2):
            await upstream.exchange(request_of(PROOF), route_of(proxy.candidate()))
        assert (proxy.connections, len(kdc.messages)) == (2, 2)


@pytest.mark.parametrize(
    ("path", "reason"), [("/nowhere", "not_a_kdc_proxy"), ("/KdcProxy", "not_a_kdc_proxy")]
)
async def test_url_without_a_tunnel_is_a_failure(
    path: str, reason: str, server_tls: ssl.SSLContext, https: HttpsConfig
) -> None:
    async with (
        proxy_before(fake_kdc.reply(REPLY), server_tls) as (proxy, _),
        running_upstream(https=https) as (upstream, _),
    ):
        with pytest.raises(NoKdcReachedError, match=reason):
            await upstream.exchange(request_of(PROOF), route_of(proxy.candidate(path=path)))


async def test_certificate_of_another_authority_is_refused(server_tls: ssl.SSLContext) -> None:
    async with (
        proxy_before(fake_kdc.reply(REPLY), server_tls) as (proxy, kdc),
        running_upstream(https=HttpsConfig()) as (upstream, _),
    ):
        with pytest.raises(NoKdcReachedError, match="tls_failed"):
            await upstream.exchange(request_of(PROOF), route_of(proxy.candidate()))
        assert not kdc.messages


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    users = [
        Principal(name=name, password=PASSWORD, options=("+requires_preauth",)) for name in ("alice", "bob")
    ]
    with MitRealm(tmp_path_factory.mktemp("realm"), principals=users) as running:
        yield running


async def test_login_and_password_change_work_through_a_tunnel(
    realm: MitRealm, server_tls: ssl.SSLContext, authority: Authority, tmp_path: Path
) -> None:
    config = config_for(f"tcp://{realm.kdc.endpoints[0]}", f"tcp://{realm.kpasswd_endpoint}", realm.name)
    async with proxy_of(config, server_tls) as proxy:
        output = await asyncio.to_thread(
            _use_clients, f"wss://localhost:{proxy.port}/KdcTunnel", realm.name, authority, tmp_path
        )
    assert output.count(" transport=wss ") >= 4, output


def _use_clients(url: str, realm: str, authority: Authority, directory: Path) -> str:
    """Run a kkdcpd that forwards to the URL, log in through it, change a password; return its log."""
    pair = authority.issue("localhost", "127.0.0.1", file_name="outer")
    config = f"""
        [[listen]]
        address = "127.0.0.1:0"
        [tls]
        certificate = "{pair.certificate}"
        key = "{pair.key}"
        [realms."{realm}"]
        kdc = ["{url}"]
        kpasswd = ["{url}"]
    """
    variables = {"SSL_CERT_FILE": str(authority.certificate)}
    with Daemon(directory / "outer", config, environment=variables) as daemon:
        servers = RealmServers.behind(f"https://localhost:{daemon.ports[0]}/KdcProxy")
        client = KerberosClient(directory / "client", {realm: servers}, http_anchors=authority.certificate)
        client.kinit("alice", PASSWORD).expect_ok()
        client.kpasswd("bob", PASSWORD, "battery staple").expect_ok()
        client.kinit("bob", "battery staple").expect_ok()
        return "\n".join(daemon.lines)
