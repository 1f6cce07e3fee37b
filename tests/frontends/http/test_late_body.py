"""A body that comes after its head. Real connections are in test_connection."""

import asyncio

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from kkdcpd.errors import BodyTimeoutError
from kkdcpd.frontends.http.late_body import BrokenBodyError, LateBody


def body_with(data: bytes) -> StreamReader:
    loop = asyncio.get_running_loop()
    body = StreamReader(BaseProtocol(loop), limit=2**16, loop=loop)
    body.feed_data(data)
    return body


async def begin(late_body: LateBody, limit: int = 100) -> asyncio.Task[bytes]:
    task = asyncio.get_running_loop().create_task(late_body.read(limit))
    await asyncio.sleep(0)
    return task


async def test_read_waits_for_the_end_and_counts() -> None:
    body = body_with(b"ab")
    late_body = LateBody(body, lambda: False)
    task = await begin(late_body)
    assert (late_body.count, task.done()) == (2, False)
    body.feed_data(b"c")
    body.feed_eof()
    late_body.wake()
    late_body.wake()
    assert await task == b"abc"
    assert late_body.count == 3


async def test_read_stops_beyond_the_limit() -> None:
    assert await LateBody(body_with(b"abc"), lambda: False).read(2) == b"abc"


async def test_failed_parser_breaks_the_body_and_ends_it() -> None:
    body = body_with(b"ab")
    with pytest.raises(BrokenBodyError):
        await LateBody(body, lambda: True).read(100)
    assert body.is_eof()


async def test_timeout_says_how_many_bytes_came() -> None:
    late_body = LateBody(body_with(b"ab"), lambda: False)
    late_body.time_out()  # Without a reader, nothing happens.
    task = await begin(late_body)
    late_body.time_out()
    with pytest.raises(BodyTimeoutError, match="2 bytes so far"):
        await task
