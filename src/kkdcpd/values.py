"""The values that cross a layer: frozen dataclasses and enums, nothing that acts.

No I/O, no parsing and no policy may live here. Words are those of RFC 4120, RFC 3244 and [MS-KKDCP];
`kerb_message` always bears its 4-octet length (RFC 4120 7.2.2), `payload` never does.
"""

import enum
import math
from dataclasses import field

from kkdcpd.endpoints import KdcEndpoint, Transport
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
    "FailureReason",
    "KdcEndpoint",
    "KdcReply",
    "KdcService",
    "KdcState",
    "LoadDropped",
    "LocateQuery",
    "MessageKind",
    "Mode",
    "Outcome",
    "PrincipalName",
    "ProxyMessage",
    "ProxyRequest",
    "Refusal",
    "RefusedCandidate",
    "ReloadResult",
    "ReplyFacts",
    "RequestResult",
    "Retire",
    "Route",
    "Rule",
    "ServiceStatus",
    "Transport",
]


class KdcService(Word):
    """What an endpoint serves, with the port it has by default."""

    KDC = "kdc"
    KPASSWD = "kpasswd"

    @property
    def default_port(self) -> int:
        """88 for the KDC (RFC 4120 7.2), 464 for kpasswd (RFC 3244 section 2)."""
        return 88 if self is KdcService.KDC else 464


class DcLocatorFlags(enum.IntFlag):
    """What a domain controller must be: Flags of DsrGetDcNameEx2, by the names of [MS-NRPC] 3.5.4.3.1."""

    FORCE_REDISCOVERY = 0x00000001
    PDC_REQUIRED = 0x00000080
    IP_REQUIRED = 0x00000200
    KDC_REQUIRED = 0x00000400
    WRITABLE_REQUIRED = 0x00001000
    IS_FLAT_NAME = 0x00010000
    IS_DNS_NAME = 0x00020000
    DIRECTORY_SERVICE_8_REQUIRED = 0x00200000


class MessageKind(Word):
    """What a kerb-message is: the requests that are relayed and the replies that may come back."""

    AS_REQ = "AS_REQ"
    TGS_REQ = "TGS_REQ"
    KPASSWD_REQ = "KPASSWD_REQ"
    AS_REP = "AS_REP"
    TGS_REP = "TGS_REP"
    KPASSWD_REP = "KPASSWD_REP"
    KRB_ERROR = "KRB_ERROR"


class FailureReason(Word):
    """Why one attempt at one endpoint brought no reply."""

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
    DISPLACED = "displaced"


class KdcState(Word):
    """The health of an endpoint.

    UNKNOWN: no request has tried it. SUSPECT: it failed a request, and a probe will tell. DOWN: it can't be
    connected to, or left probes unanswered.
    """

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    SUSPECT = "suspect"
    DOWN = "down"


class ConnectionActivity(Word):
    """What a connection does: IDLE between two requests, RECEIVING until a handshake or request is whole.

    SERVING while a whole request is being answered.
    """

    IDLE = "idle"
    RECEIVING = "receiving"
    SERVING = "serving"


class ConnectionRefusal(Word):
    """Why a connection is refused, or closed to make room for another one."""

    NO_TRUSTED_PROXY = "no trusted proxy"
    MAXIMUM = "connections.maximum"
    PER_CLIENT = "connections.per_client"
    PER_NETWORK = "connections.per_network"
    HANDSHAKE_RATE = "connections.handshake_rate"
    PROXY_HEADER = "PROXY header"


class Outcome(Word):
    """How a request ended: the one word that status, log line and metrics share."""

    ANSWERED = "answered"
    MALFORMED_HTTP = "malformed_http"
    MALFORMED_MESSAGE = "malformed_message"
    NO_TARGET_DOMAIN = "no_target_domain"
    PATH_NOT_FOUND = "path_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TIMEOUT = "body_timeout"
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
    """What a rule does with what is against it: nothing, a word in the log line, or a refusal."""

    OFF = "off"
    MONITOR = "monitor"
    ENFORCE = "enforce"


class Rule(Word):
    """Why the guard refuses, or would: the rule's name in settings, log line, metrics and docs/guard.md."""

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
    """RFC 4120 5.2.2. Components are UTF-8 where they can be, else surrogate escapes: nothing is lost."""

    name_type: int
    components: tuple[str, ...]

    def __str__(self) -> str:
        """Components joined by `/`, what would be ambiguous escaped as MIT's krb5_unparse_name does."""
        text = "/".join(self.components)
        if "@" in text or "\\" in text or text.count("/") >= len(self.components):
            return "/".join(map(_escape_component, self.components))
        return text


def _escape_component(component: str) -> str:
    return component.replace("\\", "\\\\").replace("/", "\\/").replace("@", "\\@")


@frozen
class ProxyMessage:
    """KDC-PROXY-MESSAGE ([MS-KKDCP] 2.2.2).

    `has_length_prefix` is false when the sender left out the prefix, as Apple's clients did up to macOS 14;
    `kerb_message` bears it all the same.
    """

    kerb_message: bytes
    target_domain: str | None = None
    dclocator_hint: int | None = None
    has_length_prefix: bool = True


