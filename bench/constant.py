"""What the HTTP server that we use costs by itself: `python constant.py PORT CERTIFICATE KEY OCTETS`.

Bare aiohttp on uvloop. It reads the request's body and answers with so many octets, always the same.
"""

import asyncio
import ssl
import sys

import uvloop
from aiohttp import HttpVersion11, web


async def _serve(port: int, certificate: str, key: str, octets: int) -> None:
    body = bytes(octets)

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        response = web.Response(body=body, content_type="application/kerberos")
        if request.version < HttpVersion11:
            response.force_close()
        return response

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = web.Server(answer, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, ssl=context)
    await listener.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
