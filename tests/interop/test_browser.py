"""The JavaScript client of examples/browser in a real Chromium, with a real KDC behind the proxy."""

import asyncio
import hashlib
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.config import TlsConfig, TunnelConfig, read_config
from kkdcpd.frontends.kdc_proxy import KdcProxyFrontend
from kkdcpd.frontends.websocket import TunnelFrontend
from kkdcpd.guard.guard import Guard
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.tls import build_server_context
from lab.authority import Authority, CertificateFiles
from lab.chromium import Chromium
from lab.program import Program, environment
from lab.realm import MitRealm, Principal
from tests.frontends.inside import listening, running_acceptor
from tests.support.shared import own_counts, own_table
from tests.support.upstream import running_relay

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "browser"
PATIENCE_SECONDS = 20.0

SETTINGS = """
[[listen]]
address = "127.0.0.1:0"
tls = false
[realms."KK.TEST"]
kdc = ["{kdc}"]
[realms."TOKEN.TEST"]
kdc = ["{kdc}"]
"""

TOKEN = "a secret + more?"

KRB_ERROR = 0x7E
PREAUTHENTICATION_REQUIRED = bytes.fromhex("a603020119")
"""The field error-code with 25, KDC_ERR_PREAUTH_REQUIRED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Two web pages with the same scripts. The proxy at `host` has only the origin of `listed`."""

    chromium: Chromium
    host: str
    listed: str
    other: str

    async def run(self, page_url: str, script: str) -> Any:
        """Run a script in a page, with the client as `client`, the message and the URLs."""
        names = f"""
            const client = await import("{page_url}/kdc-proxy.js");
            const [url, tunnel] = ["https://{self.host}/KdcProxy", "wss://{self.host}/KdcTunnel"];
            const message = client.asReq("KK.TEST", "alice");
        """
        async with asyncio.timeout(PATIENCE_SECONDS), self.chromium.page(f"{page_url}/index.html") as page:
            return await page.evaluate(names + script)


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MitRealm]:
    alice = Principal(name="alice", password="correct horse", options=("+requires_preauth",))
    with MitRealm(tmp_path_factory.mktemp("realm"), principals=(alice,)) as running:
        yield running


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> CertificateFiles:
    return authority.issue("127.0.0.1", file_name="browser")


@pytest.fixture(scope="module")
def chromium(certificate: CertificateFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium"), certificate=certificate.certificate) as running:
        yield running


@pytest.fixture(scope="module")
def server_tls(certificate: CertificateFiles) -> ssl.SSLContext:
    return build_server_context(TlsConfig(certificate=certificate.certificate, key=certificate.key))


@pytest.fixture(scope="module")
def web_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a web server with the example."""
    command = (sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory")
    home = environment(tmp_path_factory.mktemp("web"))
    with Program("web server", *command, str(EXAMPLE), environment=home) as server:
        ready = re.search(r"port (\d+)", server.wait_for_line(lambda line: "port" in line))
        assert ready
        yield int(ready[1])


@pytest.fixture
async def site(
    realm: MitRealm, server_tls: ssl.SSLContext, chromium: Chromium, web_port: int
) -> AsyncIterator[Site]:
    # One server, and two origins.
    listed, other = f"http://127.0.0.1:{web_port}", f"http://localhost:{web_port}"
    config = read_config(
        SETTINGS.format(kdc=f"tcp://127.0.0.1:{realm.kdc.port}"), source=Path("/nowhere/config.toml")
    )
    digest = hashlib.sha256(TOKEN.encode()).digest()
    config = replace(
        config,
        http=replace(config.http, cors_origins=(listed,)),
        tunnel=TunnelConfig(paths=("/KdcTunnel",)),
        realms=tuple(
            replace(each, tokens=(digest,)) if each.name == "TOKEN.TEST" else each for each in config.realms
        ),
    )
    counters = Counters.discarding()
    async with running_relay(config) as relay, listening(tls=server_tls) as listener:
        guard = Guard(config, own_table(), own_counts(), time.monotonic)
        pipeline = Pipeline(guard=guard, relay=relay, counters=counters, config=config.guard)
        frontend = KdcProxyFrontend(
            config,
            pipeline,
            counters,
            TunnelFrontend(config, pipeline),
        )
        async with running_acceptor(
            listener, make_connection=frontend.connection, counters=counters
        ) as acceptor:
            host = f"127.0.0.1:{listener.socket.getsockname()[1]}"
            yield Site(chromium=chromium, host=host, listed=listed, other=other)
            await frontend.stop()
            async with asyncio.timeout(PATIENCE_SECONDS):
                await acceptor.connections.wait_until_empty()


def assert_is_demand_for_preauthentication(reply: Any) -> None:
    assert isinstance(reply, list), reply
    assert reply[0] == KRB_ERROR
    assert PREAUTHENTICATION_REQUIRED in bytes(reply)


async def test_post_brings_the_reply_of_a_kdc(site: Site) -> None:
    reply = await site.run(site.listed, 'return [...await client.post(url, message, "KK.TEST")]')
    assert_is_demand_for_preauthentication(reply)


async def test_tunnel_brings_the_replies_of_a_kdc(site: Site) -> None:
    script = """
        const opened = new client.Tunnel(tunnel);
        const replies = await Promise.all([1, 2, 3].map(() => opened.send(message, "KK.TEST")));
        return replies.map((reply) => [...reply]);
    """
    replies = await site.run(site.listed, script)
    assert isinstance(replies, list), replies
    assert len(replies) == 3
    for reply in replies:
        assert_is_demand_for_preauthentication(reply)


@pytest.mark.parametrize(
    "send", ['client.post(url, message, "NONE.TEST")', 'new client.Tunnel(tunnel).send(message, "NONE.TEST")']
)
async def test_script_can_read_a_refusal(site: Site, send: str) -> None:
    script = f"return await {send}.then(() => null, (error) => [error.status, error.message])"
    status, text = await site.run(site.listed, script)
    assert (status, "does not serve" in text) == (503, True)


@pytest.mark.parametrize(("token", "is_let_in"), [(TOKEN, True), ("another", False)])
async def test_tunnel_takes_a_token(site: Site, token: str, *, is_let_in: bool) -> None:
    script = f"""
        const asReq = client.asReq("TOKEN.TEST", "alice");
        const sent = new client.Tunnel(tunnel, "{token}").send(asReq, "TOKEN.TEST");
        return await sent.then((reply) => reply[0], (error) => error.status);
    """
    assert await site.run(site.listed, script) == (KRB_ERROR if is_let_in else 403)


@pytest.mark.parametrize(
    "send", ['client.post(url, message, "KK.TEST")', 'new client.Tunnel(tunnel).send(message, "KK.TEST")']
)
async def test_script_of_another_origin_gets_nothing(site: Site, send: str) -> None:
    script = f"return await {send}.then(() => null, (error) => error.message)"
    assert (await site.run(site.other, script)).startswith(("Failed to fetch", "0: closed (1006)"))


async def test_form_of_the_page_shows_both_replies(site: Site) -> None:
    script = """
        const form = document.querySelector("form"), shown = document.querySelector("pre");
        [form.host.value, form.realm.value] = [new URL(url).host, "KK.TEST"];
        form.requestSubmit();
        while (!shown.textContent.includes("tunnel: ")) await new Promise((done) => setTimeout(done, 50));
        return shown.textContent;
    """
    text = await site.run(site.listed, script)
    assert "POST: 7e " in text
    assert "tunnel: 7e " in text
