"""Requests to fake KDCs over real sockets: the replies, and the messages that each KDC gets."""

import asyncio
import contextlib
import os
import time

import pytest

from kkdcpd.endpoints import KDC_TRANSPORTS, Transport
from kkdcpd.errors import NoKdcReachedError, NoKdcReplyError
from kkdcpd.process_messages import ProbeTarget
from kkdcpd.values import FailureReason, KdcReply, KdcState, Route
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import DROP, REFUSE, FakeKdc, Link, Script
from tests.support.upstream import candidate, endpoint, request_of, route_to, running_upstream
from tests.support.waiting import eventually

FIRST_AS_REQ = messages.as_req(padata=[(149, b""), (150, b"")])
PROOF = messages.as_req(padata=[(2, b"\x30\x00"), (149, b"")])
ARMORED = messages.as_req(padata=[(136, b"\x30\x00")])
TGS_REQ = messages.tgs_req()
KPASSWD = messages.kpasswd_req()

REPLIES = {
    FIRST_AS_REQ: messages.krb_error(25),
    PROOF: messages.as_rep(),
    ARMORED: messages.as_rep(),
    TGS_REQ: messages.tgs_rep(),
    KPASSWD: messages.kpasswd_rep(),
}
UNAVAILABLE = messages.krb_error(29)
REPEATABLE = [FIRST_AS_REQ, TGS_REQ]
SENT_ONCE = [PROOF, ARMORED, KPASSWD]

NOT_TAKEN = {"refuses": REFUSE, "drops packets": DROP}
TAKEN: dict[str, Script] = {
    "is silent": fake_kdc.silent(),
    "closes": fake_kdc.close_after_message(),
    "resets": fake_kdc.reset_after_message(),
    "answers garbage": fake_kdc.garbage(),
    "announces 4 GiB": fake_kdc.announce(0xFFFFFFFF),
    "streams without end": fake_kdc.flood(),
    "streams more than it announced": fake_kdc.flood(length=100),
    "stops in the middle": fake_kdc.announce(1000, b"x" * 10),
}


def names(payloads: list[bytes]) -> list[str]:
    return [f"{payload[0]:02x}:{len(payload)}" for payload in payloads]


@pytest.mark.parametrize("payload", REPLIES, ids=["first AS-REQ", "proof", "armored", "TGS-REQ", "kpasswd"])
@pytest.mark.parametrize("transport", KDC_TRANSPORTS)
async def test_healthy_kdc_sees_one_message_and_the_others_none(payload: bytes, transport: Transport) -> None:
    script = fake_kdc.reply(REPLIES[payload])
    async with (
        FakeKdc(tcp=script, udp=script) as first,
        FakeKdc(tcp=script, udp=script) as second,
        running_upstream() as (upstream, _),
    ):
        reply = await upstream.exchange(request_of(payload), route_to(first, second, transport=transport))
        assert reply.payload == REPLIES[payload]
        assert (len(first.messages), len(second.messages)) == (1, 0)
        assert first.messages == [payload]


@pytest.mark.parametrize("payload", REPLIES, ids=["first AS-REQ", "proof", "armored", "TGS-REQ", "kpasswd"])
@pytest.mark.parametrize("fault", NOT_TAKEN)
async def test_kdc_that_cannot_be_connected_to_costs_no_message(payload: bytes, fault: str) -> None:
    async with (
        FakeKdc(tcp=NOT_TAKEN[fault]) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[payload])) as second,
        running_upstream(stagger=0.1, connect_timeout=0.2) as (upstream, _),
    ):
        reply = await upstream.exchange(request_of(payload), route_to(first, second))
        assert reply.payload == REPLIES[payload]
        assert second.messages == [payload]


@pytest.mark.parametrize("payload", REPEATABLE, ids=["first AS-REQ", "TGS-REQ"])
@pytest.mark.parametrize("fault", TAKEN)
async def test_repeatable_message_survives_a_faulty_kdc(payload: bytes, fault: str) -> None:
    async with (
        FakeKdc(tcp=TAKEN[fault]) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[payload])) as second,
        running_upstream(hedge_delay=0.1) as (upstream, _),
    ):
        reply = await upstream.exchange(request_of(payload), route_to(first, second))
        assert reply.payload == REPLIES[payload]
        assert second.messages == [payload]