@frozen
class ProxyRequest:
    """A request that is known to be well formed, with all of it that can be seen in clear.

    `target_domain` is what the client asked for, `realm` what the inner message names: the KDC's realm of a
    KDC-REQ, the ticket's realm of a kpasswd request. `cname` is None where it is hidden (TGS-REQ, kpasswd).
    With FAST what is in clear need not be what is meant. `kdc_options` are the first 32 of KDCOptions, bit 0
    being the highest (RFC 4120 5.4.1); `additional_tickets` tells how many there are.
    `affinity` is equal for requests that had best meet the same KDC: those of one user logging in, those with
    one ticket (its mark, as in `ReplyFacts`).
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
    kpasswd_version: int | None = None

    @property
    def payload(self) -> bytes:
        """The Kerberos message without its length: a UDP datagram."""
        return self.kerb_message[4:]


@frozen
class Attempt:
    """One try of one endpoint within an exchange, numbered from 1."""

    number: int
    endpoint: KdcEndpoint

    def __hash__(self) -> int:
        return self.number


@frozen
class AttemptFailure:
    """Why an attempt brought no reply. `may_be_delivered`: the KDC may have the message."""

    endpoint: KdcEndpoint
    reason: FailureReason
    may_be_delivered: bool

    def __str__(self) -> str:
        return f"{self.endpoint} {self.reason.value}"


@frozen
class ReplyFacts:
    """What a reply says in clear. `error_code` is that of a KRB-ERROR (RFC 4120 7.5.9), bare or wrapped.

    `srealm`, `sname` and `ticket_affinity` belong to the ticket of an AS-REP or TGS-REP: its issuer,
    its service, and a number that requests with this ticket have as their `affinity`.
    `offers_spake` tells whether a KDC that demands preauthentication takes SPAKE (RFC 9588).
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
    """The reply that goes back to the client, and how it was had: `failures` are those of other attempts."""

    payload: bytes
    facts: ReplyFacts
    endpoint: KdcEndpoint
    attempts: int
    failures: tuple[AttemptFailure, ...] = ()


@frozen
class LocateQuery:
    """What is asked of a locator. `flags` are those of DsrGetDcNameEx2 ([MS-NRPC] 3.5.4.3.1)."""

    target_domain: str
    service: KdcService
    flags: DcLocatorFlags


@frozen
class Candidate:
    """An endpoint that may be asked, with the priority and weight of RFC 2782: the lower priority goes first.

    `source` says where it was found, in words for the operator; `ttl` for how many seconds that holds, None
    for what is configured. `is_fallback` is true of an endpoint that is only asked when nobody else is left:
    the UDP of a host that was named without a transport.
    """

    endpoint: KdcEndpoint
    priority: int = 0
    weight: int = 0
    source: str
    ttl: float | None = None
    is_fallback: bool = False


@frozen
class RefusedCandidate:
    """Something that was found, and why nothing is sent to it."""

    source: str
    target: str
    reason: str


@frozen
class Route:
    """Where a request may go. `realm` is the name as it is configured, a wildcard's included.

    `kerberos_realm` is what its KDCs call themselves, as far as we know: a probe of ours asks for it.
    """

    realm: str
    kerberos_realm: str
    candidates: tuple[Candidate, ...]
    refused: tuple[RefusedCandidate, ...] = ()


@frozen
class RequestResult:
    """What the pipeline made of a request.

    There is a reply when the outcome is ANSWERED, and when a review refused one (for the log alone then).
    `refusal` tells why the guard refused, `monitored` why it would have. `detail` is for the operator: it may
    name internal addresses. `upstream_seconds` is what the exchange with the KDCs took, if there was one.
    """

    outcome: Outcome
    realm: str | None = None
    reply: KdcReply | None = None
    attempts: int = 0
    detail: str | None = None
    refusal: "Refusal | None" = None
    monitored: tuple[Rule, ...] = ()
    upstream_seconds: float | None = None


@frozen
class Refusal:
    """Why the guard refuses: `retry_after` in seconds where trying again later may help.

    `text` is one plain sentence for the client's administrator, without anything that is ours alone.
    """

    rule: Rule
    outcome: Outcome
    text: str
    retry_after: float | None = None
    detail: str | None = None


@frozen
class ClientCertificate:
    """A verified client certificate: its subject as RFC 4514 writes it, and its subjectAltNames.

    The names are `dns:host.example.com`, `email:user@example.com`, `uri:...`, `upn:user@EXAMPLE.COM`. It is
    good until `expires`, in seconds since 1970.
    """

    subject: str
    names: tuple[str, ...]
    expires: float = field(default=math.inf, compare=False)


@frozen
class ClientConnection:
    """Who asks: `address` and `port` of the peer (`unix` and 0 for a unix socket), `tls` its TLS version.

    Behind a trusted proxy `address` is the client's as the proxy tells it, and `proxy` the proxy's own.
    `network` is what limits go by: the address, of IPv6 its /64. `token` is a digest of the path token that
    the request bore, if any.
    """

    address: str
    port: int = 0
    tls: str | None = None
    network: str = ""
    proxy: str | None = None
    certificate: ClientCertificate | None = None
    token: bytes | None = None


@frozen
class ReloadResult:
    """What came of a reload: `at` is in seconds since 1970, `problems` say why it changed nothing."""

    at: float
    is_ok: bool
    problems: tuple[str, ...] = ()


@frozen
class LoadDropped:
    """A worker had a crowd of connections once, hardly anybody is left, and Python keeps what they took."""


@frozen
class Retire:
    """A worker's successor serves: it is to let nobody else in, and to finish with whoever is here."""


@frozen
class ServiceStatus:
    """How the service is, as its parent process knows: `started_at` is in seconds since 1970.

    `generation` is 1 from the start on, and one more after each reload that went well.
    """

    generation: int
    workers_ready: int
    workers_wanted: int
    started_at: float
    is_draining: bool = False
    last_reload: ReloadResult | None = None
