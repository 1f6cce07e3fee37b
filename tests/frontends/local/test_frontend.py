"""The local way in from its sockets to a KDC, with the real pipeline."""

import asyncio
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kkdcpd.config import FailuresConfig, GuardConfig, PolicyConfig, RatesConfig
from kkdcpd.protocol.messages import inspect_reply
from kkdcpd.values import MessageKind, Mode
from tests.frontends.local.running import config_for, fields_of, running_local
from tests.support import kerberos_asn1 as asn1
from tests.support.fake_kdc import FakeKdc, close_after_message, reply, silent
from tests.support.messages import as_rep, as_req, kpasswd_rep, kpasswd_req, krb_error
from tests.support.waiting import eventually

REQUEST = as_req()
PROOF = as_req(padata=[(2, b"proof")])
ERROR = krb_error(25)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "kkdcpd")
    return caplog


async def test_every_transport_gets_the_reply_of_the_kdc(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    async with FakeKdc(tcp=reply(ERROR)) as kdc, running_local(tmp_path, config_for(kdc.port)) as local:
        with local.udp() as udp:
            assert await udp.ask(as_req(nonce=1)) == ERROR
        async with local.tcp() as tcp, local.unix() as unix:
            assert await tcp.ask(as_req(nonce=2)) == ERROR
            assert await unix.ask(as_req(nonce=3)) == ERROR
    lines = fields_of(log)
    assert [line["client"] for line in lines] == ["127.0.0.1", "127.0.0.1", "unix"]
    assert [line.get("uid") for line in lines] == [None, None, os.getuid()]
    assert [line["outcome"] for line in lines] == ["answered"] * 3


async def test_both_services_share_a_socket_and_the_message_decides(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        FakeKdc(tcp=reply(kpasswd_rep())) as kpasswd,
        running_local(tmp_path, config_for(kdc.port, kpasswd=kpasswd.port)) as local,
    ):
        with local.udp() as udp:
            assert await udp.ask(REQUEST) == ERROR
            assert await udp.ask(kpasswd_req()) == kpasswd_rep()


@pytest.mark.parametrize(
    ("make_request", "kind"),
    [
        (as_req, MessageKind.AS_REQ),
        (kpasswd_req, MessageKind.KPASSWD_REQ),
        (lambda: kpasswd_req(version=0xFF80), MessageKind.KPASSWD_REQ),
    ],
    ids=["AS_REQ", "kpasswd version 1", "kpasswd version 0xff80"],
)
async def test_outage_is_code_29_if_no_kdc_has_the_message_and_60_if_one_may(
    tmp_path: Path,
    make_request: Callable[[], bytes],
    kind: MessageKind,
    log: pytest.LogCaptureFixture,
) -> None:
    request = make_request()
    async with FakeKdc(tcp=close_after_message()) as kdc:
        dead = kdc.port
        async with running_local(tmp_path, config_for(dead)) as local, local.tcp() as tcp:
            taken = await tcp.ask(request)
    async with (
        running_local(tmp_path, config_for(dead)) as local,
        local.tcp() as tcp,
    ):
        refused = await tcp.ask(request)
    assert inspect_reply(kind, taken).error_code == 60
    assert inspect_reply(kind, refused).error_code == 29
    first, second = fields_of(log)
    assert first["outcome"] == "no_kdc_reply"
    assert second["outcome"] == "no_kdc_reached"
    assert f"(kkdcpd, request {first['id']})".encode() in taken
    assert f"(kkdcpd, request {second['id']})".encode() in refused


async def test_realm_that_is_not_served_is_code_29_and_named_in_the_log(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    async with running_local(tmp_path, config_for(1)) as local, local.tcp() as tcp:
        answer = await tcp.ask(as_req(realm="OTHER.TEST"))
    error = asn1.decode(answer, asn1.KRB_ERROR)
    assert (int(error["error-code"]), bytes(error["realm"])) == (29, b"OTHER.TEST")
    assert b"does not serve the requested Kerberos realm" in bytes(error["e-text"])
    assert [line["realm"] for line in fields_of(log)] == ["OTHER.TEST"]


async def test_refusal_by_policy_is_code_12(tmp_path: Path) -> None:
    config = config_for(1)
    realm = replace(config.realms[0], policy=PolicyConfig(message_kinds=(MessageKind.TGS_REQ,)))
    async with running_local(tmp_path, replace(config, realms=(realm,))) as local, local.tcp() as tcp:
        answer = await tcp.ask(REQUEST)
    assert inspect_reply(MessageKind.AS_REQ, answer).error_code == 12


async def test_program_over_its_rate_gets_code_29(tmp_path: Path) -> None:
    rates = RatesConfig(client_burst=1, client_rate=0.1)
    guard = GuardConfig(rates=rates, failures=FailuresConfig(mode=Mode.OFF))
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port, guard=guard)) as local,
        local.tcp() as tcp,
    ):
        await tcp.ask(as_req(nonce=1))
        answer = await tcp.ask(kpasswd_req())
    assert inspect_reply(MessageKind.KPASSWD_REQ, answer).error_code == 29


