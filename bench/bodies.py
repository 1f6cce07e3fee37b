"""Bodies of requests and replies: captured requests, and replies as of a KDC."""

from tests.support import messages
from tests.support.captured import captured

__all__ = ["KINDS", "REALM", "http_of_mit", "http_of_windows", "reply_to", "request"]

REALM = "FREEIPA.LOCAL"
KINDS = {"AS-REQ": "asreq2", "TGS-REQ": "tgsreq", "kpasswd": "kpasswdreq"}
"""The kinds of requests, by name in tests/support/vectors. The AS-REQ has an encrypted timestamp."""

_USER = (1, ("admin",))
_TAG_AS_REQ = 0x6A
_TAG_TGS_REQ = 0x6C
_ETYPE_INFO2 = bytes.fromhex("301f301da003020112a1161b14") + b"FREEIPA.LOCALadmin.."

_AS_REP = messages.as_rep(realm=REALM, cname=_USER, padata=[(19, _ETYPE_INFO2)])
_TGS_REP = messages.tgs_rep(realm=REALM, cname=_USER, sname=(1, ("HTTP", "ipa.freeipa.local")))
_KPASSWD_REP = messages.kpasswd_rep()

_HEADERS = """\
Host: localhost:{port}
Cache-Control: no-cache
Pragma: no-cache
User-Agent: kerberos/1.0
Content-type: application/kerberos
Content-Length: {length}
"""


def request(kind: str) -> bytes:
    """Return the KDC-PROXY-MESSAGE of this kind."""
    return captured(KINDS[kind])


def reply_to(payload: bytes) -> bytes:
    """Return the payload of the reply of a KDC or password server."""
    if payload[0] == _TAG_AS_REQ:
        return _AS_REP
    return _TGS_REP if payload[0] == _TAG_TGS_REQ else _KPASSWD_REP


def http_of_mit(body: bytes, port: int) -> bytes:
    """Return a request as MIT's client sends it, without keep-alive."""
    return _post("HTTP/1.0", _HEADERS.format(port=port, length=len(body)), body)


def http_of_windows(body: bytes, port: int) -> bytes:
    """Return a request as WinHTTP sends it, over a kept connection."""
    headers = "Connection: Keep-Alive\n" + _HEADERS.format(port=port, length=len(body))
    return _post("HTTP/1.1", headers, body)


def _post(version: str, headers: str, body: bytes) -> bytes:
    head = f"POST /KdcProxy {version}\n{headers}\n"
    return head.replace("\n", "\r\n").encode() + body
