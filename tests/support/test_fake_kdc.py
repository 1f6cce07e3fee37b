"""The fake KDC leaves no socket open after any kind of end."""

import asyncio
import contextlib
import gc
import socket

import pytest

from tests.support.fake_kdc import FakeKdc, silent

STEPS_OF_THE_LOOP = range(6)


@pytest.mark.parametrize("steps", STEPS_OF_THE_LOOP)
def test_connection_that_arrives_when_the_kdc_ends_is_closed(steps: int) -> None:
    """Without a close, the server's socket is a ResourceWarning, which fails the test."""

    async def connect_and_end() -> None:
        async with FakeKdc(tcp=silent()) as kdc:
            client.connect((kdc.host, kdc.port))
            for _ in range(steps):
                await asyncio.sleep(0)

    with socket.socket() as client:
        asyncio.run(connect_and_end())
        gc.collect()
        client.settimeout(10)
        # A connection that is still in the backlog when the listener ends is reset.
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
