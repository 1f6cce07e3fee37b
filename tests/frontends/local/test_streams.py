"""Connections of local programs: framing, limits, deadlines and users."""

import asyncio
import base64
import logging
import os
import socket
from pathlib import Path

import pytest

from kkdcpd.config import ConnectionsConfig
from kkdcpd.frontends.local.streams import REQUESTS_AT_ONCE
from kkdcpd.protocol.messages import inspect_reply
from kkdcpd.values import MessageKind
from tests.frontends.local.running import LOOPBACK, config_for, fields_of, running_local
from tests.support import kerberos_asn1 as asn1
from tests.support.fake_kdc import FakeKdc, reply
from tests.support.messages import as_rep, as_req, kpasswd_rep, kpasswd_req, krb_error, prefixed
from tests.support.waiting import eventually

ERROR = krb_error(25)
OTHER_UID = os.getuid() + 1


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kkdcpd")
    return caplog


async def test_several_requests_share_a_connection_one_after_the_other(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
    ):
        for number in range(5):
            assert await tcp.ask(as_req(nonce=number)) == ERROR


async def test_requests_sent_together_are_all_answered(tmp_path: Path) -> None:
    count = 5 * REQUESTS_AT_ONCE
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
    ):
        tcp.writer.write(b"".join(prefixed(as_req(nonce=number)) for number in range(count)))
        assert [await tcp.receive() for _ in range(count)] == [ERROR] * count
        assert len(kdc.messages) == count


async def test_many_copies_sent_together_are_all_answered(tmp_path: Path) -> None:
    """Each copy gets the kept reply at once, so their number must not be the depth of calls."""
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
    ):
        await tcp.ask(as_req())
        tcp.writer.write(prefixed(as_req()) * 2000)
        assert [await tcp.receive() for _ in range(2000)] == [ERROR] * 2000
        assert len(kdc.messages) == 1


async def test_no_more_than_some_requests_of_a_connection_are_in_flight(
    tmp_path: Path, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with (
        FakeKdc(tcp=reply(ERROR, when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
    ):
        for number in range(REQUESTS_AT_ONCE + 5):
            tcp.send(as_req(nonce=number))
        await kdc.wait_for_messages(REQUESTS_AT_ONCE)
        await asyncio.sleep(0.05)
        assert len(kdc.messages) == REQUESTS_AT_ONCE
        may_answer.set()
        for _ in range(REQUESTS_AT_ONCE + 5):
            assert await tcp.receive() == ERROR


async def test_request_may_arrive_byte_by_byte(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.unix() as unix,
    ):
        for byte in prefixed(as_req()):
            unix.writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        assert await unix.receive() == ERROR


async def test_length_and_reply_are_one_write(tmp_path: Path) -> None:
    """gokrb5 and impacket read the length by one call, which must not split it."""
    payload = as_rep(cipher=bytes(3000))
    async with FakeKdc(tcp=reply(payload)) as kdc, running_local(tmp_path, config_for(kdc.port)) as local:
        with socket.socket() as sock:
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (LOOPBACK, local.port))
            await loop.sock_sendall(sock, prefixed(as_req()))
            assert await loop.sock_recv(sock, 65536) == prefixed(payload)


@pytest.mark.parametrize("length", [1025, 0x7FFFFFFF, 0x80000010, 0xFFFFFFFF])
async def test_length_over_the_limit_or_with_the_high_bit_is_code_61_and_the_end(
    tmp_path: Path, log: pytest.LogCaptureFixture, length: int
) -> None:
    async with (
        running_local(tmp_path, config_for(1), max_message_bytes=1024) as local,
        local.tcp() as tcp,
    ):
        tcp.writer.write(length.to_bytes(4, "big") + b"x" * 100)
        assert inspect_reply(MessageKind.AS_REQ, await tcp.receive()).error_code == 61
        assert await tcp.rest() == b""
    (line,) = fields_of(log)
    assert (line["outcome"], line["detail"]) == (
        "body_too_large",
        f"a length of {length} bytes, which is more than 1024",
    )


async def test_heimdals_http_is_served_on_the_same_port_if_allowed(tmp_path: Path) -> None:
    line = b"GET /" + base64.b64encode(as_req()) + b" HTTP/1.0\r\n\r\n"
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port), heimdal_http=True) as local,
    ):
        for pieces in ([line], [line[:1], line[1:100], line[100:]]):
            async with local.tcp() as http:
                for piece in pieces:
                    http.writer.write(piece)
                    await asyncio.sleep(0.02)
                response = await http.rest()
                assert response.partition(b"\r\n\r\n")[2] == prefixed(ERROR)
        async with local.tcp() as http:
            http.writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
            body = (await http.rest()).partition(b"\r\n\r\n")[2]
            assert inspect_reply(MessageKind.AS_REQ, body[4:]).error_code == 29
        async with local.tcp() as tcp:
            assert await tcp.ask(as_req(nonce=2)) == ERROR


async def test_heimdals_http_is_off_by_default(tmp_path: Path) -> None:
    async with running_local(tmp_path, config_for(1)) as local, local.tcp() as http:
        http.writer.write(b"GET /AAAA HTTP/1.0\r\n\r\n")
        assert inspect_reply(MessageKind.AS_REQ, await http.receive()).error_code == 61
        assert await http.rest() == b""


async def test_malformed_message_gets_an_error_and_the_connection_stays(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
    ):
        for garbage in (b"", b"garbage", ERROR):
            assert inspect_reply(MessageKind.AS_REQ, await tcp.ask(garbage)).error_code == 29
        assert await tcp.ask(as_req()) == ERROR


