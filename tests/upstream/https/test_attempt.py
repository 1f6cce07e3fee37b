"""One attempt at a KDC proxy on real sockets: its events, and the connection that it uses."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from kkdcpd import via
from kkdcpd.config import HttpsConfig, PinnedKey
from kkdcpd.upstream.https.attempt import HttpsAttempt, make_pool
from kkdcpd.upstream.https.pool import Pool
from kkdcpd.upstream.https.web_proxy import WebProxies, WebProxy, read_environment
from kkdcpd.upstream.sockets import Readiness
from kkdcpd.values import Attempt
from lab.authority import Authority, CertificateFiles
from tests.support import fake_kdc_proxy, messages
from tests.support.fake_kdc_proxy import NAME, FakeKdcProxy, Link, answer, response, send
from tests.support.recorder import EventRecorder
from tests.support.upstream import request_of

REPLY = messages.as_rep()
REQUEST = request_of(messages.as_req())
_DIRECT = WebProxies()


@contextlib.contextmanager
def pool_of(options: HttpsConfig, web_proxies: WebProxies = _DIRECT) -> Iterator[Pool]:
    with contextlib.closing(
        make_pool(options, readiness=Readiness(), sources={}, max_reply_bytes=65536, web_proxies=web_proxies)
    ) as pool:
        yield pool


def pinning(options: HttpsConfig, *digests: bytes) -> HttpsConfig:
    return replace(options, pins=tuple(PinnedKey(host=NAME, digest=digest) for digest in digests))


class Attempts:
    """Makes attempts at one proxy, each with its events in `events`."""

    def __init__(self, proxy: FakeKdcProxy, pool: Pool) -> None:
        self._proxy = proxy
        self._pool = pool
        self.events = EventRecorder()

    def make(self, *, may_repeat: bool = True) -> HttpsAttempt:
        attempt = Attempt(number=1, endpoint=self._proxy.endpoint)
        return HttpsAttempt(attempt, self.events, pool=self._pool, sources={}, may_repeat=may_repeat)

    async def ready(self, *, may_repeat: bool = True) -> HttpsAttempt:
        """Make an attempt, and wait until it can send."""
        way = self.make(may_repeat=may_repeat)
        way.start()
        assert await self.events.next() == "connected"
        return way

    async def ask(self, *, may_repeat: bool = True) -> str | bytes:
        """Send the request, and return the reply or the reason of the failure."""
        (await self.ready(may_repeat=may_repeat)).send(REQUEST)
        return await self.events.next()


async def test_nothing_is_sent_before_the_call_of_send(options: HttpsConfig, files: CertificateFiles) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY), path="/a?b=%20") as proxy:
        with pool_of(options) as pool:
            attempts = Attempts(proxy, pool)
            way = await attempts.ready()
            assert proxy.requests == []
            way.send(REQUEST)
            assert await attempts.events.next() == REPLY
    [request] = proxy.requests
    assert request.line == "POST /a?b=%20 HTTP/1.1"
    assert request.headers["host"] == f"{NAME}:{proxy.port}"
    assert request.headers["via"] == f"1.1 {via.NAME}"
    assert request.payload == REQUEST.payload


async def test_endpoint_without_a_path_means_the_root(options: HttpsConfig, files: CertificateFiles) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY), path="") as proxy:
        with pool_of(options) as pool:
            assert await Attempts(proxy, pool).ask() == REPLY
    assert proxy.requests[0].line == "POST / HTTP/1.1"


async def test_names_of_earlier_proxies_go_on(options: HttpsConfig, files: CertificateFiles) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(options) as pool:
            attempts = Attempts(proxy, pool)
            (await attempts.ready()).send(replace(REQUEST, via="1.1 a, 1.1 b"))
            assert await attempts.events.next() == REPLY
    assert proxy.requests[0].headers["via"] == "1.1 a, 1.1 b"


async def test_idle_connection_is_used_again(options: HttpsConfig, files: CertificateFiles) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(options) as pool:
            attempts = Attempts(proxy, pool)
            assert [await attempts.ask() for _ in range(5)] == [REPLY] * 5
            assert proxy.connections == 1


async def test_unused_connection_of_a_closed_attempt_is_kept(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(options) as pool:
            attempts = Attempts(proxy, pool)
            way = await attempts.ready()
            way.close()
            way.close()
            assert await attempts.ask() == REPLY
            assert proxy.connections == 1


async def test_requests_at_the_same_time_have_a_connection_each(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(options) as pool:
            attempts = [Attempts(proxy, pool) for _ in range(3)]
            async with asyncio.TaskGroup() as tasks:
                ways = [tasks.create_task(each.ready()) for each in attempts]
            for way in ways:
                way.result().send(REQUEST)
            assert [await each.events.next() for each in attempts] == [REPLY] * 3
            assert proxy.connections == 3


async def test_message_sent_once_uses_no_connection_that_has_been_idle(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(replace(options, fresh_seconds=0.0)) as pool:
            attempts = Attempts(proxy, pool)
            assert await attempts.ask() == REPLY
            assert await attempts.ask(may_repeat=False) == REPLY
            assert proxy.connections == 2


async def close_after_two(link: Link) -> None:
    """Answer one request, and close the connection when the second one has arrived."""
    await link.request()
    await link.write(response(200, messages.envelope(REPLY, None)))
    await link.request()


async def test_repeatable_message_gets_a_second_connection_if_the_server_closes_the_idle_one(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=close_after_two) as proxy:
        with pool_of(options) as pool:
            attempts = Attempts(proxy, pool)
            assert [await attempts.ask(), await attempts.ask()] == [REPLY, REPLY]
            assert (proxy.connections, len(proxy.requests)) == (2, 3)


async def test_message_sent_once_has_no_second_copy_if_the_server_closes_the_idle_connection(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=close_after_two) as proxy:
        with pool_of(replace(options, fresh_seconds=60.0)) as pool:
            attempts = Attempts(proxy, pool)
            assert [await attempts.ask(), await attempts.ask(may_repeat=False)] == [REPLY, "closed"]
            assert (proxy.connections, len(proxy.requests)) == (1, 2)


async def test_connection_that_the_server_has_closed_is_not_used(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    async with FakeKdcProxy(
        files, script=send(response(200, messages.envelope(REPLY, None)), holds=False)
    ) as proxy:
        with pool_of(replace(options, fresh_seconds=60.0)) as pool:
            attempts = Attempts(proxy, pool)
            assert await attempts.ask() == REPLY
            await proxy.wait_until_closed()
            assert await attempts.ask(may_repeat=False) == REPLY
            assert (proxy.connections, len(proxy.requests)) == (2, 2)


@pytest.mark.parametrize("count", [1, 2])
async def test_certificate_without_a_pinned_key_is_refused(
    count: int,
    options: HttpsConfig,
    files: CertificateFiles,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(pinning(options, *(bytes([number] * 32) for number in range(count)))) as pool:
            attempts = Attempts(proxy, pool)
            attempts.make().start()
            assert await attempts.events.next() == "tls_failed"
    assert proxy.requests == []
    [fields] = logged(caplog, "kdc_proxy_failed")
    assert fields["problem"] == "the certificate has no pinned key"
    assert fields["advice"]


async def test_certificate_with_a_pinned_key_is_accepted(
    options: HttpsConfig, files: CertificateFiles, pin: bytes
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(pinning(options, bytes(32), pin)) as pool:
            assert await Attempts(proxy, pool).ask() == REPLY


async def test_client_certificate_is_shown(
    options: HttpsConfig, files: CertificateFiles, authority: Authority, client_files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY), client_ca=str(authority.certificate)) as proxy:
        shown = replace(options, certificate=client_files.certificate, key=client_files.key)
        with pool_of(shown) as pool:
            assert await Attempts(proxy, pool).ask() == REPLY
        with pool_of(options) as pool:
            attempts = Attempts(proxy, pool)
            # With TLS 1.3, the refusal comes after the handshake, perhaps without an alert.
            assert await attempts.ask() in {"tls_failed", "closed", "reset"}


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, object]]:
    return [record.fields for record in caplog.records if record.message == event]  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["x" * 64 + ".test", ".test", "a..test"])
async def test_name_that_no_certificate_can_have_is_a_failure_of_tls(
    name: str, options: HttpsConfig, files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY), name=name) as proxy:
        with pool_of(options) as pool:
            attempts = Attempts(proxy, pool)
            attempts.make().start()
            assert await attempts.events.next() == "tls_failed"


async def test_unusable_options_are_an_error_of_this_host(
    options: HttpsConfig, files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(replace(options, ca_file=files.key)) as pool:
            attempts = Attempts(proxy, pool)
            attempts.make().start()
            assert await attempts.events.next() == "local_error"
    [fields] = logged(caplog, "https_unusable")
    assert str(files.key) in str(fields["problem"])
    assert fields["remedy"]


async def test_status_and_request_id_of_a_refusal_are_logged(
    options: HttpsConfig, files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    async with FakeKdcProxy(files, script=send(response(403, b"", "x-ms-request-id: 0123abcd"))) as proxy:
        with pool_of(options) as pool:
            assert await Attempts(proxy, pool).ask() == "proxy_refused"
    [fields] = logged(caplog, "kdc_proxy_failed")
    assert (fields["status"], fields["request_id"]) == (403, "0123abcd")
    assert fields["kdc"] == str(proxy.endpoint)


# --- web proxies


async def tunnel(link: Link, port: int) -> None:
    """Open a tunnel to a port of this host, as a web proxy does."""
    await link.request()
    await link.write(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 web\r\n\r\n")
    await link.relay_to(port)


def web_proxies(proxy: FakeKdcProxy, user: str = "") -> WebProxies:
    return read_environment({"https_proxy": f"http://{user}127.0.0.1:{proxy.port}"})


async def test_message_goes_through_the_tunnel_of_a_web_proxy(
    options: HttpsConfig, files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:

        async def open_tunnel(link: Link) -> None:
            await tunnel(link, proxy.port)

        async with FakeKdcProxy(None, script=open_tunnel) as web:
            with pool_of(options, web_proxies(web, "user:secret@")) as pool:
                attempts = Attempts(proxy, pool)
                assert [await attempts.ask(), await attempts.ask()] == [REPLY, REPLY]
    [request] = web.requests
    assert request.line == f"CONNECT {NAME}:{proxy.port} HTTP/1.1"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpzZWNyZXQ="
    assert "proxy-authorization" not in proxy.requests[0].headers
    assert "dXNlcjpzZWNyZXQ" not in caplog.text


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (response(407), 407),
        (response(403, b"<html>"), 403),
        (response(502), 502),
        (b"garbage\r\n\r\n", None),
        (b"", None),
    ],
)
async def test_web_proxy_that_opens_no_tunnel_is_named_in_the_log(
    data: bytes,
    status: int | None,
    options: HttpsConfig,
    files: CertificateFiles,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        FakeKdcProxy(files, script=answer(REPLY)) as proxy,
        FakeKdcProxy(None, script=send(data, holds=False)) as web,
    ):
        with pool_of(options, web_proxies(web)) as pool:
            attempts = Attempts(proxy, pool)
            attempts.make().start()
            assert await attempts.events.next() == "web_proxy_failed"
    assert proxy.connections == 0
    [fields] = logged(caplog, "kdc_proxy_failed")
    assert fields.get("status") == status
    assert "https_proxy" in str(fields["advice"])


async def test_web_proxy_without_an_address_is_named_in_the_log(
    options: HttpsConfig, files: CertificateFiles, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = WebProxies(proxy=WebProxy(host="web.invalid", port=1))
    async with FakeKdcProxy(files, script=answer(REPLY)) as proxy:
        with pool_of(options, unknown) as pool:
            attempts = Attempts(proxy, pool)
            attempts.make().start()
            assert await attempts.events.next() == "web_proxy_failed"
    [fields] = logged(caplog, "kdc_proxy_failed")
    assert "web.invalid" in str(fields["problem"])


async def test_exception_of_no_proxy_is_reached_directly(
    options: HttpsConfig, files: CertificateFiles
) -> None:
    async with (
        FakeKdcProxy(files, script=answer(REPLY)) as proxy,
        FakeKdcProxy(None, script=fake_kdc_proxy.hold()) as web,
    ):
        direct = replace(web_proxies(web), exceptions=("127.0.0.0/8",))
        with pool_of(options, direct) as pool:
            assert await Attempts(proxy, pool).ask() == REPLY
        assert web.connections == 0
