"""One connection's deadlines and counts, on both event loops."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kkdcpd.frontends.door import Listener
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_worker
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD
from tests.support.fake_kdc import FakeKdc, Link, reply

HEAD_TIMEOUT = 0.2
LONG = 5.0
"""A timeout that no test waits for."""


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "kkdcpd")
    return caplog


@pytest.fixture
def may_answer() -> asyncio.Event:
    """Set when the KDC may answer: from the start, unless a test clears it."""
    event = asyncio.Event()
    event.set()
    return event


@pytest.fixture
async def kdc(may_answer: asyncio.Event) -> AsyncIterator[FakeKdc]:
    async with FakeKdc(tcp=reply(REPLY_PAYLOAD, when=may_answer)) as running:
        yield running


def settings(kdc: FakeKdc, keepalive_timeout: float = LONG) -> str:
    return f"""
        [http]
        head_timeout = {HEAD_TIMEOUT}
        keepalive_timeout = {keepalive_timeout}
        max_requests_per_connection = 3
        [realms."EXAMPLE.COM"]
        kdc = ["tcp://127.0.0.1:{kdc.port}"]
    """


@pytest.fixture
async def listener(kdc: FakeKdc) -> AsyncIterator[Listener]:
    """Where a worker listens."""
    async with listening() as listener, running_worker(settings(kdc), listener):
        yield listener


def exchange_fields(log: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.fields for record in log.records if record.message == "exchange"]  # type: ignore[attr-defined]


async def elapsed_until_end(talk: Talk) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    assert await talk.rest() == b""
    return loop.time() - started


async def test_silent_connection_ends_after_head_timeout(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


async def test_half_a_head_ends_after_head_timeout(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"POST /KdcProxy HTTP/1.1\r\n")
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


async def test_half_a_second_head_ends_after_head_timeout(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await talk.response()
        await talk.send(b"POST")
        assert HEAD_TIMEOUT / 2 < await elapsed_until_end(talk) < LONG


async def test_idle_connection_ends_after_keepalive_timeout_only(kdc: FakeKdc) -> None:
    async with (
        listening() as listener,
        running_worker(settings(kdc, keepalive_timeout=3 * HEAD_TIMEOUT), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await talk.response()
        assert 2 * HEAD_TIMEOUT < await elapsed_until_end(talk) < LONG


async def test_long_exchange_is_not_the_client_s_fault(kdc: FakeKdc, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    asyncio.get_running_loop().call_later(3 * HEAD_TIMEOUT, may_answer.set)
    async with (
        listening() as listener,
        running_worker(settings(kdc, keepalive_timeout=HEAD_TIMEOUT), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)


async def test_head_that_comes_during_an_exchange_waits_for_its_end(
    listener: Listener, kdc: FakeKdc, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        await talk.send(GOOD_REQUEST[:30])
        asyncio.get_running_loop().call_later(HEAD_TIMEOUT * 2, may_answer.set)
        assert await talk.response() == (200, GOOD_REPLY)
        await talk.send(GOOD_REQUEST[30:])
        assert await talk.response() == (200, GOOD_REPLY)


async def test_connection_ends_after_as_many_requests_as_it_may_bear(listener: Listener) -> None:
    async with Talk.to(listener) as talk:
        for _ in range(3):
            await talk.send(GOOD_REQUEST)
            assert await talk.response() == (200, GOOD_REPLY)
        assert await talk.rest() == b""


async def test_pipelined_requests_count_too(listener: Listener, kdc: FakeKdc) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST * 10)
        assert (await talk.rest()).count(b"HTTP/1.1 200 OK") == 3
    assert kdc.connections == 3


async def test_each_connection_counts_for_itself(listener: Listener) -> None:
    async with Talk.to(listener) as first, Talk.to(listener) as second:
        for talk in (first, second, first, second, first, second):
            await talk.send(GOOD_REQUEST)
            assert await talk.response() == (200, GOOD_REPLY)


async def test_malformed_request_is_answered_and_ends_the_connection(
    listener: Listener, log: pytest.LogCaptureFixture
) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(b"\0\r\n\r\n")
        status, _ = await talk.response()
        assert (status, await talk.rest()) == (400, b"")
    (fields,) = exchange_fields(log)
    assert fields["outcome"] == "malformed_http"
    assert "\n" not in fields["detail"]


async def test_client_that_goes_ends_its_exchange(
    listener: Listener, kdc: FakeKdc, log: pytest.LogCaptureFixture
) -> None:
    has_ended = asyncio.Event()

    async def script(link: Link) -> None:
        await link.message()
        await link.hold()
        has_ended.set()

    kdc.tcp = script
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        talk.reset()
        await asyncio.wait_for(has_ended.wait(), PATIENCE_SECONDS)
    (gone,) = exchange_fields(log)
    assert (gone["outcome"], "status" in gone) == ("client_gone", False)


async def test_client_is_known_by_its_address(listener: Listener, log: pytest.LogCaptureFixture) -> None:
    async with Talk.to(listener) as talk:
        await talk.send(GOOD_REQUEST)
        await talk.response()
        address, port = talk.address
    (fields,) = exchange_fields(log)
    assert (fields["client"], fields["port"], fields["tls"]) == (address, port, "none")


async def test_client_by_ipv6_is_known_by_its_address(kdc: FakeKdc, log: pytest.LogCaptureFixture) -> None:
    async with (
        listening(host="::1") as listener,
        running_worker(settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await talk.response()
        address, port = talk.address
    (fields,) = exchange_fields(log)
    assert (fields["client"], fields["port"]) == (address, port)


async def test_client_of_a_unix_socket_is_known_as_such(
    kdc: FakeKdc, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "http.sock"
    async with (
        listening(unix_path=path) as listener,
        running_worker(settings(kdc), listener),
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        assert await talk.response() == (200, GOOD_REPLY)
    (fields,) = exchange_fields(log)
    assert (fields["client"], "port" in fields) == ("unix", False)
