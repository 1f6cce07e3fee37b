"""The relay with the real locator, the real ways out and scripted KDCs."""

import asyncio
from collections.abc import Sequence

import pytest

from kkdcpd.config import Config, EndpointSpec, RealmConfig, UpstreamConfig
from kkdcpd.endpoints import Transport
from kkdcpd.protocol import kkdcp, messages
from kkdcpd.values import (
    ClientConnection,
    FailureReason,
    MessageKind,
    Outcome,
    ProxyRequest,
    RequestResult,
    Rule,
)
from tests.support.fake_kdc import DROP, FakeKdc, close_after_message, garbage, reply, silent
from tests.support.messages import as_rep, as_req, envelope, kpasswd_rep, kpasswd_req, krb_error
from tests.support.upstream import running_relay

BOTH = (Transport.TCP, Transport.UDP)
ERROR = krb_error(25)
CLIENT = ClientConnection(address="192.0.2.99", network="192.0.2.99")
TIMEOUTS = UpstreamConfig(connect_timeout=0.2, reach_timeout=0.5, reply_timeout=1.0)


def request(payload: bytes | None = None, realm: str = "EXAMPLE.COM") -> ProxyRequest:
    return messages.classify(kkdcp.decode_proxy_message(envelope(payload or as_req(), realm)))


def spec(kdc: FakeKdc, transports: tuple[Transport, ...] = BOTH) -> EndpointSpec:
    return EndpointSpec(host=kdc.host, port=kdc.port, transports=transports)


async def served(
    asked: ProxyRequest,
    kdcs: Sequence[EndpointSpec] = (),
    kpasswd: Sequence[EndpointSpec] = (),
    upstream: UpstreamConfig = TIMEOUTS,
) -> RequestResult:
    realm = RealmConfig(
        name="EXAMPLE.COM",
        kdc=tuple(kdcs),
        kpasswd=tuple(kpasswd),
        aliases=("EXAMPLE",),
        discovery="none",
    )
    async with running_relay(Config(realms=(realm,), upstream=upstream)) as relay:
        return await relay.relay(asked, CLIENT)


@pytest.mark.parametrize("payload", [ERROR, as_rep()], ids=["KRB-ERROR", "AS-REP"])
async def test_reply_of_the_kdc_is_the_reply(payload: bytes) -> None:
    async with FakeKdc(tcp=reply(payload)) as kdc:
        result = await served(request(), [spec(kdc)])
    assert result.reply
    assert (result.outcome, result.reply.payload, result.attempts) == (Outcome.ANSWERED, payload, 1)


async def test_kdc_gets_the_message_as_the_client_sent_it() -> None:
    message = as_req(realm="Example.com", nonce=4711)
    async with FakeKdc(tcp=reply(ERROR)) as kdc:
        await served(request(message, "EXAMPLE"), [spec(kdc)])
        assert kdc.messages == [message]


@pytest.mark.parametrize("realm", ["EXAMPLE.COM", "example.com", "Example.Com.", "EXAMPLE", "example"])
async def test_realm_is_found_by_any_of_its_names_and_called_as_configured(realm: str) -> None:
    async with FakeKdc(tcp=reply(ERROR)) as kdc:
        result = await served(request(realm=realm), [spec(kdc)])
    assert (result.outcome, result.realm) == (Outcome.ANSWERED, "EXAMPLE.COM")


async def test_request_for_a_realm_that_is_not_served_reaches_no_kdc() -> None:
    async with FakeKdc(tcp=reply(ERROR), udp=reply(ERROR)) as kdc:
        result = await served(request(realm="OTHER"), [spec(kdc)])
        assert (result.outcome, result.reply, result.attempts) == (Outcome.REALM_NOT_SERVED, None, 0)
        assert kdc.connections == 0


async def test_password_change_goes_to_the_kpasswd_server_alone() -> None:
    async with FakeKdc(tcp=reply(ERROR)) as kdc, FakeKdc(tcp=reply(kpasswd_rep())) as kpasswd:
        result = await served(request(kpasswd_req()), [spec(kdc)], [spec(kpasswd)])
        assert (len(kdc.messages), len(kpasswd.messages)) == (0, 1)
    assert result.reply
    assert result.reply.facts.kind is MessageKind.KPASSWD_REP


async def test_password_change_without_a_server_for_it_is_no_kdc_known() -> None:
    async with FakeKdc(tcp=reply(ERROR)) as kdc:
        result = await served(request(kpasswd_req()), [spec(kdc)])
        assert kdc.connections == 0
    assert (result.outcome, result.detail) == (
        Outcome.NO_KDC_KNOWN,
        'realms."EXAMPLE.COM" has neither kpasswd nor discovery; add one of them',
    )


