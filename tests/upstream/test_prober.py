"""Probes to fake KDCs: their messages, and the meaning of answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from kkdcpd.config import HttpsConfig, UpstreamConfig
from kkdcpd.endpoints import KDC_TRANSPORTS, KdcEndpoint, Transport
from kkdcpd.process_messages import ProbeTarget
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.values import FailureReason, KdcState, MessageKind
from lab.authority import Authority, CertificateFiles
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import FakeKdc
from tests.support.fake_kdc_proxy import NAME, FakeKdcProxy, Script, answer, hold, response, send
from tests.support.upstream import endpoint, health_table
from tests.support.waiting import eventually

ALIVE = messages.krb_error(11)


@contextlib.asynccontextmanager
async def probing(kdc: FakeKdc, *, realm: str | None, transport: Transport) -> AsyncIterator[HealthTable]:
    """A prober, just after a request found the KDC silent."""
    async with probing_endpoint(endpoint(kdc, transport), realm=realm) as health:
        yield health


@contextlib.asynccontextmanager
async def probing_endpoint(
    endpoint: KdcEndpoint, *, realm: str | None, https: HttpsConfig | None = None
) -> AsyncIterator[HealthTable]:
    config = replace(
        UpstreamConfig(), reach_timeout=0.2 if https is None else 2.0, https=https or HttpsConfig()
    )
    health = health_table(config.reach_timeout)
    with contextlib.closing(WaysOut(config)) as ways_out:
        prober = Prober(config, ways_out, health)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(prober.run(), name="prober")
            target = ProbeTarget(endpoint=endpoint, realm=realm)
            health.report(target, FailureReason.SILENT, asyncio.get_running_loop().time())
            prober.wake()
            yield health
            running.cancel()


@pytest.mark.parametrize("transport", KDC_TRANSPORTS)
async def test_kdc_that_answers_a_probe_is_healthy(transport: Transport) -> None:
    async with FakeKdc(tcp=fake_kdc.reply(ALIVE), udp=fake_kdc.reply(ALIVE)) as kdc:
        async with probing(kdc, realm="EXAMPLE.COM", transport=transport) as health:

            async def is_well() -> bool:
                return health.state(endpoint(kdc, transport)) is KdcState.HEALTHY

            await eventually(is_well)
        request = classify(decode_proxy_message(messages.envelope(kdc.messages[0])))
        assert (request.kind, request.realm) == (MessageKind.AS_REQ, "EXAMPLE.COM")
        assert str(request.cname) == str(request.sname) == "krbtgt/EXAMPLE.COM"


@pytest.mark.parametrize(
    "script",
    [
        fake_kdc.silent(),
        fake_kdc.close_after_message(),
        fake_kdc.garbage(),
        fake_kdc.reply(messages.krb_error(29)),
    ],
    ids=["silent", "closes", "garbage", "unavailable"],
)
async def test_kdc_that_does_not_answer_a_probe_is_down_and_probed_again(script: fake_kdc.Script) -> None:
    async with (
        FakeKdc(tcp=script) as kdc,
        probing(kdc, realm="EXAMPLE.COM", transport=Transport.TCP) as health,
    ):
        first, second = (await kdc.wait_for_messages(2))[:2]

        async def is_down() -> bool:
            return health.state(endpoint(kdc)) is KdcState.DOWN

        await eventually(is_down)
        # MIT's KDC would answer the same bytes from its cache.
        assert first != second


async def test_password_server_is_only_connected_to() -> None:
    async with FakeKdc(tcp=fake_kdc.silent()) as kdc:
        async with probing(kdc, realm=None, transport=Transport.TCP) as health:

            async def is_well() -> bool:
                return health.state(endpoint(kdc)) is KdcState.HEALTHY

            await eventually(is_well)
        assert kdc.messages == []


async def test_udp_only_password_server_is_healthy_again_without_a_probe() -> None:
    async with FakeKdc(udp=fake_kdc.silent()) as kdc:
        async with probing(kdc, realm=None, transport=Transport.UDP) as health:

            async def is_well() -> bool:
                return health.state(endpoint(kdc, Transport.UDP)) is KdcState.HEALTHY

            await eventually(is_well)
        assert kdc.messages == []


# --- KDC proxies


@pytest.fixture(scope="module")
def files(authority: Authority) -> CertificateFiles:
    return authority.issue(NAME, file_name="probed")


async def wait_for(health: HealthTable, proxy: FakeKdcProxy, state: KdcState) -> None:
    async def is_so() -> bool:
        return health.state(proxy.endpoint) is state

    await eventually(is_so)


async def test_kdc_proxy_gets_an_as_req_without_a_credential(
    authority: Authority, files: CertificateFiles
) -> None:
    https = HttpsConfig(ca_file=authority.certificate)
    async with FakeKdcProxy(files, script=answer(ALIVE)) as proxy:
        async with probing_endpoint(proxy.endpoint, realm="EXAMPLE.COM", https=https) as health:
            await wait_for(health, proxy, KdcState.HEALTHY)
        request = classify(decode_proxy_message(proxy.requests[0].body))
        assert (request.kind, request.target_domain) == (MessageKind.AS_REQ, "EXAMPLE.COM")
        assert request.padata_types == ()


async def test_entra_kerberos_gets_an_empty_request(authority: Authority, files: CertificateFiles) -> None:
    """A server of Entra's form: the path of a tenant, no AS exchange, and 200 for an empty POST."""
    https = HttpsConfig(ca_file=authority.certificate)
    async with FakeKdcProxy(files, script=send(response(200)), path="/TENANT/kerberos") as proxy:
        realm = "KERBEROS.MICROSOFTONLINE.COM"
        async with probing_endpoint(proxy.endpoint, realm=realm, https=https) as health:
            await wait_for(health, proxy, KdcState.HEALTHY)
        assert {request.line for request in proxy.requests} == {"POST /TENANT/kerberos HTTP/1.1"}
        assert {request.body for request in proxy.requests} == {b""}


async def test_proxy_whose_policy_refuses_the_probe_is_healthy(
    authority: Authority, files: CertificateFiles
) -> None:
    https = HttpsConfig(ca_file=authority.certificate)
    async with (
        FakeKdcProxy(files, script=send(response(403, b"", "Kdc-Has-Message: no"))) as proxy,
        probing_endpoint(proxy.endpoint, realm="EXAMPLE.COM", https=https) as health,
    ):
        await wait_for(health, proxy, KdcState.HEALTHY)


@pytest.mark.parametrize("script", [hold(), send(response(503))], ids=["silent", "503"])
async def test_proxy_that_does_not_relay_a_probe_is_down(
    script: Script, authority: Authority, files: CertificateFiles
) -> None:
    https = HttpsConfig(ca_file=authority.certificate)
    async with (
        FakeKdcProxy(files, script=script) as proxy,
        probing_endpoint(proxy.endpoint, realm="EXAMPLE.COM", https=https) as health,
    ):
        await wait_for(health, proxy, KdcState.DOWN)


async def test_proxy_of_a_password_server_is_only_connected_to(
    authority: Authority, files: CertificateFiles
) -> None:
    https = HttpsConfig(ca_file=authority.certificate)
    async with FakeKdcProxy(files, script=hold()) as proxy:
        async with probing_endpoint(proxy.endpoint, realm=None, https=https) as health:
            await wait_for(health, proxy, KdcState.HEALTHY)
        assert (proxy.requests, proxy.connections >= 1) == ([], True)
