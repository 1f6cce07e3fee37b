"""The worker in the test's own event loop, from its listeners to its end."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest

from kkdcpd.config import TlsConfig
from kkdcpd.tls import build_server_context
from lab.authority import Authority
from tests.frontends.inside import PATIENCE_SECONDS, Talk, listening, running_worker
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD
from tests.support.fake_kdc import FakeKdc, reply


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


def settings(kdc: FakeKdc) -> str:
    return f'[realms."EXAMPLE.COM"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\n'


@pytest.fixture(scope="module")
def server_context(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("localhost", file_name="worker")
    return build_server_context(TlsConfig(certificate=pair.certificate, key=pair.key))


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate))


async def test_every_listener_is_served(
    kdc: FakeKdc, server_context: ssl.SSLContext, trust: ssl.SSLContext
) -> None:
    async with (
        listening() as plain,
        listening(host="::1", tls=server_context) as by_tls,
        running_worker(settings(kdc), plain, by_tls),
        Talk.to(plain) as first,
        Talk.to(by_tls, tls=trust) as second,
    ):
        for talk in (first, second):
            await talk.send(GOOD_REQUEST)
            assert await talk.response() == (200, GOOD_REPLY)


async def test_hundred_clients_are_served_at_the_same_time(kdc: FakeKdc, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with listening() as listener, running_worker(settings(kdc), listener):

        async def ask() -> tuple[int, bytes]:
            async with Talk.to(listener) as talk:
                await talk.send(GOOD_REQUEST)
                return await talk.response()

        async with asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(ask(), name=f"client {number}") for number in range(100)]
            await kdc.wait_for_messages(100)
            may_answer.set()
        assert [client.result() for client in clients] == [(200, GOOD_REPLY)] * 100


async def test_stop_lets_a_request_finish(kdc: FakeKdc, may_answer: asyncio.Event) -> None:
    may_answer.clear()
    async with (
        listening() as listener,
        running_worker(settings(kdc), listener) as stop,
        Talk.to(listener) as talk,
    ):
        await talk.send(GOOD_REQUEST)
        await kdc.wait_for_messages()
        stop.set()
        await asyncio.sleep(0)
        may_answer.set()
        assert await talk.response() == (200, GOOD_REPLY)
        assert await talk.rest() == b""


async def test_stop_ends_idle_connections_at_once(kdc: FakeKdc) -> None:
    async with (
        listening() as listener,
        running_worker(settings(kdc), listener) as stop,
        Talk.to(listener) as used,
        Talk.to(listener) as unused,
    ):
        await used.send(GOOD_REQUEST)
        await used.response()
        stop.set()
        assert (await used.rest(), await unused.rest()) == (b"", b"")


async def test_stop_closes_the_listeners(kdc: FakeKdc) -> None:
    async with listening() as listener:
        place = listener.socket.getsockname()
        async with asyncio.timeout(PATIENCE_SECONDS), running_worker(settings(kdc), listener) as stop:
            stop.set()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*place)