async def test_second_kdc_answers_when_the_first_refuses() -> None:
    async with FakeKdc() as first, FakeKdc(tcp=reply(ERROR)) as second:
        result = await served(request(), [spec(first), spec(second)])
    assert (result.outcome, result.attempts) == (Outcome.ANSWERED, 2)


async def test_second_kdc_answers_when_the_first_is_dead() -> None:
    async with FakeKdc(tcp=DROP) as first, FakeKdc(tcp=reply(ERROR)) as second:
        result = await served(request(), [spec(first), spec(second)])
    assert (result.outcome, result.attempts) == (Outcome.ANSWERED, 2)


async def test_proof_that_one_kdc_has_is_sent_to_no_other_kdc() -> None:
    proof = as_req(padata=[(2, b"")])
    async with FakeKdc(tcp=close_after_message()) as first, FakeKdc(tcp=reply(ERROR)) as second:
        result = await served(request(proof), [spec(first), spec(second)])
        assert second.connections == 0
    assert (result.outcome, result.reply) == (Outcome.NO_KDC_REPLY, None)
    assert result.detail == f"tcp://127.0.0.1:{first.port} closed"


async def test_silent_kdc_is_no_kdc_reply_in_time() -> None:
    loop = asyncio.get_running_loop()
    async with FakeKdc(tcp=silent()) as kdc:
        started = loop.time()
        result = await served(request(), [spec(kdc)])
        assert loop.time() - started < 2 * TIMEOUTS.reply_timeout
    assert (result.outcome, result.realm) == (Outcome.NO_KDC_REPLY, "EXAMPLE.COM")


async def test_garbage_is_no_reply() -> None:
    async with FakeKdc(tcp=garbage()) as kdc:
        result = await served(request(), [spec(kdc)])
    assert (result.outcome, result.reply) == (Outcome.NO_KDC_REPLY, None)
    assert FailureReason.BAD_REPLY.value in (result.detail or "")


async def test_kdcs_that_cannot_be_reached_are_all_named() -> None:
    async with FakeKdc() as first, FakeKdc() as second:
        kdcs = [spec(first, (Transport.TCP,)), spec(second, (Transport.TCP,))]
        result = await served(request(), kdcs)
    assert (result.outcome, result.attempts, result.realm) == (Outcome.NO_KDC_REACHED, 2, "EXAMPLE.COM")
    assert result.detail == f"tcp://127.0.0.1:{first.port} refused, tcp://127.0.0.1:{second.port} refused"


async def test_kdc_without_tcp_gets_the_request_by_udp() -> None:
    async with FakeKdc(udp=reply(ERROR)) as kdc:
        result = await served(request(), [spec(kdc)])
        assert len(kdc.udp_messages) == 1
    assert (result.outcome, result.attempts) == (Outcome.ANSWERED, 2)


async def test_reply_that_is_too_big_for_udp_comes_by_tcp() -> None:
    async with FakeKdc(udp=reply(krb_error(52)), tcp=reply(as_rep())) as kdc:
        result = await served(request(), [spec(kdc, (Transport.UDP,))])
        assert (len(kdc.udp_messages), len(kdc.tcp_messages)) == (1, 1)
    assert result.reply
    assert result.reply.payload == as_rep()


async def test_client_that_never_waits_for_a_reply_is_blocked_like_one_that_does() -> None:
    """Or it could lock accounts out at the KDC, unseen."""
    guess = request(as_req(padata=[(2, b"wrong")]))
    async with FakeKdc(tcp=silent()) as kdc:
        realm = RealmConfig(name="EXAMPLE.COM", kdc=(spec(kdc),), discovery="none")
        async with running_relay(Config(realms=(realm,))) as relay, asyncio.TaskGroup() as tasks:
            for number in range(1, 11):
                task = tasks.create_task(relay.relay(guess, CLIENT), name="guess")
                await kdc.wait_for_messages(number)
                task.cancel()
                await asyncio.wait([task])
            refused = await relay.relay(guess, CLIENT)
        assert len(kdc.tcp_messages) == 10
    assert refused.refusal
    assert refused.refusal.rule is Rule.GUESSING


async def test_cancelled_exchange_ends_its_connection() -> None:
    async with FakeKdc(tcp=silent()) as kdc, asyncio.TaskGroup() as tasks:
        task = tasks.create_task(served(request(), [spec(kdc)], upstream=UpstreamConfig()), name="exchange")
        await kdc.wait_for_messages()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
