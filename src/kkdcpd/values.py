"""The values that cross a layer: frozen dataclasses and enums without behaviour.

This module has no I/O, no parsing and no policy. Names are from RFC 4120, RFC 3244 and [MS-KKDCP].
`kerb_message` always has its 4-byte length (RFC 4120 7.2.2), `payload` never has.
"""

import enum
import math
from dataclasses import field

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.frozen import Word, frozen

__all__ = [
    "Attempt",
    "AttemptFailure",
    "Candidate",
    "ClientCertificate",
    "ClientConnection",
    "ConnectionActivity",
    "ConnectionRefusal",
    "DcLocatorFlags",
    "FailureFacts",
    "FailureReason",
    "KdcReply",
    "KdcService",
    "KdcState",
    "LocateQuery",
    "MessageKind",
    "Mode",
    "Outcome",
    "PrincipalName",
    "ProxyMessage",
    "ProxyRequest",
    "Refusal",
    "RefusedCandidate",
    "ReplyFacts",
    "RequestResult",
    "Route",
    "Rule",
]


class KdcService(Word):
    """The service of an endpoint, with its default port."""

    KDC = "kdc"
    KPASSWD = "kpasswd"

    @property
    def default_port(self) -> int:
        """Port 88 for the KDC (RFC 4120 7.2), 464 for kpasswd (RFC 3244 section 2)."""
        return 88 if self is KdcService.KDC else 464


class DcLocatorFlags(enum.IntFlag):
    """Requirements for a domain controller: the Flags of DsrGetDcNameEx2 ([MS-NRPC] 3.5.4.3.1)."""

    FORCE_REDISCOVERY = 0x00000001
    PDC_REQUIRED = 0x00000080
    IP_REQUIRED = 0x00000200
    KDC_REQUIRED = 0x00000400
    WRITABLE_REQUIRED = 0x00001000
    IS_FLAT_NAME = 0x00010000
    IS_DNS_NAME = 0x00020000
    DIRECTORY_SERVICE_8_REQUIRED = 0x00200000


class MessageKind(Word):
    """The kinds of Kerberos messages that are relayed: requests and replies."""

    AS_REQ = "AS_REQ"
    TGS_REQ = "TGS_REQ"
    KPASSWD_REQ = "KPASSWD_REQ"
    AS_REP = "AS_REP"
    TGS_REP = "TGS_REP"
    KPASSWD_REP = "KPASSWD_REP"
    KRB_ERROR = "KRB_ERROR"


class FailureReason(Word):
    """The reason why an attempt brought no reply.

    SILENT: the KDC has the message and leaves probes unanswered. BUSY: all slots of the endpoint are taken.
    DISPLACED: the slot went to another client network. PORT_LIMIT: there is no local UDP port for the
    client's network. LOCAL_ERROR: this host could not send. SLOW_TO_CONNECT: the connect had not ended when
    the next one began; it goes on.

    From TLS_FAILED on, the reasons belong to KDC proxies: PROXY_REFUSED is status 403, PROXY_RATE_LIMITED
    429, PROXY_UNAVAILABLE 503, PROXY_LOOP 508, PROXY_ERROR any other status but 200. NOT_A_KDC_PROXY is a 200
    without a KDC-PROXY-MESSAGE. WEB_PROXY_FAILED: the web proxy on the way opened no tunnel.
    """

    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect_timeout"
    REPLY_TIMEOUT = "reply_timeout"
    CLOSED = "closed"
    RESET = "reset"
    BAD_REPLY = "bad_reply"
    REPLY_TOO_BIG = "reply_too_big"
    SLOW_TO_CONNECT = "slow_to_connect"
    SILENT = "silent"
    SERVICE_UNAVAILABLE = "service_unavailable"
    BUSY = "busy"
    MESSAGE_TOO_BIG = "message_too_big"
    LOCAL_ERROR = "local_error"
    PORT_LIMIT = "port_limit"
    DISPLACED = "displaced"
    TLS_FAILED = "tls_failed"
    WEB_PROXY_FAILED = "web_proxy_failed"
    NOT_A_KDC_PROXY = "not_a_kdc_proxy"
    PROXY_REFUSED = "proxy_refused"
    PROXY_RATE_LIMITED = "proxy_rate_limited"
    PROXY_UNAVAILABLE = "proxy_unavailable"
    PROXY_LOOP = "proxy_loop"
    PROXY_ERROR = "proxy_error"


