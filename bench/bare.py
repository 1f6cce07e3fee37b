"""Serves one handler with aiohttp on uvloop, for `constant` and `relay`."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import uvloop
from aiohttp import HttpVersion11, web

__all__ = ["Answer", "serve"]

Answer = Callable[[bytes], Awaitable[bytes]]
"""Makes the body of a response from the body of a request."""


def serve(answer: Answer, port: int, certificate: str, key: str) -> None:
    """Serve until killed."""
    uvloop.run(_serve(answer, port, certificate, key))


async def _serve(answer: Answer, port: int, certificate: str, key: str) -> None:
    async def respond(http: web.BaseRequest) -> web.Response:
        body = await answer(await http.read())
        response = web.Response(body=body, content_type="application/kerberos")
        if http.version < HttpVersion11:
            response.force_close()
        return response

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = web.Server(respond, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, ssl=context)
    await listener.serve_forever()