async def test_program_that_ends_its_side_gets_its_answers(tmp_path: Path, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with (
        FakeKdc(tcp=reply(ERROR, when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port)) as local,
        local.tcp() as tcp,
    ):
        for number in range(3):
            tcp.send(as_req(nonce=number))
        tcp.writer.write(b"\x00")
        tcp.writer.write_eof()
        await kdc.wait_for_messages(3)
        may_answer.set()
        for _ in range(3):
            assert await tcp.receive() == ERROR
        assert await tcp.rest() == b""


async def test_connection_without_a_request_ends_after_the_idle_time(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port), idle_timeout=0.5) as local,
        local.tcp() as unused,
        local.tcp() as used,
    ):
        assert await used.ask(as_req()) == ERROR
        assert await unused.rest() == b""
        assert await used.rest() == b""


async def test_bytes_of_an_unfinished_message_do_not_extend_its_time(tmp_path: Path) -> None:
    async def trickle(writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"\x00")
            await asyncio.sleep(0.02)

    async with (
        running_local(tmp_path, config_for(1), message_timeout=0.3) as local,
        local.tcp() as tcp,
        asyncio.TaskGroup() as tasks,
    ):
        tcp.writer.write(b"\x00\x00\x10\x00")
        trickling = tasks.create_task(trickle(tcp.writer), name="trickle")
        assert await tcp.rest() == b""
        trickling.cancel()


async def test_connection_with_a_dismissed_request_ends_after_the_idle_time(
    tmp_path: Path, may_answer: asyncio.Event
) -> None:
    """A newer password change replaces the one before, which gets no answer."""
    may_answer.clear()
    first, second, third = (kpasswd_req(cipher=bytes([number]) * 200) for number in range(3))
    async with (
        FakeKdc(tcp=reply(kpasswd_rep(), when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port), idle_timeout=0.5) as local,
        local.tcp() as tcp,
    ):
        for payload in (first, second, third):
            tcp.send(payload)
        await kdc.wait_for_messages()
        await local.wait_for_copies(2)
        may_answer.set()
        assert await tcp.receive() == kpasswd_rep()
        assert inspect_reply(MessageKind.KPASSWD_REQ, await tcp.receive()).error_code == 60
        assert await tcp.rest() == b""
        assert kdc.messages == [first]


async def test_kdc_that_is_slow_costs_no_connection(tmp_path: Path, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with (
        FakeKdc(tcp=reply(ERROR, when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port), idle_timeout=0.5, message_timeout=0.5) as local,
        local.tcp() as tcp,
    ):
        tcp.send(as_req())
        await kdc.wait_for_messages()
        await asyncio.sleep(0.7)
        may_answer.set()
        assert await tcp.receive() == ERROR


async def test_program_that_does_not_read_loses_its_connection(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    async def is_aborted() -> bool:
        return any(line.message == "connection_aborted" for line in log.records)

    payload = as_rep(cipher=bytes(1_000_000))
    async with (
        FakeKdc(tcp=reply(payload)) as kdc,
        running_local(tmp_path, config_for(kdc.port), write_timeout=0.3) as local,
    ):
        with socket.socket() as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, (LOOPBACK, local.port))
            for number in range(20):
                await loop.sock_sendall(sock, prefixed(as_req(nonce=number)))
            await eventually(is_aborted)
        async with local.tcp() as other:
            assert await other.ask(as_req()) == payload


async def test_connection_over_the_limit_replaces_the_oldest_idle_connection(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port), connections=ConnectionsConfig(per_client=2)) as local,
        local.tcp() as oldest,
        local.tcp() as second,
    ):
        for number, stream in enumerate((oldest, second)):
            await stream.ask(as_req(nonce=number))
        async with local.tcp() as third:
            assert await third.ask(as_req(nonce=3)) == ERROR
            assert await oldest.rest() == b""
            assert await second.ask(as_req(nonce=4)) == ERROR
    assert "connection_evicted" in {line.message for line in log.records}


async def test_connection_is_refused_if_all_others_are_busy(
    tmp_path: Path, may_answer: asyncio.Event, log: pytest.LogCaptureFixture
) -> None:
    may_answer.clear()
    async with (
        FakeKdc(tcp=reply(ERROR, when=may_answer)) as kdc,
        running_local(tmp_path, config_for(kdc.port), connections=ConnectionsConfig(per_client=1)) as local,
        local.tcp() as busy,
    ):
        busy.send(as_req())
        await kdc.wait_for_messages()
        async with local.tcp() as refused:
            assert await refused.rest() == b""
        async with local.unix() as other:  # users count by themselves
            other.send(as_req(nonce=2))
            may_answer.set()
            assert await other.receive() == ERROR
        assert await busy.receive() == ERROR
    assert "connections_refused" in {line.message for line in log.records}


async def test_user_that_is_not_allowed_is_refused_and_named_in_the_log(
    tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port), uids=frozenset({OTHER_UID})) as local,
        local.unix() as unix,
        local.tcp() as tcp,
    ):
        assert await tcp.ask(as_req()) == ERROR
        answer = await unix.ask(as_req())  # a copy of an answered request is refused too
    error = asn1.decode(answer, asn1.KRB_ERROR)
    assert int(error["error-code"]) == 12
    assert f"The user {os.getuid()} may not use this KDC proxy." in bytes(error["e-text"]).decode()
    line = fields_of(log)[-1]
    assert (line["outcome"], line["rule"], line["uid"]) == ("refused", "uid", os.getuid())


async def test_user_that_is_allowed_is_served(tmp_path: Path) -> None:
    async with (
        FakeKdc(tcp=reply(ERROR)) as kdc,
        running_local(tmp_path, config_for(kdc.port), uids=frozenset({os.getuid()})) as local,
        local.unix() as unix,
    ):
        assert await unix.ask(as_req()) == ERROR
