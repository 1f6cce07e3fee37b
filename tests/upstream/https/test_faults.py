"""Exchanges with faulty KDC proxies over real TLS: which proxy gets the message, and how often."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from kkdcpd.config import HttpsConfig
from kkdcpd.errors import ExchangeError, NoKdcReachedError, NoKdcReplyError
from kkdcpd.protocol.kkdcp import decode_proxy_message
from kkdcpd.protocol.messages import classify
from kkdcpd.upstream.driver import Upstream
from kkdcpd.values import Candidate, FailureReason, KdcState, Route
from lab.authority import Authority, CertificateFiles
from tests.support import fake_kdc_proxy, messages
from tests.support.fake_kdc_proxy import NAME, PORTAL, FakeKdcProxy, Link, Script, answer, response, send
from tests.support.upstream import request_of, running_upstream
from tests.support.waiting import eventually

TGS_REQ = messages.tgs_req()
PROOF = messages.as_req(padata=[(2, b"\x30\x00"), (149, b"")])
KPASSWD = messages.kpasswd_req()
REPLIES = {TGS_REQ: messages.tgs_rep(), PROOF: messages.as_rep(), KPASSWD: messages.kpasswd_rep()}
SENT_ONCE = [PROOF, KPASSWD]
COUNT = 500
NO = "Kdc-Has-Message: no"
MAYBE = "Kdc-Has-Message: maybe"


def part_of_a_response() -> bytes:
    return response(200, bytes(1000))[:-500]


# The reason of each fault with which a KDC may have the message.
TAKEN: dict[str, tuple[Script, FailureReason]] = {
    "503": (send(response(503)), FailureReason.PROXY_UNAVAILABLE),
    "503 maybe": (send(response(503, b"", MAYBE)), FailureReason.PROXY_UNAVAILABLE),
    "503 with another word": (
        send(response(503, b"", "Kdc-Has-Message: nope")),
        FailureReason.PROXY_UNAVAILABLE,
    ),
    "429": (send(response(429)), FailureReason.PROXY_RATE_LIMITED),
    "403": (send(response(403)), FailureReason.PROXY_REFUSED),
    "404": (send(response(404)), FailureReason.PROXY_ERROR),
    "500": (send(response(500, PORTAL)), FailureReason.PROXY_ERROR),
    "508": (send(response(508)), FailureReason.PROXY_LOOP),
    "redirect": (send(response(302, b"", "Location: https://portal.test/")), FailureReason.PROXY_ERROR),
    "captive portal": (send(response(200, PORTAL, "Content-Type: text/html")), FailureReason.NOT_A_KDC_PROXY),
    "empty reply": (send(response(200)), FailureReason.NOT_A_KDC_PROXY),
    "reply to another kind": (answer(messages.ap_rep()), FailureReason.BAD_REPLY),
    "garbage": (send(b"\x00\x01\x02 no HTTP\r\n\r\n"), FailureReason.BAD_REPLY),
    "huge head": (send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), FailureReason.BAD_REPLY),
    "huge length": (
        send(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n"),
        FailureReason.REPLY_TOO_BIG,
    ),
    "endless chunks": (
        send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1000\r\n%b\r\n" % bytes(4096) * 600
        ),
        FailureReason.REPLY_TOO_BIG,
    ),
    "endless interim responses": (send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50), FailureReason.BAD_REPLY),
    "closes": (fake_kdc_proxy.close_after_request(), FailureReason.CLOSED),
    "closes in mid-head": (send(b"HTTP/1.1 200 OK\r\nContent", holds=False), FailureReason.CLOSED),
    "closes in mid-body": (send(part_of_a_response(), holds=False), FailureReason.CLOSED),
    "truncated by HTTP/1.0": (
        send(b"HTTP/1.0 200 OK\r\n\r\n" + messages.envelope(messages.tgs_rep())[:-9], holds=False),
        FailureReason.NOT_A_KDC_PROXY,
    ),
}
SILENT: dict[str, Script] = {
    "is silent": fake_kdc_proxy.hold(),
    "hangs after the head": send(response(200, bytes(1000))[:-1000]),
    "hangs in mid-body": send(part_of_a_response()),
}


@pytest.fixture(scope="module")
def unusable(authority: Authority, files: CertificateFiles) -> Mapping[str, CertificateFiles | None]:
    """The certificate with which each fault shows, None for a server without TLS."""
    stranger = Authority(authority.certificate.parent / "stranger")
    return {
        "another authority": stranger.issue(NAME),
        "expired": authority.issue(NAME, file_name="expired", is_expired=True),
        "another name": authority.issue("other.test", file_name="other-name"),
        "no TLS": None,
        "refuses": files,
        "no answer": files,
    }


def route_to(*proxies: FakeKdcProxy) -> Route:
    candidates = [
        Candidate(endpoint=proxy.endpoint, source="test", priority=number)
        for number, proxy in enumerate(proxies)
    ]
    return Route(realm="EXAMPLE.COM", kerberos_realm="EXAMPLE.COM", candidates=tuple(candidates))


@contextlib.asynccontextmanager
async def upstream_to(authority: Authority, **settings: Any) -> AsyncIterator[Upstream]:
    # However busy the machine is, the first proxy is connected before the second is tried.
    settings = {"stagger": 4.0, "connect_timeout": 4.5, "reach_timeout": 9.0} | settings
    async with running_upstream(https=HttpsConfig(ca_file=authority.certificate), **settings) as (
        upstream,
        _,
    ):
        yield upstream


@pytest.mark.parametrize("fault", [*TAKEN, *SILENT])
async def test_repeatable_message_goes_on_to_the_next_proxy(
    fault: str, authority: Authority, files: CertificateFiles
) -> None:
    script = TAKEN[fault][0] if fault in TAKEN else SILENT[fault]
    async with (
        FakeKdcProxy(files, script=script) as faulty,
        FakeKdcProxy(files, script=answer(REPLIES[TGS_REQ])) as healthy,
        upstream_to(authority, hedge_delay=0.2) as upstream,
    ):
        reply = await upstream.exchange(request_of(TGS_REQ), route_to(faulty, healthy))
        assert reply.payload == REPLIES[TGS_REQ]
        assert reply.endpoint == healthy.endpoint
        assert (faulty.copies_of(TGS_REQ), healthy.copies_of(TGS_REQ)) == (1, 1)
        if fault in TAKEN:
            assert [failure.reason for failure in reply.failures] == [TAKEN[fault][1]]


@pytest.mark.parametrize("payload", SENT_ONCE, ids=["proof", "kpasswd"])
@pytest.mark.parametrize("fault", [*TAKEN, *SILENT])
async def test_message_sent_once_goes_to_no_second_proxy_once_a_kdc_may_have_it(
    fault: str, payload: bytes, authority: Authority, files: CertificateFiles
) -> None:
    script = TAKEN[fault][0] if fault in TAKEN else SILENT[fault]
    async with (
        FakeKdcProxy(files, script=script) as faulty,
        FakeKdcProxy(files, script=answer(REPLIES[payload])) as healthy,
        upstream_to(authority, hedge_delay=0.2, reply_timeout=1.5, reach_timeout=9.0) as upstream,
    ):
        with pytest.raises(NoKdcReplyError):
            await upstream.exchange(request_of(payload), route_to(faulty, healthy))
        assert (faulty.copies_of(payload), healthy.requests) == (1, [])


@pytest.mark.parametrize("payload", REPLIES, ids=["TGS-REQ", "proof", "kpasswd"])
@pytest.mark.parametrize("status", [400, 403, 404, 408, 413, 429, 500, 503, 508])
async def test_every_message_goes_on_when_the_proxy_says_that_no_kdc_has_it(
    status: int, payload: bytes, authority: Authority, files: CertificateFiles
) -> None:
    async with (
        FakeKdcProxy(files, script=send(response(status, b"", NO))) as refusing,
        FakeKdcProxy(files, script=answer(REPLIES[payload])) as healthy,
        upstream_to(authority) as upstream,
    ):
        reply = await upstream.exchange(request_of(payload), route_to(refusing, healthy))
        assert reply.payload == REPLIES[payload]
        assert (refusing.copies_of(payload), healthy.copies_of(payload)) == (1, 1)


async def test_exchange_that_no_proxy_took_says_that_no_kdc_has_the_message(
    authority: Authority, files: CertificateFiles
) -> None:
    async with (
        FakeKdcProxy(files, script=send(response(503, b"", NO))) as refusing,
        upstream_to(authority) as upstream,
    ):
        with pytest.raises(NoKdcReachedError):
            await upstream.exchange(request_of(PROOF), route_to(refusing))


@pytest.mark.parametrize("payload", REPLIES, ids=["TGS-REQ", "proof", "kpasswd"])
@pytest.mark.parametrize(
    "fault", ["refuses", "no TLS", "another authority", "expired", "another name", "no answer"]
)
async def test_proxy_that_cannot_be_connected_to_gets_no_byte_of_any_message(
    fault: str,
    payload: bytes,
    authority: Authority,
    files: CertificateFiles,
    unusable: Mapping[str, CertificateFiles | None],
) -> None:
    async with (
        FakeKdcProxy(unusable[fault], script=fake_kdc_proxy.hold(), is_dead=fault == "no answer") as faulty,
        FakeKdcProxy(files, script=answer(REPLIES[payload])) as healthy,
        upstream_to(authority, stagger=0.2, connect_timeout=0.5) as upstream,
    ):
        route = route_to(faulty, healthy)
        if fault == "refuses":
            faulty.stop()
        reply = await upstream.exchange(request_of(payload), route)
        assert reply.payload == REPLIES[payload]
        assert (faulty.requests, healthy.copies_of(payload)) == ([], 1)


FINE: dict[str, bytes] = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n",
    "HTTP/1.0 until the close": b"HTTP/1.0 200 OK\r\n\r\n",
    "interim response": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("form", FINE)
async def test_every_form_of_a_response_is_read(
    form: str, authority: Authority, files: CertificateFiles
) -> None:
    body = messages.envelope(REPLIES[PROOF], None)
    data = FINE[form] % (len(body), body) if form == "chunked" else FINE[form] + body
    async with (
        FakeKdcProxy(files, script=send(data, holds=False)) as proxy,
        upstream_to(authority) as upstream,
    ):
        reply = await upstream.exchange(request_of(PROOF), route_to(proxy))
        assert reply.payload == REPLIES[PROOF]


async def test_bytes_after_a_reply_never_answer_another_request(
    authority: Authority, files: CertificateFiles
) -> None:
    other = response(200, messages.envelope(messages.krb_error(25), None))
    async with (
        FakeKdcProxy(
            files, script=send(response(200, messages.envelope(REPLIES[TGS_REQ], None)) + other)
        ) as proxy,
        upstream_to(authority) as upstream,
    ):
        for _ in range(3):
            reply = await upstream.exchange(request_of(TGS_REQ), route_to(proxy))
            assert reply.payload == REPLIES[TGS_REQ]
        assert proxy.connections == 3


async def test_client_that_leaves_ends_its_request_at_once(
    authority: Authority, files: CertificateFiles
) -> None:
    is_closed = asyncio.Event()

    async def wait_for_close(link: Link) -> None:
        await link.request()
        await link.hold()
        is_closed.set()

    async with FakeKdcProxy(files, script=wait_for_close) as proxy, upstream_to(authority) as upstream:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(upstream.exchange(request_of(PROOF), route_to(proxy)))
            await proxy.wait_for_requests()
            task.cancel()
        async with asyncio.timeout(10):
            await is_closed.wait()


async def test_every_failure_is_an_error_of_the_exchange(
    authority: Authority, files: CertificateFiles
) -> None:
    """No failure is an exception of another kind, which would be a bug in the log."""
    for script, _ in TAKEN.values():
        async with FakeKdcProxy(files, script=script) as faulty, upstream_to(authority) as upstream:
            with pytest.raises(ExchangeError):
                await upstream.exchange(request_of(TGS_REQ), route_to(faulty))


async def test_500_exchanges_at_once_get_their_own_replies(
    authority: Authority, files: CertificateFiles
) -> None:
    """The proxy answers each request with the request's own realm, later requests first."""
    waiting: list[tuple[Link, bytes]] = []
    all_are_there = asyncio.Event()

    async def answer_in_reverse(link: Link) -> None:
        while True:
            request = await link.request()
            realm = classify(decode_proxy_message(request.body)).realm
            waiting.append((link, response(200, messages.envelope(messages.tgs_rep(realm=realm), None))))
            if len(waiting) == COUNT:
                all_are_there.set()

    async def answer_all() -> None:
        await all_are_there.wait()
        for link, data in reversed(waiting):
            await link.write(data)

    async with (
        FakeKdcProxy(files, script=answer_in_reverse) as proxy,
        upstream_to(
            authority,
            max_in_flight_per_kdc=COUNT,
            hedge_delay=19.0,  # no silence, and so no probe, comes between the requests
            reach_timeout=30.0,
            connect_timeout=14.0,
        ) as upstream,
    ):
        realms = [f"R{number}.TEST" for number in range(COUNT)]
        async with asyncio.TaskGroup() as tasks:
            exchanges = [
                tasks.create_task(
                    upstream.exchange(request_of(messages.tgs_req(realm=realm)), route_to(proxy))
                )
                for realm in realms
            ]
            tasks.create_task(answer_all())
        assert [exchange.result().facts.crealm for exchange in exchanges] == realms


