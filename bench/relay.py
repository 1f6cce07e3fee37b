"""What a relay costs that does nothing but relay: `python relay.py PORT CERTIFICATE KEY KDC_PORT`.

aiohttp on uvloop, our codec, a fresh UDP socket for each request; no guard, no choice among KDCs, no second
attempt, no log line, no count. What kkdcpd takes beyond this is the price of all that.
"""

import asyncio
import socket
import ssl
import sys

import uvloop
from aiohttp import HttpVersion11, web

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


async def _serve(port: int, certificate: str, key: str, kdc_port: int) -> None:
    async def relay(http: web.BaseRequest) -> web.Response:
        request = messages.classify(kkdcp.decode_proxy_message(await http.read()))
        reply = framing.add_prefix(await _exchange(request.payload, kdc_port))
        body = kkdcp.encode_proxy_message(ProxyMessage(kerb_message=reply))
        response = web.Response(body=body, content_type="application/kerberos")
        if http.version < HttpVersion11:
            response.force_close()
        return response

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = web.Server(relay, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, ssl=context)
    await listener.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