class KdcState(Word):
    """The health of an endpoint.

    UNKNOWN: no request has tried the endpoint. SUSPECT: a request failed, and a probe will decide. DOWN: a
    connect failed, or probes were not answered.
    """

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DOWN = "down"


class ConnectionActivity(Word):
    """The activity of a connection.

    IDLE: between two requests. RECEIVING: until a handshake or request is complete. SERVING: until a complete
    request is answered.
    """

    IDLE = "idle"
    RECEIVING = "receiving"
    SERVING = "serving"


class ConnectionRefusal(Word):
    """The reason why a connection is refused, or closed in favour of a new connection."""

    NO_TRUSTED_PROXY = "no trusted proxy"
    MAXIMUM = "connections.maximum"
    PER_CLIENT = "connections.per_client"
    PER_NETWORK = "connections.per_network"
    HANDSHAKE_RATE = "connections.handshake_rate"
    PROXY_HEADER = "PROXY header"


class Outcome(Word):
    """The result of a request: one word that the HTTP status, the log line and the metrics share."""

    ANSWERED = "answered"
    MALFORMED_HTTP = "malformed_http"
    MALFORMED_MESSAGE = "malformed_message"
    NO_TARGET_DOMAIN = "no_target_domain"
    PATH_NOT_FOUND = "path_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    PREFLIGHT = "preflight"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TIMEOUT = "body_timeout"
    LOOP_DETECTED = "loop_detected"
    REFUSED = "refused"
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    REALM_NOT_SERVED = "realm_not_served"
    NO_KDC_KNOWN = "no_kdc_known"
    DNS_FAILED = "dns_failed"
    NO_KDC_REACHED = "no_kdc_reached"
    NO_KDC_REPLY = "no_kdc_reply"
    CLIENT_GONE = "client_gone"
    INTERNAL_ERROR = "internal_error"


class Mode(Word):
    """The effect of a rule on a request that violates it: none, a note in the log line, or a refusal."""

    OFF = "off"
    MONITOR = "monitor"
    ENFORCE = "enforce"


class Rule(Word):
    """The rules of the guard, by their names in settings, log lines, metrics and docs/guard.md."""

    CLIENT_RATE = "client_rate"
    CLIENT_CONCURRENCY = "client_concurrency"
    REALM_RATE = "realm_rate"
    TOTAL_RATE = "total_rate"
    TOTAL_CONCURRENCY = "total_concurrency"
    GUESSING = "guessing"
    SPRAYING = "spraying"
    ENUMERATION = "enumeration"
    KPASSWD_FAILURES = "kpasswd_failures"
    CLIENT_CERTIFICATE = "client_certificate"
    TOKEN = "token"  # noqa: S105 - the name of a rule
    UID = "uid"
    MESSAGE_KIND = "message_kind"
    KPASSWD_SET = "kpasswd_set"
    REALM_MISMATCH = "realm_mismatch"
    REQUIRE_ARMOR = "require_armor"
    WEAK_ETYPES = "weak_etypes"
    UNPROVEN_TICKET = "unproven_ticket"
    INITIAL_SERVICE = "initial_service"
    MANY_SERVICES = "many_services"
    S4U2SELF = "s4u2self"
    S4U2PROXY = "s4u2proxy"
    CNAME = "cname"
    SNAME = "sname"


@frozen
class PrincipalName:
    """A PrincipalName (RFC 4120 5.2.2). Bytes that are not UTF-8 become surrogate escapes."""

    name_type: int
    components: tuple[str, ...]

    def __str__(self) -> str:
        """Join the components by `/`. Ambiguous characters are escaped as in MIT's krb5_unparse_name."""
        text = "/".join(self.components)
        if "@" in text or "\\" in text or text.count("/") >= len(self.components):
            return "/".join(map(_escape_component, self.components))
        return text


