"""Reads the bytes before TLS from a socket: the PROXY header, and the size of the client's first message."""

import asyncio
import socket

from kkdcpd.errors import MalformedError
from kkdcpd.protocol import client_hello, proxy_header
from kkdcpd.protocol.proxy_header import ProxyHeader

__all__ = ["read_proxy_header", "wait_for_hello"]


async def read_proxy_header(sock: socket.socket) -> ProxyHeader:
    """Read the header, and no byte behind it: these belong to TLS or HTTP.

    Raises:
        MalformedError: the bytes are no header.
        ConnectionError: the connection ended before the header did.
    """
    data = bytearray()
    while True:
        await _wait_for_data(sock)
        seen = sock.recv(proxy_header.MAX_HEADER_BYTES - len(data), socket.MSG_PEEK)
        if not seen:
            raise ConnectionAbortedError("no PROXY header")
        header, length = proxy_header.parse(data + seen)
        # All bytes of an unfinished header belong to it.
        data += sock.recv(length - len(data) if header else len(seen))
        if header:
            return header


async def wait_for_hello(sock: socket.socket) -> None:
    """Wait until the client's first TLS message is in the kernel's buffer, or bytes that are no such message.

    The kernel reports the socket readable only when it has SO_RCVLOWAT bytes (socket(7)).

    Raises:
        ConnectionError: the message is too large for the kernel's buffer.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, client_hello.HEAD_BYTES)
    await _wait_for_data(sock)
    try:
        count = client_hello.hello_bytes(sock.recv(client_hello.HEAD_BYTES, socket.MSG_PEEK))
    except MalformedError as error:
        raise ConnectionAbortedError(str(error)) from error
    if count:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
        await _wait_for_data(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)


async def _wait_for_data(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    is_there = loop.create_future()
    loop.add_reader(sock, _settle, is_there)
    try:
        await is_there
    finally:
        loop.remove_reader(sock)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
