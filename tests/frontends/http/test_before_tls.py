"""The bytes before TLS, over a real socket. test_proxies and test_acceptor have whole connections."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from kkdcpd.errors import MalformedError
from kkdcpd.frontends.http.before_tls import read_proxy_header, wait_for_hello

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n"
SHORT_TIME = 0.05


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's and the server's end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    with client, accepted:
        client.setblocking(False)
        accepted.setblocking(False)
        yield client, accepted


async def test_header_in_pieces_is_read_without_the_bytes_behind_it(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, server = ends
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read_proxy_header(server), name="server")
        for start in range(0, len(HEADER), 9):
            client.send(HEADER[start : start + 9])
            await asyncio.sleep(0.001)
        client.send(b"TLS")
    assert (reading.result().address, reading.result().port) == ("192.0.2.1", 4711)
    assert await asyncio.get_running_loop().sock_recv(server, 100) == b"TLS"


async def test_other_bytes_are_malformed(ends: tuple[socket.socket, socket.socket]) -> None:
    ends[0].send(b"GET / HTTP/1.1\r\n")
    with pytest.raises(MalformedError):
        await read_proxy_header(ends[1])


async def test_connection_that_ends_before_its_header_is_aborted(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ends[0].close()
    with pytest.raises(ConnectionError):
        await read_proxy_header(ends[1])


async def test_hello_is_awaited_as_a_whole_and_left_in_the_kernel(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, server = ends
    hello = b"\x16\x03\x01\x01\x04\x01\x00\x01\x00" + bytes(256)
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wait_for_hello(server), name="server")
        client.send(hello[:100])
        await asyncio.sleep(SHORT_TIME)
        assert not waiting.done()
        client.send(hello[100:])
    assert await asyncio.get_running_loop().sock_recv(server, 1000) == hello