@pytest.mark.parametrize("payload", SENT_ONCE, ids=["proof", "armored", "kpasswd"])
@pytest.mark.parametrize("fault", TAKEN)
async def test_message_sent_once_reaches_one_kdc_once_with_every_fault(payload: bytes, fault: str) -> None:
    async with (
        FakeKdc(tcp=TAKEN[fault]) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[payload])) as second,
        # Even on a busy machine, the first KDC is connected before the second is tried.
        running_upstream(stagger=1.0, hedge_delay=0.1, reply_timeout=0.5) as (upstream, _),
    ):
        with pytest.raises(NoKdcReplyError):
            await upstream.exchange(request_of(payload), route_to(first, second))
        assert [message for message in first.messages if message == payload] == [payload]
        assert second.messages == []


@pytest.mark.parametrize("payload", SENT_ONCE, ids=["proof", "armored", "kpasswd"])
async def test_datagram_is_never_repeated(payload: bytes) -> None:
    async with (
        FakeKdc(udp=fake_kdc.silent()) as first,
        FakeKdc(udp=fake_kdc.silent()) as second,
        running_upstream(hedge_delay=0.05, reply_timeout=0.5) as (upstream, _),
    ):
        with pytest.raises(NoKdcReplyError):
            await upstream.exchange(request_of(payload), route_to(first, second, transport=Transport.UDP))
        assert [message for message in first.messages if message == payload] == [payload]
        assert second.messages == []


async def test_reply_of_one_byte_a_segment_is_read() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.dribble(REPLIES[PROOF])) as kdc,
        running_upstream() as (upstream, _),
    ):
        assert (await upstream.exchange(request_of(PROOF), route_to(kdc))).payload == REPLIES[PROOF]


async def test_message_goes_on_from_an_unavailable_kdc_even_if_it_is_a_proof() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.reply(UNAVAILABLE)) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as second,
        running_upstream() as (upstream, _),
    ):
        reply = await upstream.exchange(request_of(PROOF), route_to(first, second))
        assert reply.payload == REPLIES[PROOF]
        assert [str(failure).split()[1] for failure in reply.failures] == ["service_unavailable"]


async def test_reply_too_big_for_udp_comes_by_tcp_from_the_same_kdc() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF]), udp=fake_kdc.reply(messages.krb_error(52))) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as second,
        running_upstream() as (upstream, _),
    ):
        reply = await upstream.exchange(request_of(PROOF), route_to(first, second, transport=Transport.UDP))
        assert (reply.payload, reply.endpoint.transport) == (REPLIES[PROOF], Transport.TCP)
        assert (len(first.tcp_messages), len(first.udp_messages), len(second.messages)) == (1, 1, 0)


async def test_reply_over_the_limit_is_refused() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.reply(messages.as_rep() + bytes(5000))) as kdc,
        running_upstream(max_reply_bytes=4096) as (upstream, _),
    ):
        with pytest.raises(NoKdcReplyError, match="reply_too_big"):
            await upstream.exchange(request_of(PROOF), route_to(kdc))


@pytest.mark.parametrize("fault", TAKEN)
async def test_next_message_avoids_a_kdc_that_failed(fault: str) -> None:
    async with (
        FakeKdc(tcp=TAKEN[fault]) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[FIRST_AS_REQ], REPLIES[PROOF])) as second,
        running_upstream(hedge_delay=0.1) as (upstream, _),
    ):
        route = route_to(first, second)
        await upstream.exchange(request_of(FIRST_AS_REQ), route)
        reply = await upstream.exchange(request_of(PROOF), route)
        assert (reply.payload, reply.attempts) == (REPLIES[PROOF], 1)
        assert PROOF not in first.messages


async def test_probe_finds_a_recovered_kdc_which_is_preferred_again() -> None:
    async with (
        FakeKdc(tcp=fake_kdc.close_after_message()) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[TGS_REQ])) as second,
        running_upstream() as (upstream, _),
    ):
        route = route_to(first, second)
        assert (await upstream.exchange(request_of(TGS_REQ), route)).endpoint.port == second.port
        first.tcp = _answer_anything

        async def is_preferred() -> bool:
            return (await upstream.exchange(request_of(TGS_REQ), route)).endpoint.port == first.port

        await eventually(is_preferred)


async def _answer_anything(link: Link) -> None:
    is_probe = (await link.message())[0] == 0x6A
    await link.reply(messages.krb_error(11) if is_probe else REPLIES[TGS_REQ])
    await link.hold()


