"""Relays without any checks: `python -m bench.relay PORT CERTIFICATE KEY KDC_PORT`.

aiohttp on uvloop, kkdcpd's codec, and a new UDP socket for each request; no guard, no choice of KDC, no
second attempt, no log line, no metrics. The difference to kkdcpd is the cost of these parts.
"""

import asyncio
import socket
import sys

from bench.bare import serve
from kkdcpd.protocol import framing, kkdcp, messages
from kkdcpd.values import ProxyMessage

PATIENCE_SECONDS = 5
BUFFER_BYTES = 65535


async def _exchange(payload: bytes, kdc_port: int) -> bytes:
    loop = asyncio.get_running_loop()
    with socket.socket(type=socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(("127.0.0.1", kdc_port))
        sock.send(payload)
        answered = loop.create_future()
        loop.add_reader(sock, answered.set_result, None)
        try:
            await asyncio.wait_for(answered, PATIENCE_SECONDS)
            return sock.recv(BUFFER_BYTES)
        finally:
            loop.remove_reader(sock)


def main(port: str, certificate: str, key: str, kdc_port: str) -> None:
    """Serve until killed."""

    async def relay(body: bytes) -> bytes:
        request = messages.classify(kkdcp.decode_proxy_message(body))
        reply = framing.add_prefix(await _exchange(request.payload, int(kdc_port)))
        return kkdcp.encode_proxy_message(ProxyMessage(kerb_message=reply))

    serve(relay, int(port), certificate, key)


if __name__ == "__main__":
    main(*sys.argv[1:])
