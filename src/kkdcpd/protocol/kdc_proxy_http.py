"""Speaks HTTP/1.1 to a KDC proxy on one connection, as bytes in and out (RFC 9112, [MS-KKDCP] 3.1.5).

h11 writes requests and reads responses. This module bounds the responses, and judges whether a response has
the reply, or else for what reason not and whether a KDC may have the message.
"""

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

import h11

from kkdcpd.endpoints import format_host_port
from kkdcpd.errors import MalformedError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import kkdcp
from kkdcpd.protocol.framing import PREFIX_BYTES
from kkdcpd.values import FailureFacts, FailureReason, ProxyMessage, ProxyRequest

__all__ = [
    "DELIVERY_HEADER",
    "MAX_ENVELOPE_BYTES",
    "REFUSALS",
    "UNDELIVERED",
    "HttpClient",
    "HttpResponse",
    "ResponseError",
    "Verdict",
    "connect_headers",
    "encode_body",
    "judge",
    "post_headers",
]

USER_AGENT = "kerberos/1.0"
"""The User-Agent of MIT's and Windows' clients. Policies of Entra know it."""

DELIVERY_HEADER = "Kdc-Has-Message"
UNDELIVERED = "no"
"""kkdcpd's header of each response without a reply: `no`, or `maybe`. docs/http.md describes it."""

HTTPS_PORT = 443

MAX_HEAD_BYTES = 16384
MAX_ENVELOPE_BYTES = 64
"""What a KDC-PROXY-MESSAGE has beyond its message."""

MAX_INTERIM_RESPONSES = 8
"""The most responses of status 1xx before the response itself."""

