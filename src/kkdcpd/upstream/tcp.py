"""One message over one fresh TCP connection (RFC 4120 7.2.2).

Connections are never kept for the next request: nothing in Kerberos ties a reply to a request, so a late one
would go to a stranger.
"""

import asyncio
import socket

from kkdcpd.protocol import framing
from kkdcpd.upstream.failures import failure_of
from kkdcpd.values import Attempt, AttemptResult, FailureReason, ProxyRequest

__all__ = ["send"]

CHUNK_BYTES = 65536


async def send(attempt: Attempt, request: ProxyRequest, *, max_reply_bytes: int) -> AttemptResult:
    """Connect, send the message, read exactly the announced length; never raises OSError."""
    endpoint = attempt.endpoint
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        failure = await _connect(sock, (endpoint.address, endpoint.port), attempt.connect_deadline)
        if failure:
            return AttemptResult(attempt=attempt, failure=failure)
        reply = await _converse(sock, request.kerb_message, attempt.reply_deadline, max_reply_bytes)
    if isinstance(reply, FailureReason):
        return AttemptResult(attempt=attempt, failure=reply, is_written=True)
    return AttemptResult(attempt=attempt, payload=reply, is_written=True)


async def _connect(sock: socket.socket, address: tuple[str, int], deadline: float) -> FailureReason | None:
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.get_running_loop().sock_connect(sock, address)
        # The message is written whole, so there is nothing for Nagle's algorithm to wait for.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError:
        return FailureReason.CONNECT_TIMEOUT
    except OSError as error:
        return failure_of(error)
    return None


async def _converse(
    sock: socket.socket, kerb_message: bytes, deadline: float, max_reply_bytes: int
) -> bytes | FailureReason:
    try:
        async with asyncio.timeout_at(deadline):
            await asyncio.get_running_loop().sock_sendall(sock, kerb_message)
            return await _read_reply(sock, max_reply_bytes)
    except TimeoutError:
        return FailureReason.REPLY_TIMEOUT
    except OSError as error:
        return failure_of(error)


async def _read_reply(sock: socket.socket, max_reply_bytes: int) -> bytes | FailureReason:
    """Read one framed message and give its payload; never holds more than was announced, and a chunk."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    wanted = framing.PREFIX_OCTETS
    while len(received) < wanted:
        chunk = await loop.sock_recv(sock, CHUNK_BYTES)
        if not chunk:
            return FailureReason.CLOSED
        had_prefix = len(received) >= framing.PREFIX_OCTETS
        received += chunk
        if not had_prefix and len(received) >= framing.PREFIX_OCTETS:
            length = framing.read_prefix(bytes(received[: framing.PREFIX_OCTETS]))
            # The high bit is reserved for extensions (RFC 4120 7.2.2) and makes the length too big as well.
            if length > max_reply_bytes:
                return FailureReason.REPLY_TOO_BIG
            wanted = framing.PREFIX_OCTETS + length
    return bytes(received[framing.PREFIX_OCTETS : wanted])