async def test_tickets_come_from_a_proxy_of_entras_form(
    authority: Authority, files: CertificateFiles
) -> None:
    """It has the path of a tenant and serves TGS requests only, from clients with a known User-Agent."""

    async def script(link: Link) -> None:
        while True:
            request = await link.request()
            is_known = request.headers["user-agent"] == "kerberos/1.0"
            is_tgs = (
                bool(request.body) and classify(decode_proxy_message(request.body)).kind.value == "TGS_REQ"
            )
            if is_known and is_tgs:
                await link.write(response(200, messages.envelope(REPLIES[TGS_REQ], None)))
            else:
                await link.write(response(200 if is_known and not request.body else 400))

    async with (
        FakeKdcProxy(files, script=script, path="/TENANT/kerberos") as entra,
        upstream_to(authority) as upstream,
    ):
        realm = "KERBEROS.MICROSOFTONLINE.COM"
        route = replace(route_to(entra), realm=realm, kerberos_realm=realm)
        assert (await upstream.exchange(request_of(TGS_REQ), route)).payload == REPLIES[TGS_REQ]
        with pytest.raises(NoKdcReplyError):
            await upstream.exchange(request_of(PROOF), route)
        # The failure makes the proxy suspect. It answers its probe, so it is healthy again.
        await entra.wait_for_requests(3)
        assert (entra.requests[2].line, entra.requests[2].body) == ("POST /TENANT/kerberos HTTP/1.1", b"")

        async def is_healthy() -> bool:
            return upstream.shared.health.state(entra.endpoint) is KdcState.HEALTHY

        await eventually(is_healthy)
