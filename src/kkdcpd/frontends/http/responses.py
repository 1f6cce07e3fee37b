"""Builds and encodes HTTP responses, with a status and a sentence for each outcome (docs/http.md).

The sentences help the client's administrator, and name no address and no KDC. To a Windows client every
status but 403 means "no logon servers" ([MS-KKDCP] 3.1.5.3). MIT's client tries its next proxy at once.
"""

import math
import time
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from kkdcpd.frozen import frozen
from kkdcpd.protocol.kdc_proxy_http import DELIVERY_HEADER, UNDELIVERED
from kkdcpd.values import Outcome, Refusal

__all__ = ["SERVER", "Response", "answer", "encode", "encode_upgrade", "refuse", "sentence"]

SERVER = "kkdcpd"
CONTENT_TYPE = "application/kerberos"
TEXT = "text/plain; charset=utf-8"
DELIVERY_MAYBE = "maybe"


@frozen
class Response:
    """A response to one request. If `closes` is true, the connection closes after it."""

    status: int
    body: bytes
    content_type: str = TEXT
    headers: tuple[tuple[str, str], ...] = ()
    closes: bool = False


def encode(response: Response, *, is_1_0: bool, is_last: bool, has_body: bool = True) -> bytes:
    """Return the bytes of a response. A response to HEAD has no body (RFC 9110 9.3.2)."""
    # By default an HTTP/1.0 connection closes, and an HTTP/1.1 connection stays (RFC 9112 9.3).
    close = "Connection: close\r\n" if is_last and not is_1_0 else ""
    more = ""
    for name, value in response.headers:
        more += f"{name}: {value}\r\n"
    head = (
        f"HTTP/1.{0 if is_1_0 else 1} {response.status} {_PHRASES[response.status]}\r\n"
        f"Server: {SERVER}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        f"Date: {_date(int(time.time()))}\r\n"
        f"{more}{close}\r\n"
    ).encode("ascii")
    return head + response.body if has_body else head


def encode_upgrade(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the bytes of the response that ends HTTP. It has no body and no length (RFC 9110 8.6)."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return (f"HTTP/1.1 101 {_PHRASES[101]}\r\nServer: {SERVER}\r\nConnection: Upgrade\r\n{lines}\r\n").encode(
        "ascii"
    )


def answer(body: bytes, request_id: str) -> Response:
    """Build the response that carries a reply."""
    return Response(
        status=200, body=body, content_type=CONTENT_TYPE, headers=(("x-ms-request-id", request_id),)
    )


def refuse(
    outcome: Outcome, request_id: str, refusal: Refusal | None = None, *, may_be_delivered: bool = True
) -> Response:
    """Build the response to a request without a reply. A `refusal` of the guard has a sentence of its own.

    `may_be_delivered` is as in RequestResult. It tells another kkdcpd whether it may use its next proxy.
    `x-ms-request-id` is the `id` in the access log. Kerberos.NET shows it to its user in an error.
    """
    ending = _ENDINGS[outcome]
    delivery = DELIVERY_MAYBE if may_be_delivered else UNDELIVERED
    headers = [("x-ms-request-id", request_id), (DELIVERY_HEADER, delivery)]
    if ending.status == 405:
        headers.append(("Allow", "POST"))
    if refusal and refusal.retry_after:
        headers.append(("Retry-After", str(math.ceil(refusal.retry_after))))
    return Response(
        status=ending.status,
        body=f"{sentence(outcome, refusal)}\n".encode(),
        headers=tuple(headers),
        closes=not ending.keeps_connection,
    )


def sentence(outcome: Outcome, refusal: Refusal | None = None) -> str:
    """Return the sentence for an outcome without a reply."""
    if refusal is None:
        return _ENDINGS[outcome].sentence
    return refusal.text[:1].upper() + refusal.text[1:].removesuffix(".") + "."


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    """Return a time in the format of HTTP (RFC 9110 5.6.7)."""
    return formatdate(seconds, usegmt=True)


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@frozen
class Ending:
    """The status and the sentence for an outcome without a reply, and whether the connection stays open."""

    status: int
    sentence: str
    keeps_connection: bool = False


_ENDINGS = {
    Outcome.MALFORMED_HTTP: Ending(status=400, sentence="This is not a well-formed HTTP request."),
    Outcome.MALFORMED_MESSAGE: Ending(
        status=400,
        sentence="The body is not a KDC-PROXY-MESSAGE with a well-formed Kerberos request (MS-KKDCP 2.2.2).",
    ),
    Outcome.NO_TARGET_DOMAIN: Ending(
        status=400,
        sentence="The KDC-PROXY-MESSAGE has no target-domain, so the realm is unknown (MS-KKDCP 3.2.5.1).",
    ),
    Outcome.PATH_NOT_FOUND: Ending(
        status=404,
        sentence="Nothing is at this path. A KDC proxy usually has the path /KdcProxy.",
    ),
    Outcome.METHOD_NOT_ALLOWED: Ending(
        status=405,
        sentence="This is a Kerberos KDC proxy (MS-KKDCP), and it is up: it serves POST requests of Kerberos"
        " clients. To test it, write `kdc = ` and this URL into your realm's section of krb5.conf, and run"
        " kinit.",
    ),
    Outcome.PREFLIGHT: Ending(
        status=200, sentence="Scripts of this origin may send requests to this proxy.", keeps_connection=True
    ),
    Outcome.LOOP_DETECTED: Ending(
        status=508,
        sentence="This proxy has forwarded this request before: its KDC proxies forward requests in a loop.",
        keeps_connection=True,
    ),
    Outcome.BODY_TOO_LARGE: Ending(status=413, sentence="The body is larger than the limit of this proxy."),
    Outcome.BODY_TIMEOUT: Ending(status=408, sentence="The body did not arrive in time."),
    Outcome.REFUSED: Ending(
        status=403, sentence="The proxy's policy refuses this request.", keeps_connection=True
    ),
    Outcome.RATE_LIMITED: Ending(
        status=429, sentence="Your network sends too many requests; try again later."
    ),
    Outcome.OVERLOADED: Ending(status=503, sentence="The proxy is overloaded; try again later."),
    Outcome.REALM_NOT_SERVED: Ending(
        status=503,
        sentence="This proxy does not serve the requested Kerberos realm; check the realm's name.",
        keeps_connection=True,
    ),
    Outcome.NO_KDC_KNOWN: Ending(
        status=503,
        sentence="This proxy knows no server for this service of the Kerberos realm.",
        keeps_connection=True,
    ),
    Outcome.DNS_FAILED: Ending(
        status=503,
        sentence="The DNS lookup of the Kerberos realm's servers fails; try again later.",
        keeps_connection=True,
    ),
    Outcome.NO_KDC_REACHED: Ending(
        status=503,
        sentence="The proxy can't reach any server of the Kerberos realm; try again later.",
        keeps_connection=True,
    ),
    Outcome.NO_KDC_REPLY: Ending(
        status=503,
        sentence="A server of the Kerberos realm took the request but sent no usable reply.",
        keeps_connection=True,
    ),
    Outcome.INTERNAL_ERROR: Ending(status=500, sentence="The proxy has a bug; its log has the details."),
}