@pytest.mark.parametrize("payload", REPLIES, ids=["first AS-REQ", "proof", "armored", "TGS-REQ", "kpasswd"])
async def test_udp_of_a_host_is_used_at_once_while_its_tcp_is_known_to_be_down(payload: bytes) -> None:
    async with (
        FakeKdc(tcp=DROP, udp=fake_kdc.reply(REPLIES[payload])) as kdc,
        running_upstream(connect_timeout=0.3) as (upstream, health),
    ):
        candidates = (candidate(kdc), candidate(kdc, Transport.UDP, is_fallback=True))
        route = Route(realm="EXAMPLE.COM", kerberos_realm="EXAMPLE.COM", candidates=candidates)
        first = await upstream.exchange(request_of(payload), route)
        assert health.state(candidates[0].endpoint) is KdcState.DOWN
        second = await upstream.exchange(request_of(payload), route)
        assert (first.attempts, second.attempts) == (2, 1)
        assert second.endpoint.transport is Transport.UDP


@pytest.mark.parametrize("payload", REPEATABLE, ids=["first AS-REQ", "TGS-REQ"])
async def test_lost_datagram_is_sent_again(payload: bytes) -> None:
    async def lose_the_first(link: Link) -> None:
        await link.message()
        if kdc.messages.count(payload) == 2:
            await link.reply(REPLIES[payload])

    async with FakeKdc(udp=lose_the_first) as kdc, running_upstream() as (upstream, _):
        reply = await upstream.exchange(request_of(payload), route_to(kdc, transport=Transport.UDP))
        assert reply.payload == REPLIES[payload]
        assert kdc.messages.count(payload) == 2


DEAD: dict[str, Script] = {
    "is silent": fake_kdc.silent(),
    "stops in the middle": fake_kdc.announce(1000, b"x"),
}


@pytest.mark.parametrize("payload", [FIRST_AS_REQ, PROOF], ids=["first AS-REQ", "proof"])
@pytest.mark.parametrize("fault", DEAD)
async def test_dead_kdc_is_given_up_long_before_the_time_for_a_reply_is_over(
    payload: bytes, fault: str
) -> None:
    async with (
        FakeKdc(tcp=DEAD[fault]) as kdc,
        running_upstream(reach_timeout=1.0, hedge_delay=0.1, reply_timeout=60) as (upstream, _),
    ):
        async with asyncio.timeout(30):
            with pytest.raises(NoKdcReplyError, match="silent"):
                await upstream.exchange(request_of(payload), route_to(kdc))
        assert kdc.tcp_messages.count(payload) == 1
        # The others are probes: two were the evidence.
        assert len(kdc.tcp_messages) >= 3


async def test_exchange_waits_for_a_kdc_that_answers_probes() -> None:
    is_done = asyncio.Event()

    async def think(link: Link) -> None:
        message = await link.message()
        if message == PROOF:
            await is_done.wait()
            await link.reply(REPLIES[PROOF])
        else:
            await link.reply(messages.krb_error(11))

    async with (
        FakeKdc(tcp=think) as kdc,
        running_upstream(reach_timeout=0.2, hedge_delay=0.05) as (upstream, _),
        asyncio.TaskGroup() as tasks,
    ):
        exchange = tasks.create_task(upstream.exchange(request_of(PROOF), route_to(kdc)), name="request")
        # Several verdicts later it still waits.
        await kdc.wait_for_messages(3)
        assert not exchange.done()
        is_done.set()
        assert (await exchange).payload == REPLIES[PROOF]


async def test_unhealthy_kdc_that_answers_is_healthy_again() -> None:
    async with FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as kdc, running_upstream() as (upstream, health):
        health.report(ProbeTarget(endpoint=endpoint(kdc), realm=None), FailureReason.RESET, time.monotonic())
        assert health.state(endpoint(kdc)) is KdcState.SUSPECT
        await upstream.exchange(request_of(PROOF), route_to(kdc))
        assert health.state(endpoint(kdc)) is KdcState.HEALTHY


async def test_error_names_every_endpoint_and_its_reason_if_no_kdc_was_reached() -> None:
    async with (
        FakeKdc(tcp=REFUSE) as first,
        FakeKdc(tcp=DROP) as second,
        running_upstream(connect_timeout=0.2, reach_timeout=0.5) as (upstream, _),
    ):
        with pytest.raises(NoKdcReachedError) as caught:
            await upstream.exchange(request_of(PROOF), route_to(first, second))
        reasons = f"tcp://127.0.0.1:{first.port} refused, tcp://127.0.0.1:{second.port} connect_timeout"
        assert str(caught.value) == reasons