REFUSALS = {
    403: FailureReason.PROXY_REFUSED,
    429: FailureReason.PROXY_RATE_LIMITED,
    503: FailureReason.PROXY_UNAVAILABLE,
    508: FailureReason.PROXY_LOOP,
}
_RESTING = frozenset({429, 503})
"""The statuses with which Retry-After is about the server (RFC 6585 4, RFC 9110 15.6.4)."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_SECONDS = re.compile(r"[0-9]{1,9}")
_KEEP_ALIVE = re.compile(r"(?:^|[\s,])timeout=([0-9]{1,6})", re.IGNORECASE)

Headers = list[tuple[str, str]]


class ResponseError(Exception):
    """The bytes are no response, or the response is too big."""

    def __init__(self, reason: FailureReason) -> None:
        self.reason = reason
        super().__init__(reason.value)


@frozen
class HttpResponse:
    """A whole response.

    `retry_after` and `keep_alive` are in seconds; `keep_alive` is how long the server keeps an idle
    connection, if it says so. `is_undelivered`: the server says that no KDC has the message. `request_id` is
    the id that the server's log has. `is_reusable`: the connection may carry another request.
    """

    status: int
    body: bytes = b""
    is_undelivered: bool = False
    retry_after: float = 0.0
    keep_alive: float | None = None
    request_id: str | None = None
    is_reusable: bool = False


@frozen
class Verdict:
    """The meaning of a response: the payload of the reply, or else the reason why there is none."""

    payload: bytes = b""
    failure: FailureReason | None = None
    facts: FailureFacts = FailureFacts()


class HttpClient:
    """The client's side of one connection. One request at a time."""

    def __init__(self, *, max_reply_bytes: int) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._max_body_bytes = max_reply_bytes + MAX_ENVELOPE_BYTES
        self._begin_response()

    def request(self, method: str, target: str, headers: Headers, body: bytes = b"") -> bytes:
        """Return the bytes of a request. `headers` have the length of the body."""
        connection = self._connection
        if connection.our_state is h11.DONE:
            connection.start_next_cycle()
            self._begin_response()
        parts = [connection.send(h11.Request(method=method, target=target, headers=headers))]
        if body:
            parts.append(connection.send(h11.Data(data=body)))
        parts.append(connection.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    def receive(self, data: bytes) -> HttpResponse | None:
        """Take received bytes, none at the end of the connection; return the response when it is whole.

        Raises:
            ResponseError: there is no such response.
        """
        try:
            self._connection.receive_data(data)
            return self._read()
        except h11.RemoteProtocolError as error:
            reason = FailureReason.BAD_REPLY if data else FailureReason.CLOSED
            raise ResponseError(reason) from error

    def _begin_response(self) -> None:
        self._head: h11.Response | None = None
        self._body = bytearray()
        self._interim_responses = 0

    def _read(self) -> HttpResponse | None:
        while True:
            match self._connection.next_event():
                case h11.Response() as head:
                    self._take_head(head)
                    if self._connection.their_state is h11.SWITCHED_PROTOCOL:  # 200 to CONNECT
                        return self._whole_response()
                case h11.InformationalResponse():
                    self._interim_responses += 1
                    if self._interim_responses > MAX_INTERIM_RESPONSES:
                        raise ResponseError(FailureReason.BAD_REPLY)
                case h11.Data() as part:
                    self._check_size(len(self._body) + len(part.data))
                    self._body += part.data
                case h11.EndOfMessage():
                    return self._whole_response()
                case h11.NEED_DATA:
                    return None
                case _:  # the connection ended before a response
                    raise ResponseError(FailureReason.CLOSED)

    def _take_head(self, head: h11.Response) -> None:
        self._head = head
        announced = _value(head, b"content-length")
        if announced.isdecimal():
            self._check_size(int(announced[:20]))

    def _check_size(self, count: int) -> None:
        if count > self._max_body_bytes:
            raise ResponseError(FailureReason.REPLY_TOO_BIG)

    def _whole_response(self) -> HttpResponse:
        head, connection = self._head, self._connection
        assert head
        request_id = _value(head, b"x-ms-request-id")
        keep_alive = _KEEP_ALIVE.search(_value(head, b"keep-alive"))
        return HttpResponse(
            status=head.status_code,
            body=bytes(self._body),
            is_undelivered=_value(head, DELIVERY_HEADER.lower().encode()).lower() == UNDELIVERED,
            retry_after=_retry_after(head),
            keep_alive=float(keep_alive[1]) if keep_alive else None,
            request_id=request_id if _REQUEST_ID.fullmatch(request_id) else None,
            # Bytes after a response belong to no request: another response may be wrong, too.
            is_reusable=connection.their_state is h11.DONE and not connection.trailing_data[0],
        )


def encode_body(request: ProxyRequest) -> bytes:
    """Return the body for a request: its KDC-PROXY-MESSAGE, nothing for a request without a message."""
    if not request.kerb_message:
        return b""
    return kkdcp.encode_proxy_message(
        ProxyMessage(
            kerb_message=request.kerb_message,
            target_domain=request.target_domain,
            dclocator_hint=request.dclocator_hint,
        )
    )


def post_headers(host: str, port: int, length: int, via: str) -> Headers:
    """Return the headers of a request to a KDC proxy ([MS-KKDCP] 3.1.5.1)."""
    return [
        ("Host", _authority(host, port)),
        ("User-Agent", USER_AGENT),
        ("Content-Type", "application/kerberos"),
        ("Content-Length", str(length)),
        ("Cache-Control", "no-cache"),
        ("Via", via),
    ]


def connect_headers(target: str, authorization: str | None) -> Headers:
    """Return the headers of the CONNECT request to a web proxy (RFC 9110 9.3.6)."""
    headers = [("Host", target), ("User-Agent", USER_AGENT)]
    return [*headers, ("Proxy-Authorization", authorization)] if authorization else headers


def judge(response: HttpResponse, *, is_empty: bool = False) -> Verdict:
    """Return the meaning of a response. `is_empty`: the request had no message, so any 200 is good."""
    if response.status != 200:
        return Verdict(
            failure=REFUSALS.get(response.status, FailureReason.PROXY_ERROR), facts=_facts(response)
        )
    if is_empty:
        return Verdict()
    try:
        message = kkdcp.decode_proxy_message(response.body)
    except MalformedError:
        # A captive portal, for example. What the request passed on its way is unknown.
        return Verdict(failure=FailureReason.NOT_A_KDC_PROXY)
    return Verdict(payload=message.kerb_message[PREFIX_BYTES:])


def _facts(response: HttpResponse) -> FailureFacts:
    retry_after = response.retry_after if response.status in _RESTING else 0.0
    return FailureFacts(is_undelivered=response.is_undelivered, retry_after=retry_after)


def _authority(host: str, port: int) -> str:
    if port != HTTPS_PORT:
        return format_host_port(host, port)
    return f"[{host}]" if ":" in host else host


def _value(head: h11.Response, name: bytes) -> str:
    """Return the value of a header, which h11 has in lower case; values of a repeated header with commas."""
    headers: Iterable[tuple[bytes, bytes]] = head.headers
    return ",".join(value.decode("latin-1") for key, value in headers if key == name)


def _retry_after(head: h11.Response) -> float:
    """Return Retry-After in seconds (RFC 9110 10.2.3). A date counts from the server's own Date."""
    value = _value(head, b"retry-after")
    if _SECONDS.fullmatch(value):
        return float(value)
    if not value:
        return 0.0
    try:
        later, now = (parsedate_to_datetime(date) for date in (value, _value(head, b"date")))
        return max((later - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0
