"""Idle connections: which are kept, for how long, and which are used."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from functools import partial

import pytest

from kkdcpd.config import HttpsConfig
from kkdcpd.upstream.https.attempt import make_pool
from kkdcpd.upstream.https.connection import Connection, Failure
from kkdcpd.upstream.https.pool import Pool
from kkdcpd.upstream.sockets import Readiness
from lab.authority import CertificateFiles
from tests.support.fake_kdc_proxy import FakeKdcProxy, Link, hold
from tests.support.waiting import eventually


class User:
    """A user of connections that only waits until they are open."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()

    def opened(self) -> None:
        self.is_open.set()

    def answered(self, response: object) -> None:
        raise AssertionError(response)

    def ended(self, failure: Failure) -> None:
        raise AssertionError(failure)


@asynccontextmanager
async def idle(pool: Pool, proxy: FakeKdcProxy, count: int = 1) -> AsyncIterator[list[Connection]]:
    """Put open connections into the pool."""
    connections = []
    for _ in range(count):
        user = User()
        connection = pool.open(proxy.endpoint, user)
        connection.open()
        async with asyncio.timeout(10):
            await user.is_open.wait()
        connections.append(connection)
    for connection in connections:
        pool.put(connection)
    yield connections


async def is_gone(connection: Connection) -> bool:
    return not connection.is_usable


@pytest.fixture
def make(options: HttpsConfig) -> Callable[..., Pool]:
    def make_with(**settings: float) -> Pool:
        changed = replace(options, **settings)  # type: ignore[arg-type] # the idle limits are numbers
        return make_pool(changed, readiness=Readiness(), sources={}, max_reply_bytes=1024)

    return make_with


async def test_connection_that_was_used_last_is_taken_first(
    make: Callable[..., Pool], files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=hold()) as proxy:
        with closing(make()) as pool:
            async with idle(pool, proxy, 2) as (first, second):
                taken = [pool.take(proxy.endpoint, may_repeat=True) for _ in range(3)]
                assert taken == [second, first, None]
                first.close()
                second.close()


async def test_connection_serves_its_own_endpoint_only(
    make: Callable[..., Pool], files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=hold()) as proxy:
        with closing(make()) as pool:
            async with idle(pool, proxy):
                other = replace(proxy.endpoint, name="other.test")
                assert pool.take(other, may_repeat=True) is None
                assert pool.take(replace(proxy.endpoint, path="/other"), may_repeat=True) is None


async def test_only_a_fresh_connection_gets_a_message_that_is_sent_once(
    make: Callable[..., Pool], files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=hold()) as proxy:
        with closing(make(fresh_seconds=0.0)) as pool:
            async with idle(pool, proxy) as [connection]:
                assert pool.take(proxy.endpoint, may_repeat=False) is None
                assert pool.take(proxy.endpoint, may_repeat=True) is connection
                connection.close()


async def test_connection_is_not_used_when_the_server_may_close_it(
    make: Callable[..., Pool], files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=hold()) as proxy:
        with closing(make()) as pool:
            async with idle(pool, proxy) as [connection]:
                pool.put(connection, keep_alive=1.0)
                assert pool.take(proxy.endpoint, may_repeat=True) is None
                pool.put(connection, keep_alive=100.0)
                assert pool.take(proxy.endpoint, may_repeat=True) is connection
                connection.close()


async def test_number_of_idle_connections_is_limited(
    make: Callable[..., Pool], files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=hold()) as proxy:
        with closing(make(idle_connections=2)) as pool:
            async with idle(pool, proxy, 3) as connections:
                assert [connection.is_usable for connection in connections] == [False, True, True]


async def test_idle_connections_are_closed_in_time(
    make: Callable[..., Pool], files: CertificateFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kkdcpd.upstream.https.pool.SWEEP_SECONDS", 0.01)
    async with FakeKdcProxy(files, script=hold()) as proxy:
        with closing(make(idle_timeout=0.0)) as pool:
            async with idle(pool, proxy) as [connection]:
                await eventually(partial(is_gone, connection))


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n\r\n", b""], ids=["bytes without a request", "end"])
async def test_connection_on_which_something_arrives_is_dropped(
    data: bytes, make: Callable[..., Pool], files: CertificateFiles
) -> None:
    may_write = asyncio.Event()

    async def write_later(link: Link) -> None:
        await may_write.wait()
        if data:
            await link.write(data)
            await link.hold()

    async with FakeKdcProxy(files, script=write_later) as proxy:
        with closing(make()) as pool:
            async with idle(pool, proxy) as [connection]:
                may_write.set()
                await eventually(partial(is_gone, connection))
                assert pool.take(proxy.endpoint, may_repeat=True) is None


async def test_closed_pool_has_closed_its_connections(
    make: Callable[..., Pool], files: CertificateFiles
) -> None:
    async with FakeKdcProxy(files, script=hold()) as proxy:
        pool = make()
        async with idle(pool, proxy) as [connection]:
            pool.close()
            assert not connection.is_usable