async def test_source_address_is_the_configured_one() -> None:
    peers: list[str] = []
    async with running_upstream(source_addresses=("127.0.0.9",)) as (upstream, _):

        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peers.append(writer.get_extra_info("peername")[0])
            await reader.read(1)
            writer.write(messages.prefixed(REPLIES[PROOF]))
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(note, "127.0.0.1", 0)
        async with server:
            kdc = FakeKdc()
            kdc.port = server.sockets[0].getsockname()[1]
            await upstream.exchange(request_of(PROOF), route_to(kdc))
    assert peers == ["127.0.0.9"]


async def test_no_socket_remains_of_clients_that_left() -> None:
    # The KDC is not suspected, so there is no probe under way.
    async with (
        FakeKdc(tcp=fake_kdc.silent()) as kdc,
        running_upstream(hedge_delay=20, stagger=20, connect_timeout=20) as (upstream, _),
    ):
        before = await _descriptors()
        requests: list[asyncio.Task[KdcReply]] = []
        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                exchange = upstream.exchange(request_of(PROOF), route_to(kdc))
                requests.append(tasks.create_task(exchange, name=f"request {number}"))
            await kdc.wait_for_messages(200)
            for request in requests:
                request.cancel()

        async def are_closed() -> bool:
            return await _descriptors() <= before

        await eventually(are_closed)


async def _descriptors() -> int:
    return len(await asyncio.to_thread(os.listdir, "/proc/self/fd"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_kdcs_of_either_address_family_are_reached(host: str) -> None:
    script = fake_kdc.reply(REPLIES[PROOF])
    async with FakeKdc(tcp=script, udp=script, host=host) as kdc, running_upstream() as (upstream, _):
        for transport in KDC_TRANSPORTS:
            reply = await upstream.exchange(request_of(PROOF), route_to(kdc, transport=transport))
            assert reply.payload == REPLIES[PROOF]


async def test_black_holed_family_costs_the_stagger() -> None:
    async with (
        FakeKdc(tcp=DROP, host="::1") as hole,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as kdc,
        running_upstream(stagger=0.1) as (upstream, _),
    ):
        reply = await upstream.exchange(request_of(PROOF), route_to(hole, kdc))
        assert reply.endpoint.address == "127.0.0.1"


async def test_probe_names_the_located_realm_and_not_the_realm_of_the_message() -> None:
    """Otherwise a message with a realm that the KDC does not know would keep it unhealthy for all."""
    poison = messages.as_req(padata=[(2, b"\x30\x00")], realm="NOSUCH")
    async with FakeKdc(tcp=fake_kdc.close_after_message()) as kdc, running_upstream() as (upstream, _):
        with pytest.raises(NoKdcReplyError):
            await upstream.exchange(request_of(poison), route_to(kdc))
        probe = (await kdc.wait_for_messages(2))[1]
        assert request_of(probe).realm == "EXAMPLE.COM"


async def test_message_too_big_for_udp_goes_elsewhere_and_is_no_kdcs_failure() -> None:
    huge = messages.as_req(padata=[(2, bytes(70_000))])
    async with (
        FakeKdc(udp=fake_kdc.silent()) as first,
        FakeKdc(tcp=fake_kdc.reply(REPLIES[PROOF])) as second,
        running_upstream() as (upstream, health),
    ):
        candidates = (candidate(first, Transport.UDP), candidate(second, priority=1))
        route = Route(realm="EXAMPLE.COM", kerberos_realm="EXAMPLE.COM", candidates=candidates)
        reply = await upstream.exchange(request_of(huge), route)
        assert reply.endpoint.port == second.port
        assert health.state(candidates[0].endpoint) is KdcState.HEALTHY


async def test_unavailable_kdc_does_not_get_the_message_by_its_other_transport() -> None:
    script = fake_kdc.reply(UNAVAILABLE)
    async with FakeKdc(tcp=script, udp=script) as kdc, running_upstream() as (upstream, _):
        candidates = (candidate(kdc), candidate(kdc, Transport.UDP, is_fallback=True))
        route = Route(realm="EXAMPLE.COM", kerberos_realm="EXAMPLE.COM", candidates=candidates)
        reply = await upstream.exchange(request_of(PROOF), route)
        assert reply.facts.error_code == 29
        assert kdc.messages.count(PROOF) == 1
