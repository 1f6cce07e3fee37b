"""One datagram and its answer over a fresh connected UDP socket (RFC 4120 7.2.1).

Connected, so that the kernel drops what comes from elsewhere and reports a closed port; fresh, so that no
reply to another request can arrive on it.
"""

import asyncio
import socket

from kkdcpd.upstream.failures import failure_of
from kkdcpd.values import Attempt, AttemptResult, FailureReason, ProxyRequest

__all__ = ["send"]

MAX_DATAGRAM_BYTES = 65535
"""The largest that UDP can bear; KDCs answer KRB_ERR_RESPONSE_TOO_BIG long before."""


async def send(attempt: Attempt, request: ProxyRequest) -> AttemptResult:
    """Send the payload once and wait for a datagram; never raises OSError."""
    endpoint = attempt.endpoint
    family = socket.AF_INET6 if ":" in endpoint.address else socket.AF_INET
    loop = asyncio.get_running_loop()
    is_written = False
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            async with asyncio.timeout_at(attempt.reply_deadline):
                await loop.sock_connect(sock, (endpoint.address, endpoint.port))
                await loop.sock_sendall(sock, request.payload)
                is_written = True
                payload = await loop.sock_recv(sock, MAX_DATAGRAM_BYTES)
    except TimeoutError:
        return AttemptResult(attempt=attempt, failure=FailureReason.REPLY_TIMEOUT, is_written=is_written)
    except ConnectionRefusedError:
        # An ICMP "port unreachable": the host has it from us, but no KDC does.
        return AttemptResult(attempt=attempt, failure=FailureReason.REFUSED)
    except OSError as error:
        return AttemptResult(attempt=attempt, failure=failure_of(error), is_written=is_written)
    return AttemptResult(attempt=attempt, payload=payload, is_written=True)
