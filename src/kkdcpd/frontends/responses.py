"""What an HTTP client is told of each outcome: one table of status and sentence (docs/http.md).

The sentences help the client's administrator; none names an address or a KDC of ours. To a Windows client
every status but 403 means "no logon servers" ([MS-KKDCP] 3.1.5.3); MIT's tries its next proxy at once.
"""

import math
from dataclasses import dataclass

from aiohttp import ClientConnectionResetError, HttpVersion11, web
from aiohttp.helpers import rfc822_formatted_time

from kkdcpd.frontends.connection import Request
from kkdcpd.values import Outcome, Refusal

__all__ = ["SERVER", "Answer", "refuse"]

SERVER = "kkdcpd"
CONTENT_TYPE = "application/kerberos"


@dataclass(frozen=True, slots=True)
class Ending:
    """Status and sentence of an outcome without a reply; whether the connection may live on after it."""

    status: int
    sentence: str
    keeps_connection: bool = False


_ENDINGS = {
    Outcome.MALFORMED_HTTP: Ending(400, "This is not a well-formed HTTP request."),
    Outcome.MALFORMED_MESSAGE: Ending(
        400, "The body is not a KDC-PROXY-MESSAGE with a well-formed Kerberos request (MS-KKDCP 2.2.2)."
    ),
    Outcome.NO_TARGET_DOMAIN: Ending(
        400, "The KDC-PROXY-MESSAGE has no target-domain, so the realm is unknown (MS-KKDCP 3.2.5.1)."
    ),
    Outcome.PATH_NOT_FOUND: Ending(
        404, "Nothing is at this path. A KDC proxy is usually at /KdcProxy; ask its operator."
    ),
    Outcome.METHOD_NOT_ALLOWED: Ending(
        405,
        "This is a Kerberos KDC proxy (MS-KKDCP) and it is up: it takes POST requests from Kerberos clients."
        " To test it, write `kdc = ` and this URL into your realm's section of krb5.conf, and run kinit.",
    ),
    Outcome.BODY_TOO_LARGE: Ending(413, "The body is larger than any Kerberos request may be here."),
    Outcome.BODY_TIMEOUT: Ending(408, "The body did not arrive in time."),
    Outcome.REFUSED: Ending(403, "The proxy's policy is against this request.", keeps_connection=True),
    Outcome.RATE_LIMITED: Ending(429, "Too many requests come from your network."),
    Outcome.OVERLOADED: Ending(503, "Too many requests come at present."),
    Outcome.REALM_NOT_SERVED: Ending(
        503, "The Kerberos realm asked for is not served here; check the realm's name.", keeps_connection=True
    ),
    Outcome.NO_KDC_KNOWN: Ending(
        503, "No server for this service of the Kerberos realm is known here.", keeps_connection=True
    ),
    Outcome.DNS_FAILED: Ending(
        503,
        "The servers of the Kerberos realm can't be looked up at the moment; try again later.",
        keeps_connection=True,
    ),
    Outcome.NO_KDC_REACHED: Ending(
        503,
        "No server of the Kerberos realm can be reached at the moment; try again later.",
        keeps_connection=True,
    ),
    Outcome.NO_KDC_REPLY: Ending(
        503, "The Kerberos realm's server took the request but sent no usable reply.", keeps_connection=True
    ),
    Outcome.INTERNAL_ERROR: Ending(500, "The proxy made a mistake; its operator finds it in the log."),
}


class Answer(web.StreamResponse):
    """The response that bears a reply, with few and known headers: to write any takes three times as long."""

    def __init__(self, body: bytes, request_id: str) -> None:
        super().__init__()
        self.body = body
        self._request_id = request_id

    async def prepare(self, request: Request) -> None:  # type: ignore[override] # ours are all such
        """Write all of it."""
        transport = request.connection.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client is gone")
        if self._keep_alive is None:
            self._keep_alive = not request.head.should_close
        version = request.head.version
        # To say nothing closes a connection of HTTP/1.0, and keeps one of HTTP/1.1 (RFC 9112 9.3).
        close = "" if self._keep_alive or version < HttpVersion11 else "Connection: close\r\n"
        head = (
            f"HTTP/{version.major}.{version.minor} 200 OK\r\n"
            f"Server: {SERVER}\r\n"
            f"Content-Type: {CONTENT_TYPE}\r\n"
            f"x-ms-request-id: {self._request_id}\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\n"
            f"{close}\r\n"
        )
        transport.write(head.encode("ascii") + self.body)
        self._eof_sent = True
        # Who doesn't read gets no other reply meanwhile.
        await request.writer.drain()


def refuse(outcome: Outcome, request_id: str, refusal: Refusal | None = None) -> web.Response:
    """Build the response to a request that got no reply; the guard's `refusal` says more than the outcome.

    `x-ms-request-id` is what Kerberos.NET shows its user in an error, and the `id` of our log line.
    """
    ending = _ENDINGS[outcome]
    headers = {"Server": SERVER, "x-ms-request-id": request_id}
    if ending.status == 405:
        headers["Allow"] = "POST"
    if refusal and refusal.retry_after:
        headers["Retry-After"] = str(math.ceil(refusal.retry_after))
    text = _sentence(refusal.text) if refusal else ending.sentence
    response = web.Response(status=ending.status, text=text + "\n", headers=headers)
    if not ending.keeps_connection:
        response.force_close()
    return response


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].removesuffix(".") + "."
