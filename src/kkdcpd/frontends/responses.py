"""What an HTTP client is told of each outcome: one table of status and sentence (docs/http.md).

The sentences help the client's administrator; none names an address or a KDC of ours. To a Windows client
every status but 403 means "no logon servers" ([MS-KKDCP] 3.1.5.3); MIT's tries its next proxy at once.
"""

from dataclasses import dataclass

from aiohttp import web

from kkdcpd.values import Outcome

__all__ = ["answer", "refuse"]

SERVER = "kkdcpd"
CONTENT_TYPE = "application/kerberos"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Status and sentence of an outcome without a reply; whether the connection may live on after it."""

    status: int
    sentence: str
    keeps_connection: bool = False


_REFUSALS = {
    Outcome.MALFORMED_HTTP: Refusal(400, "This is not a well-formed HTTP request."),
    Outcome.MALFORMED_MESSAGE: Refusal(
        400, "The body is not a KDC-PROXY-MESSAGE with a well-formed Kerberos request (MS-KKDCP 2.2.2)."
    ),
    Outcome.NO_TARGET_DOMAIN: Refusal(
        400, "The KDC-PROXY-MESSAGE has no target-domain, so the realm is unknown (MS-KKDCP 3.2.5.1)."
    ),
    Outcome.PATH_NOT_FOUND: Refusal(
        404, "Nothing is at this path. A KDC proxy is usually at /KdcProxy; ask its operator."
    ),
    Outcome.METHOD_NOT_ALLOWED: Refusal(
        405,
        "This is a Kerberos KDC proxy (MS-KKDCP) and it is up: it takes POST requests from Kerberos clients."
        " To test it, write `kdc = ` and this URL into your realm's section of krb5.conf, and run kinit.",
    ),
    Outcome.BODY_TOO_LARGE: Refusal(413, "The body is larger than any Kerberos request may be here."),
    Outcome.BODY_TIMEOUT: Refusal(408, "The body did not arrive in time."),
    Outcome.REALM_NOT_SERVED: Refusal(
        503, "The Kerberos realm asked for is not served here; check the realm's name.", keeps_connection=True
    ),
    Outcome.NO_KDC_KNOWN: Refusal(
        503, "No server for this service of the Kerberos realm is known here.", keeps_connection=True
    ),
    Outcome.DNS_FAILED: Refusal(
        503,
        "The servers of the Kerberos realm can't be looked up at the moment; try again later.",
        keeps_connection=True,
    ),
    Outcome.NO_KDC_REACHED: Refusal(
        503,
        "No server of the Kerberos realm can be reached at the moment; try again later.",
        keeps_connection=True,
    ),
    Outcome.NO_KDC_REPLY: Refusal(
        503, "The Kerberos realm's server took the request but sent no usable reply.", keeps_connection=True
    ),
    Outcome.INTERNAL_ERROR: Refusal(500, "The proxy made a mistake; its operator finds it in the log."),
}


def answer(body: bytes, request_id: str) -> web.Response:
    """Build the response that bears a reply."""
    headers = {"Server": SERVER, "Content-Type": CONTENT_TYPE, "x-ms-request-id": request_id}
    return web.Response(body=body, headers=headers)


def refuse(outcome: Outcome, request_id: str) -> web.Response:
    """Build the response to a request that got no reply.

    `x-ms-request-id` is what Kerberos.NET shows its user in an error, and the `id` of our log line.
    """
    refusal = _REFUSALS[outcome]
    headers = {"Server": SERVER, "x-ms-request-id": request_id}
    if refusal.status == 405:
        headers["Allow"] = "POST"
    response = web.Response(status=refusal.status, text=refusal.sentence + "\n", headers=headers)
    if not refusal.keeps_connection:
        response.force_close()
    return response