def _escape_component(component: str) -> str:
    return component.replace("\\", "\\\\").replace("/", "\\/").replace("@", "\\@")


@frozen
class ProxyMessage:
    """A KDC-PROXY-MESSAGE ([MS-KKDCP] 2.2.2).

    `has_length_prefix` is false if the sender omitted the length, as Apple's clients did up to macOS 14.
    `kerb_message` has the length in any case.
    """

    kerb_message: bytes
    target_domain: str | None = None
    dclocator_hint: int | None = None
    has_length_prefix: bool = True


@frozen
class ProxyRequest:
    """A well-formed request, with all its fields that are in clear.

    `target_domain` is the realm that the client names in the envelope, `realm` the realm in the Kerberos
    message: the KDC's realm of a KDC-REQ, the ticket's realm of a kpasswd request. `cname` is None if it is
    encrypted (TGS-REQ, kpasswd). With FAST the fields in clear may differ from the real ones. `kdc_options`
    are the first 32 bits of KDCOptions, with bit 0 as the highest (RFC 4120 5.4.1). `additional_tickets` is
    their number. `ticket_sname` is the service of the ticket in a TGS-REQ. `affinity` is equal for requests
    that the same KDC should get: the log-on requests of a user, and the requests with the same ticket
    (`ReplyFacts.ticket_affinity`). `via` names the HTTP proxies
    that the request has passed (RFC 9110 7.6.3), as the header that goes on with it.
    """

    kind: MessageKind
    service: KdcService
    target_domain: str
    realm: str
    kerb_message: bytes
    affinity: int = field(default=0, compare=False)
    dclocator_hint: int | None = None
    cname: PrincipalName | None = None
    sname: PrincipalName | None = None
    etypes: tuple[int, ...] = ()
    padata_types: tuple[int, ...] = ()
    kdc_options: int = 0
    additional_tickets: int = 0
    is_armored: bool = False
    ticket_sname: PrincipalName | None = None
    kpasswd_version: int | None = None
    via: str = ""

    @property
    def payload(self) -> bytes:
        """The Kerberos message without its length, as in a UDP datagram."""
        return self.kerb_message[4:]


@frozen
class Attempt:
    """A try of an endpoint within an exchange, numbered from 1."""

    number: int
    endpoint: KdcEndpoint

    def __hash__(self) -> int:
        return self.number


@frozen
class AttemptFailure:
    """The reason why an attempt brought no reply. `may_be_delivered`: the KDC may have the message."""

    endpoint: KdcEndpoint
    reason: FailureReason
    may_be_delivered: bool

    def __str__(self) -> str:
        return f"{self.endpoint} {self.reason.value}"


@frozen
class FailureFacts:
    """Facts about a failure beyond its reason.

    `is_undelivered`: it is certain that no KDC has the message. `retry_after`: the endpoint wants no requests
    for so many seconds.
    """

    is_undelivered: bool = False
    retry_after: float = 0.0


@frozen
class ReplyFacts:
    """The fields of a reply that are in clear.

    `error_code` is the code of a KRB-ERROR (RFC 4120 7.5.9), which may be wrapped in a kpasswd reply.
    `srealm`, `sname` and `ticket_affinity` belong to the ticket in an AS-REP or TGS-REP: its issuer, its
    service, and the `affinity` of requests with this ticket. `offers_spake`: a KDC that demands
    preauthentication accepts SPAKE (RFC 9588).
    """

    kind: MessageKind
    error_code: int | None = None
    crealm: str | None = None
    cname: PrincipalName | None = None
    srealm: str | None = None
    sname: PrincipalName | None = None
    padata_types: tuple[int, ...] = ()
    offers_spake: bool = False
    ticket_affinity: int | None = field(default=None, compare=False)