@pytest.mark.parametrize(("host", "used"), [("0.0.0.0", "127.0.0.3"), ("::", "::1"), ("::", "127.0.0.3")])
async def test_answer_comes_from_the_address_that_the_request_was_sent_to(
    tmp_path: Path, host: str, used: str
) -> None:
    """The test's socket is connected, so it drops answers from another address."""
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port), host=host, beyond_loopback=True) as local,
    ):
        with local.udp(used) as udp:
            assert await udp.ask(REQUEST) == ERROR


async def test_close_finishes_requests_and_connections(tmp_path: Path, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with (
        FakeKdc(tcp=reply(ERROR, when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
        local.tcp() as idle,
    ):
        with local.udp() as udp:
            await idle.ask(b"")  # the way in has accepted the connection
            udp.send(as_req(nonce=1))
            tcp.send(as_req(nonce=2))
            await kdc.wait_for_messages(2)
            local.frontend.drain()
            await asyncio.sleep(0)
            may_answer.set()
            assert await udp.receive() == ERROR
            assert (await tcp.receive(), await tcp.rest()) == (ERROR, b"")
            assert await idle.ask(as_req(nonce=3)) == ERROR
            assert await idle.rest() == b""
            await local.keeping


async def test_cancellation_ends_requests_and_connections(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    async with (
        FakeKdc(tcp=silent()) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
    ):
        tcp.send(REQUEST)
        await kdc.wait_for_messages()
        local.keeping.cancel()
        assert await tcp.rest() == b""
    assert [line["outcome"] for line in fields_of(log)] == ["client_gone"]


async def test_reply_of_a_kdc_reaches_a_program_whose_first_socket_is_gone(
    tmp_path: Path, may_answer: asyncio.Event
) -> None:
    """A program that gives up a connection sends the same bytes again, and the KDC has them already."""
    may_answer.clear()
    async with (
        FakeKdc(tcp=reply(as_rep(), when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
    ):
        async with local.tcp() as tcp:
            tcp.send(PROOF)
            await kdc.wait_for_messages()
        async with local.unix() as unix:
            unix.send(PROOF)
            await local.wait_for_copies(1)
            may_answer.set()
            assert await unix.receive() == as_rep()
        assert len(kdc.messages) == 1


async def test_malformed_datagram_gets_no_answer(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    """Otherwise two programs could answer each other's errors without end."""

    async def is_logged() -> bool:
        return len(fields_of(log)) == 2

    async with running_local(tmp_path, config_for(1)) as local:
        with local.udp() as udp:
            udp.send(ERROR)
            udp.send(b"garbage")
            await eventually(is_logged)
            assert not udp.has_answer
    assert {line["outcome"] for line in fields_of(log)} == {"malformed_message"}
