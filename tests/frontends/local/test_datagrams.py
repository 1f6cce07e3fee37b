"""Datagrams of local programs, and replies that are too big for a datagram."""

import asyncio
import logging
import socket
from pathlib import Path

import pytest

from kkdcpd.protocol.messages import inspect_reply
from kkdcpd.values import MessageKind
from tests.frontends.local.running import config_for, fields_of, running_local
from tests.support.fake_kdc import FakeKdc, reply
from tests.support.messages import as_rep, as_req, krb_error
from tests.support.waiting import eventually

REQUEST = as_req(padata=[(2, b"proof")])


def reply_of(size: int) -> bytes:
    """Return an AS-REP of this size."""
    length = size
    while len(payload := as_rep(cipher=bytes(length))) != size:
        length += size - len(payload)
    return payload


@pytest.mark.parametrize("size", [1400, 4096])
async def test_reply_up_to_the_limit_is_one_datagram(tmp_path: Path, size: int) -> None:
    payload = reply_of(size)
    async with FakeKdc(tcp=reply(payload)) as kdc, running_local(tmp_path, config_for(kdc.port)) as local:
        with local.udp() as udp:
            assert await udp.ask(REQUEST) == payload


@pytest.mark.parametrize("size", [4097, 65507, 70000])
async def test_larger_reply_is_too_big_and_the_copy_by_tcp_gets_it(tmp_path: Path, size: int) -> None:
    payload = reply_of(size)
    async with FakeKdc(tcp=reply(payload)) as kdc, running_local(tmp_path, config_for(kdc.port)) as local:
        with local.udp() as udp:
            answer = await udp.ask(REQUEST)
            assert inspect_reply(MessageKind.AS_REQ, answer).error_code == 52
        async with local.tcp() as tcp:
            assert await tcp.ask(REQUEST) == payload
        assert len(kdc.messages) == 1


async def test_limit_of_datagrams_is_an_option(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(as_rep(cipher=bytes(9000)))) as kdc,
        running_local(tmp_path, config_for(kdc.port), max_datagram_bytes=20000) as local,
    ):
        with local.udp() as udp:
            assert await udp.ask(REQUEST) == as_rep(cipher=bytes(9000))


async def test_datagram_that_comes_again_from_the_same_port_is_answered_once(
    tmp_path: Path, may_answer: asyncio.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kkdcpd")
    may_answer.clear()
    async with (
        FakeKdc(tcp=reply(krb_error(24), when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
    ):
        with local.udp() as udp, local.udp() as other:
            for sender in (udp, udp, other):
                sender.send(REQUEST)
            await kdc.wait_for_messages()
            await local.wait_for_copies(2)
            may_answer.set()
            assert await udp.receive() == await other.receive() == krb_error(24)
            assert not udp.has_answer
        assert len(kdc.messages) == 1
    (line,) = fields_of(caplog)
    assert line["copies"] == 2


async def test_many_datagrams_at_once_are_all_answered(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(krb_error(25))) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
    ):
        with local.udp() as udp:
            for number in range(100):
                udp.send(as_req(nonce=number))
            assert [await udp.receive() for _ in range(100)] == [krb_error(25)] * 100


async def test_answer_that_cannot_be_sent_is_logged_and_nothing_else_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "kkdcpd")

    async def is_logged() -> bool:
        return any(line.message == "datagram_not_sent" for line in caplog.records)

    async with (
        FakeKdc(tcp=reply(as_rep(cipher=bytes(70000)))) as kdc,
        running_local(tmp_path, config_for(kdc.port), max_datagram_bytes=100000) as local,
    ):
        with local.udp() as udp:
            udp.send(REQUEST)
            await eventually(is_logged)
            kdc.tcp = reply(krb_error(24))
            assert await udp.ask(as_req()) == krb_error(24)


async def test_ipv6_is_served(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(krb_error(25))) as kdc,
        running_local(tmp_path, config_for(kdc.port), host="::1") as local,
    ):
        with local.udp("::1") as udp:
            assert udp.socket.family == socket.AF_INET6
            assert await udp.ask(REQUEST) == krb_error(25)