@frozen
class KdcReply:
    """The reply for the client, with its endpoint and the failures of other attempts."""

    payload: bytes
    facts: ReplyFacts
    endpoint: KdcEndpoint
    attempts: int
    failures: tuple[AttemptFailure, ...] = ()


@frozen
class LocateQuery:
    """A question to the locator. `flags` are the flags of DsrGetDcNameEx2 ([MS-NRPC] 3.5.4.3.1)."""

    target_domain: str
    service: KdcService
    flags: DcLocatorFlags


@frozen
class Candidate:
    """An endpoint that may get a request.

    `priority` and `weight` are as in RFC 2782: the lowest priority comes first. `source` says where the
    endpoint was found, in words for the administrator. `ttl` is the remaining lifetime in seconds, None for
    configured endpoints. `is_fallback`: the endpoint is tried last, such as the UDP of a host that was named
    without a transport.
    """

    endpoint: KdcEndpoint
    priority: int = 0
    weight: int = 0
    source: str
    ttl: float | None = None
    is_fallback: bool = False


@frozen
class RefusedCandidate:
    """A server that was found but must not be used, with the reason."""

    source: str
    target: str
    reason: str


@frozen
class Route:
    """The candidates for a realm and service. `realm` is the configured name, which may be a wildcard.

    `kerberos_realm` is the assumed name of the Kerberos realm; probes use it.
    """

    realm: str
    kerberos_realm: str
    candidates: tuple[Candidate, ...]
    refused: tuple[RefusedCandidate, ...] = ()


@frozen
class RequestResult:
    """The result of a request in the pipeline.

    `reply` is set if the outcome is ANSWERED, and if the guard refused the reply (then for the log only).
    `refusal` is the reason of the guard, `monitored` the rules in monitor mode that would refuse. `detail` is
    for the administrator and may name internal addresses. `upstream_seconds` is the duration of the exchange
    with the KDCs, if there was an exchange.
    """

    outcome: Outcome
    realm: str | None = None
    reply: KdcReply | None = None
    attempts: int = 0
    detail: str | None = None
    refusal: "Refusal | None" = None
    monitored: tuple[Rule, ...] = ()
    upstream_seconds: float | None = None

    @property
    def may_be_delivered(self) -> bool:
        """Whether a KDC may have the message. If not, the client may send it again elsewhere."""
        return self.reply is not None or self.outcome in _MAY_BE_DELIVERED


_MAY_BE_DELIVERED = frozenset({Outcome.NO_KDC_REPLY, Outcome.CLIENT_GONE, Outcome.INTERNAL_ERROR})


@frozen
class Refusal:
    """The reason why the guard refuses. `retry_after` is in seconds, if a later retry may succeed.

    `text` is one plain sentence for the client's administrator, without internal details.
    """

    rule: Rule
    outcome: Outcome
    text: str
    retry_after: float | None = None
    detail: str | None = None


@frozen
class ClientCertificate:
    """A verified client certificate: its subject in the form of RFC 4514, and its subjectAltNames.

    The names are `dns:host.example.com`, `email:user@example.com`, `uri:...`, `upn:user@EXAMPLE.COM`.
    `expires` is in seconds since 1970.
    """

    subject: str
    names: tuple[str, ...]
    expires: float = field(default=math.inf, compare=False)


@frozen
class ClientConnection:
    """A client's connection.

    `address` and `port` belong to the peer (`unix` and 0 for a UNIX socket); `tls` is the TLS version. Behind
    a trusted proxy, `address` is the client's address that the proxy reports, and `proxy` is the proxy's
    address. Limits apply to `network`: the IPv4 address or the IPv6 /64. `token` is a digest of the path
    token of the request, if it has a token. `uid` is the user of the program at the other end of a UNIX
    socket, if the way in knows the user.
    """

    address: str
    port: int = 0
    tls: str | None = None
    network: str = ""
    proxy: str | None = None
    certificate: ClientCertificate | None = None
    token: bytes | None = None
    uid: int | None = None
