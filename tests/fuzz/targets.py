"""Fuzz targets: all parsers of data from clients, KDCs and DNS servers. Each error that escapes is a bug.

A target catches the expected errors only. It also checks the results where this is cheap: a decoded message
encodes to the same bytes, a reply can be decoded, a log entry is one line.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import dns.name

from kkdcpd import via
from kkdcpd.config import (
    FailuresConfig,
    LocateConfig,
    PolicyConfig,
    PrincipalPattern,
    RealmConfig,
    read_config,
)
from kkdcpd.config.addresses import (
    parse_endpoint,
    parse_listen_address,
    parse_nameserver,
    parse_source_address,
    parse_trusted_network,
)
from kkdcpd.config.krb5_conf import import_realms, is_dns_allowed
from kkdcpd.config.krb5_profile import read_profile
from kkdcpd.config.resolv_conf import read_resolv_conf
from kkdcpd.endpoints import KDC_TRANSPORTS, PROXY_TRANSPORTS, KdcEndpoint, Transport
from kkdcpd.errors import (
    BodyTooLargeError,
    ConfigError,
    LocateError,
    LoopDetectedError,
    MalformedError,
    NoTargetDomainError,
    SettingError,
)
from kkdcpd.guard.failures import FailureGate
from kkdcpd.guard.policy import RealmPolicy
from kkdcpd.guard.subject import find_subject
from kkdcpd.locate.candidates import MAX_CANDIDATES, MAX_HOSTS, MAX_REFUSED, MAX_WILDCARD_HOSTS
from kkdcpd.locate.dns_wire import MAX_RECORDS, FoundRecords, RecordType, build_query, read_response
from kkdcpd.locate.locator import assemble_locator
from kkdcpd.locate.records import Record, SrvRecord, UriRecord, demote_udp_duplicates, read_srv, read_uri
from kkdcpd.log.lines import JsonLines, TextLines
from kkdcpd.metrics.counters import Counters
from kkdcpd.pipeline.access_log import AccessLog, AccessRecord
from kkdcpd.protocol.cldap import decode_ping_answer
from kkdcpd.protocol.dclocator import flags_of
from kkdcpd.protocol.error_codes import KrbErrorCode
from kkdcpd.protocol.exchange import Connect, Exchange, ExchangeLimits, Send
from kkdcpd.protocol.forwarded import client_address
from kkdcpd.protocol.framing import MessageReader, add_prefix
from kkdcpd.protocol.heimdal_http import HttpReader
from kkdcpd.protocol.ip_addresses import networks_of, parse_address, parse_network
from kkdcpd.protocol.kdc_proxy_http import (
    MAX_ENVELOPE_BYTES,
    HttpClient,
    HttpResponse,
    ResponseError,
    judge,
)
from kkdcpd.protocol.kkdcp import decode_proxy_message, encode_proxy_message
from kkdcpd.protocol.kpasswd import is_kpasswd, read_kpasswd_reply, read_kpasswd_req
from kkdcpd.protocol.krb_error import build_error
from kkdcpd.protocol.messages import classify, classify_bare, inspect_reply, is_reply_to_another_kind
from kkdcpd.protocol.probe import judge_probe
from kkdcpd.protocol.proxy_header import MAX_HEADER_BYTES, parse
from kkdcpd.protocol.resending import is_repeatable
from kkdcpd.protocol.tunnel import Event, GoneAway, Refused, Requester, Responder
from kkdcpd.protocol.x509 import read_certificate, read_crl
from kkdcpd.values import (
    Attempt,
    Candidate,
    ClientConnection,
    DcLocatorFlags,
    KdcReply,
    KdcService,
    LocateQuery,
    MessageKind,
    Mode,
    Outcome,
    ProxyMessage,
    ProxyRequest,
    ReplyFacts,
    RequestResult,
)
from tests.fuzz import seeds
from tests.support import messages
from tests.support.shared import own_table

__all__ = ["TARGETS", "Target", "request_in"]

REALM = RealmConfig(name="EXAMPLE.COM", aliases=("CORP",))
MANY = 64  # the most lines of one input; a loop with a quadratic cost shows with many lines only
EMPTY = add_prefix(b"")
MAX_STREAM_MESSAGE_BYTES = 4096
NOW = 1_800_000_000.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A target: `run` must not raise for any data. `is_der` selects the mutations."""

    run: Callable[[bytes], None]
    seeds: Sequence[bytes]
    is_der: bool = False


def _envelope(data: bytes) -> None:
    try:
        message = decode_proxy_message(data)
    except MalformedError:
        return
    if message.kerb_message != EMPTY:  # an empty message has no length prefix when it is decoded
        again = decode_proxy_message(encode_proxy_message(message))
        assert again == replace(message, has_length_prefix=True)
    flags_of(message.dclocator_hint, is_armored=True)
    _classified(message)


def _classified(message: ProxyMessage) -> ProxyRequest | None:
    try:
        return classify(message)
    except (MalformedError, NoTargetDomainError):
        return None


def request_in(data: bytes) -> ProxyRequest | None:
    """Return the request in a payload, or None if the payload is malformed."""
    return _classified(ProxyMessage(kerb_message=add_prefix(data), target_domain=REALM.name))


def _request(data: bytes) -> None:
    request = request_in(data)
    if request:
        assert request.payload == data
        assert is_kpasswd(data, (0, len(data))) is (request.kind is MessageKind.KPASSWD_REQ)
        is_repeatable(request)
        hash(request)


def _local_stream(data: bytes) -> None:
    """Read a stream whole and in two pieces: the messages are the same, and no byte is lost."""
    whole = _messages_of(data)
    cut = len(data) // 3
    assert _messages_of(data[:cut], data[cut:]) == whole
    assert data.startswith(b"".join(whole))
    for message in whole:
        with contextlib.suppress(MalformedError):
            request = classify_bare(message)
            assert request.target_domain == request.realm


def _messages_of(*pieces: bytes) -> list[bytes]:
    reader, found = MessageReader(MAX_STREAM_MESSAGE_BYTES), []
    with contextlib.suppress(BodyTooLargeError):
        for piece in pieces:
            reader.feed(piece)
            while (message := reader.next_message()) is not None:
                found.append(message)
    return found


def _heimdal_http(data: bytes) -> None:
    reader = HttpReader(MAX_STREAM_MESSAGE_BYTES)
    with contextlib.suppress(BodyTooLargeError, MalformedError):
        for piece in (data[:9], data[9:]):
            reader.feed(piece)
            message = reader.next_message()
            assert message is None or len(message) <= MAX_STREAM_MESSAGE_BYTES + len(EMPTY)


_MODES = (
    "kpasswd_set",
    "realm_mismatch",
    "require_armor",
    "weak_etypes",
    "unproven_ticket",
    "initial_service",
    "many_services",
    "s4u2self",
    "s4u2proxy",
    "message_kind",
    "cname",
    "sname",
)
_PATTERNS = {
    name: (PrincipalPattern("*a*/*"), PrincipalPattern("x"))
    for name in ("cname_allow", "cname_deny", "sname_allow", "sname_deny")
}
_ENFORCING = PolicyConfig(
    message_kinds=(MessageKind.AS_REQ,),
    services=1,
    **dict.fromkeys(_MODES, Mode.ENFORCE),  # type: ignore[arg-type]
    **_PATTERNS,  # type: ignore[arg-type]
)
POLICIES = tuple(
    map(RealmPolicy, (REALM, replace(REALM, policy=_ENFORCING), RealmConfig(name="*.COM", policy=_ENFORCING)))
)
STORE = own_table(1024)
GATE = FailureGate(FailuresConfig(), STORE)
CLOCK = itertools.count(1000)


def _facts_in(kind: MessageKind, data: bytes) -> ReplyFacts | None:
    try:
        return inspect_reply(kind, data)
    except MalformedError:
        return None


def _policy(data: bytes) -> None:
    request = request_in(data)
    if request:
        for facts in SOME_REPLIES[request.kind]:
            _judge(request, facts)


def _reply(data: bytes) -> None:
    judge_probe(data)
    for kind, requests in SOME_REQUESTS.items():
        facts = _facts_in(kind, data)
        for request in requests if facts else ():
            assert facts
            _judge(request, facts)


class _Known:
    """Stands for the health of endpoints; all are unknown."""

    def note_overflow(self, endpoint: KdcEndpoint) -> None:
        pass

    def has_overflowed(self, endpoint: KdcEndpoint) -> bool:
        del endpoint
        return False

    def is_dead(self, endpoint: KdcEndpoint, since: float) -> bool:
        del endpoint, since
        return False

    def take(self) -> bool:
        return True


LIMITS = ExchangeLimits(
    connect_timeout=1.5, reach_timeout=5.0, reply_timeout=20.0, stagger=0.25, hedge_delay=0.4
)


def _foreign_reply(data: bytes) -> None:
    """Handle a reply to another request. It is dropped only if it fits no request of this kind."""
    for kind, requests in SOME_REQUESTS.items():
        facts = _facts_in(kind, data)
        if is_reply_to_another_kind(kind, data):
            assert facts is None
            continue
        for request in requests[:1]:
            _exchanged(request, facts, data)


def _exchanged(request: ProxyRequest, facts: ReplyFacts | None, data: bytes) -> None:
    """Let two KDCs send the same reply at the same time."""
    candidates = [
        Candidate(endpoint=replace(ENDPOINT, port=port, transport=Transport.UDP), source="fuzz")
        for port in (88, 89)
    ]
    exchange = Exchange(
        request, candidates, limits=LIMITS, hedges=_Known(), health=_Known(), facts=_Known(), now=0.0
    )
    sent: list[Attempt] = []
    for now in (0.0, 0.5, 0.5, 1.5):
        for command in exchange.due(now):
            if isinstance(command, Connect):
                exchange.connected(command.attempt, now)
            elif isinstance(command, Send) and command.attempt not in sent:
                sent.append(command.attempt)
    for attempt in sent:
        exchange.received(attempt, data, 2.0)
    exchange.due(30.0)
    assert exchange.reply or exchange.error
    if exchange.reply:
        assert exchange.reply.facts == facts


def _judge(request: ProxyRequest, facts: ReplyFacts) -> None:
    now = float(next(CLOCK))
    for policy in POLICIES:
        findings = [*policy.check_request(request), *policy.check_reply(request, facts)]
        findings += filter(None, [policy.check_services(facts, REALM.name, "192.0.2.1", STORE, now)])
        assert all(finding.refusal.detail for finding in findings)
    GATE.check(request, client="192.0.2.1", realm=REALM.name, now=now)
    GATE.note(request, facts, client="192.0.2.1", realm=REALM.name, now=now)


def _fast_error(data: bytes) -> None:
    """Count a reply to a FAST request with any visible name for a valid name."""
    facts = _facts_in(MessageKind.AS_REQ, data)
    for request in ARMORED_REQUESTS if facts else ():
        assert facts
        subject = find_subject(request, facts)
        assert subject.name is None or (subject.name and "\0" not in subject.name)
        assert not (subject.is_shown and subject.name is None)
        _judge(request, facts)


def _refusal(data: bytes) -> None:
    """Refuse any valid request by a KRB-ERROR that the client can decode."""
    request = request_in(data)
    if request is None:
        return
    text = "Not through this proxy."
    payload = build_error(KrbErrorCode.KDC_ERR_POLICY, text, request=request, now=NOW)
    facts = inspect_reply(request.kind, payload)
    assert facts.error_code == KrbErrorCode.KDC_ERR_POLICY
    assert request.sname in {None, facts.sname}
    assert text.encode() in payload
    reply = encode_proxy_message(ProxyMessage(kerb_message=add_prefix(payload)))
    assert decode_proxy_message(reply).kerb_message[4:] == payload


def _log(data: bytes) -> None:
    """Log any valid request as one line, in both formats."""
    request = request_in(data)
    if request is None:
        return
    for facts in SOME_REPLIES[request.kind]:
        reply = KdcReply(payload=b"", facts=facts, endpoint=ENDPOINT, attempts=1)
        result = RequestResult(outcome=Outcome.ANSWERED, reply=reply, attempts=1, detail=request.realm)
        record = replace(RECORD, request=request, result=result)
        for line in _lines_of(record):
            assert line.isprintable()
            assert line.isascii()


ENDPOINT = KdcEndpoint(name="kdc1", address="192.0.2.1", port=88, transport=Transport.TCP)
RECORD = AccessRecord(
    request_id="0123abcd",
    client=ClientConnection(address="192.0.2.7"),
    result=RequestResult(outcome=Outcome.ANSWERED),
    request=None,
    status=200,
    seconds=0.001,
    bytes_in=1,
    bytes_out=1,
)
ACCESS_LOG = AccessLog(Counters.discarding())
FORMS = TextLines(), JsonLines()


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = record.fields  # type: ignore[attr-defined]
        self.lines = [form.render(record, fields).decode("ascii").removesuffix("\n") for form in FORMS]


def _lines_of(record: AccessRecord) -> Sequence[str]:
    logger = logging.getLogger(AccessLog.__module__)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_LINES)
    try:
        ACCESS_LOG.enter(record)
    finally:
        logger.removeHandler(_LINES)
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    return _LINES.lines


_LINES = _Lines()


def _kpasswd(data: bytes) -> None:
    """Read the data as they are, and in a frame with correct lengths."""
    version = 0xFF80 if data[:1] == b"\1" else 1
    body = data[3:]
    length = min(int.from_bytes(data[1:3], "big"), len(body))
    header = ((len(body) + 6) & 0xFFFF, version, length)
    for message in (data, b"".join(number.to_bytes(2, "big") for number in header) + body):
        for read in (read_kpasswd_req, read_kpasswd_reply):
            with contextlib.suppress(MalformedError):
                read(message, (0, len(message)))


def _ping(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        answer = decode_ping_answer(data)
        if answer.facts:
            names = (answer.facts.forest, answer.facts.domain, answer.facts.host, answer.facts.client_site)
            assert all(len(name) <= 256 for name in names)
            str(answer.facts)


_GRAPHIC = re.compile("[!-~]+")


def _records(data: bytes) -> None:
    """Read each line as the target of a URI record and of an SRV record."""
    targets = [line.decode("ascii", "backslashreplace") for line in data.split(b"\n", MANY)[:MANY]]
    records = [UriRecord(priority=1, weight=2, target=target) for target in targets]
    for service, transports in itertools.product(KdcService, (KDC_TRANSPORTS, PROXY_TRANSPORTS)):
        named = read_uri(records, name="_kerberos.x", service=service, transports=transports)
        for target in demote_udp_duplicates(named.targets):
            assert 0 < target.port < 65536
            assert target.host
            assert target.transport in transports
            assert transports == KDC_TRANSPORTS or _GRAPHIC.fullmatch(str(target))
        str(named.refused)
    hosts = [SrvRecord(priority=1, weight=2, port=88, target=target) for target in targets]
    demote_udp_duplicates(read_srv(hosts, name="_kerberos._tcp.x", transports=KDC_TRANSPORTS).targets)


def _dns(data: bytes) -> None:
    """Read a response of a hostile DNS server to a query with the same id."""
    for record_type in RecordType:
        query = build_query(DNS_NAME, record_type, with_edns=True)
        query.id = int.from_bytes(data[:2], "big")
        response = read_response(query, data)
        if response and response.found:
            records = response.found.records
            assert len(records) <= MAX_RECORDS
            uris = [each for each in records if isinstance(each, UriRecord)]
            read_uri(uris, name="_kerberos.x", service=KdcService.KDC)
            servers = [each for each in records if isinstance(each, SrvRecord)]
            demote_udp_duplicates(
                read_srv(servers, name="_kerberos._tcp.x", transports=KDC_TRANSPORTS).targets
            )


class _BulkDns:
    """A hostile DNS server: each answer has all lines of the input as records of the type."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.hosts: set[str] = set()
        addresses = [address for line in lines if (address := _address_in(line))]
        self._records: Mapping[RecordType, Sequence[Record]] = {
            RecordType.URI: [UriRecord(priority=1, weight=2, target=line) for line in lines],
            RecordType.SRV: [
                SrvRecord(priority=number, weight=1, port=88 + number % 2, target=line)
                for number, line in enumerate(lines)
            ],
            RecordType.A: [address for address in addresses if ":" not in address],
            RecordType.AAAA: [address for address in addresses if ":" in address],
        }

    async def query(self, name: str, record_type: RecordType) -> FoundRecords:
        if record_type in {RecordType.A, RecordType.AAAA}:
            self.hosts.add(name)
        return FoundRecords(records=tuple(self._records[record_type]), ttl=60)


def _address_in(text: str) -> str | None:
    with contextlib.suppress(ValueError):
        return str(parse_address(text)) if "%" not in text else None
    return None


async def _check_discovery(lines: Sequence[str], name: str, most_hosts: int) -> None:
    hostile = _BulkDns(lines)
    realms = [RealmConfig(name="EXAMPLE.COM"), RealmConfig(name="*.EXAMPLE.ORG")]
    query = LocateQuery(target_domain=name, service=KdcService.KDC, flags=DcLocatorFlags(0))
    async with assemble_locator(realms, LocateConfig(), query=hostile.query) as locator:
        with contextlib.suppress(LocateError):
            route = await locator.locate(query)
            assert len(route.candidates) <= MAX_CANDIDATES
            assert len(route.refused) <= MAX_REFUSED
            for candidate in route.candidates:
                address = ipaddress.ip_address(candidate.endpoint.address)
                assert candidate.endpoint.port in {88, 464}
                special = (address.is_loopback, address.is_link_local, address.is_multicast)
                assert not any(special)
    assert len(hostile.hosts) <= most_hosts


def _discovery(data: bytes) -> None:
    """Locate realms by hostile DNS answers in bulk: routes are bounded and have no special addresses."""
    lines = [
        line.decode("ascii", "backslashreplace") for line in data.split(b"\n", MAX_RECORDS)[:MAX_RECORDS]
    ]
    RUNNER.run(_check_discovery(lines, "EXAMPLE.COM", MAX_HOSTS))
    RUNNER.run(_check_discovery(lines, "A.EXAMPLE.ORG", MAX_WILDCARD_HOSTS))


RUNNER = asyncio.Runner()


def _resolv_conf(data: bytes) -> None:
    resolver = read_resolv_conf(data.decode(errors="replace"), "/etc/resolv.conf")
    assert 1 <= len(resolver.nameservers) <= 3
    for warning in resolver.warnings:
        assert str(warning).isprintable()


def _proxy_header(data: bytes) -> None:
    try:
        header, used = parse(data)
    except MalformedError:
        return
    if header is None:
        assert used == 0
        assert len(data) < MAX_HEADER_BYTES
        return
    assert 0 < used <= min(len(data), MAX_HEADER_BYTES)
    assert parse(data[:used]) == (header, used)
    assert parse(data[: used - 1]) == (None, 0)
    assert 0 <= header.port <= 65535
    if header.address:
        _canonical(header.address)


NAT64 = ip_network("64:ff9b::/96")
"""An IPv4 address below it counts as the IPv4 address."""


def _canonical(address: str) -> None:
    """Check that an address has its canonical form, and that its networks contain it."""
    parsed = ipaddress.ip_address(address)
    assert str(parsed) == address
    assert not isinstance(parsed, ipaddress.IPv6Address) or not parsed.ipv4_mapped
    networks = networks_of(address)
    if parsed in NAT64:
        parsed = ipaddress.ip_address(int(parsed) & 0xFFFFFFFF)
    assert networks[0] == str(parsed) or "/64" in networks[0]
    assert all(parsed in ip_network(network) for network in networks)


def _addresses(data: bytes) -> None:
    """Read each line as an address, a network and a setting."""
    for line in data.decode("ascii", "replace").split("\n", MANY)[:MANY]:
        with contextlib.suppress(ValueError):
            address = parse_address(line)
            assert parse_address(str(address)) == address
            if "%" not in line:
                _canonical(str(address))
        with contextlib.suppress(ValueError):
            network = parse_network(line)
            assert parse_network(str(network)) == network
        for read in ADDRESS_SETTINGS:
            with contextlib.suppress(SettingError):
                read(line)


ADDRESS_SETTINGS: Sequence[Callable[[str], object]] = (
    parse_listen_address,
    partial(parse_endpoint, service=KdcService.KDC),
    parse_nameserver,
    parse_source_address,
    parse_trusted_network,
)


TRUSTED = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
DNS_NAME = dns.name.from_text("_kerberos.example.com")
STRANGER = "198.51.100.7"


def _forwarded(data: bytes) -> None:
    """Read each line as a value of the header, as aiohttp decodes it."""
    values = [line.decode("utf-8", "surrogateescape") for line in data.split(b"\n", MANY)[:MANY]]
    for peer in ("192.0.2.1", "unix"):
        for address in (
            client_address(values, peer, TRUSTED, header="x-forwarded-for"),
            client_address(values, peer, TRUSTED, header="forwarded"),
        ):
            if address != peer:
                _canonical(address)
    assert client_address(values, STRANGER, TRUSTED, header="forwarded") == STRANGER


MAX_REPLY_BYTES = 4096


def _http_reply(data: bytes) -> None:
    """Read a KDC proxy's response, whole and in two parts: the parts have the same meaning."""
    whole = _response_in([data])
    middle = data[0] * len(data) // 256 if data else 0
    parts = _response_in([data[:middle], data[middle:]])
    if whole and parts:
        assert (whole.status, whole.body) == (parts.status, parts.body)


def _response_in(parts: Sequence[bytes]) -> HttpResponse | None:
    client = HttpClient(max_reply_bytes=MAX_REPLY_BYTES)
    client.request("POST", "/", [("Host", "proxy.test"), ("Content-Length", "1")], b"x")
    try:
        # Without bytes, the connection ends.
        found = [client.receive(part) for part in parts if part][-1:] or [client.receive(b"")]
    except ResponseError:
        return None
    response = found[0]
    if response:
        assert len(response.body) <= MAX_REPLY_BYTES + MAX_ENVELOPE_BYTES
        verdict = judge(response)
        assert not (verdict.failure and verdict.payload)
        assert verdict.failure or response.status == 200
        assert 0 <= verdict.facts.retry_after < math.inf
    return response


def _via(data: bytes) -> None:
    values = [line.decode("utf-8", "surrogateescape") for line in data.split(b"\n", MANY)[:MANY]]
    with contextlib.suppress(LoopDetectedError):
        assert re.fullmatch("[ -~]+", via.extend(values))


MAIN = Path("/etc/krb5.conf")


@dataclass(frozen=True, slots=True)
class _Files:
    """The text of krb5.conf, and of all files that it includes."""

    main: str
    other: str

    def text(self, path: Path) -> str:
        return self.main if path == MAIN else self.other

    def names(self, directory: Path) -> Sequence[str]:
        if directory == MAIN:
            raise SettingError("is no directory")
        return ("a", "b.conf", ".hidden", "c~")


def _profile(data: bytes) -> None:
    main, _, other = data.decode(errors="replace").partition("\0")
    with contextlib.suppress(ConfigError):
        relations = read_profile(MAIN, _Files(main, other[:64]), key="krb5_conf")
        is_dns_allowed(relations)
        import_realms((REALM, RealmConfig(name="*.example.com")), relations)


def _settings(data: bytes) -> None:
    with contextlib.suppress(ConfigError):
        read_config(data.decode(errors="replace"), source=Path("/etc/kkdcpd/config.toml"))


def _certificate(data: bytes) -> None:
    for read in (read_certificate, read_crl):
        with contextlib.suppress(MalformedError):
            str(read(data))


def _tunnel(data: bytes) -> None:
    """Give the same frame to both ends, twice: the second may violate a rule that the first one set."""
    requester, responder = Requester(), Responder()
    numbers = [requester.request(b"")[0] for _ in range(4)]
    for _ in range(2):
        with contextlib.suppress(MalformedError):
            _check_tunnel_event(requester.receive(data), numbers)
        with contextlib.suppress(MalformedError):
            request = responder.receive(data)
            assert request is None or data.endswith(request.envelope)


def _check_tunnel_event(event: Event | None, numbers: Sequence[int]) -> None:
    if isinstance(event, GoneAway):
        assert set(event.untouched) <= set(numbers)
    elif event:
        assert event.number in numbers
    if isinstance(event, Refused):
        # A refusal can be passed on.
        passed_on, receiver = Responder(), Requester()
        _, frame = receiver.request(b"")
        passed_on.receive(frame)
        assert receiver.receive(passed_on.refuse(1, event.refusal))


SOME_REPLIES: Mapping[MessageKind, Sequence[ReplyFacts]] = {
    kind: tuple(facts for data in seeds.REPLIES if (facts := _facts_in(kind, data)))
    for kind in (MessageKind.AS_REQ, MessageKind.TGS_REQ, MessageKind.KPASSWD_REQ)
}
SOME_REQUESTS: Mapping[MessageKind, Sequence[ProxyRequest]] = {
    kind: tuple(request for data in seeds.REQUESTS if (request := request_in(data)) and request.kind is kind)[
        :4
    ]
    for kind in (MessageKind.AS_REQ, MessageKind.TGS_REQ, MessageKind.KPASSWD_REQ)
}

ARMORED_REQUESTS: Sequence[ProxyRequest] = tuple(
    request
    for cname in (None, (1, ("alice",)), (1, ("constant",)), (11, ("WELLKNOWN", "ANONYMOUS")))
    if (request := request_in(messages.as_req(cname=cname, padata=[(messages.PA_FX_FAST, b"armor")])))
)

TARGETS: Mapping[str, Target] = {
    "envelope": Target(run=_envelope, seeds=seeds.ENVELOPES, is_der=True),
    "request": Target(run=_request, seeds=seeds.REQUESTS, is_der=True),
    "local_stream": Target(run=_local_stream, seeds=seeds.STREAMS),
    "heimdal_http": Target(run=_heimdal_http, seeds=seeds.HEIMDAL_HTTP),
    "policy": Target(run=_policy, seeds=seeds.REQUESTS, is_der=True),
    "refusal": Target(run=_refusal, seeds=seeds.REQUESTS, is_der=True),
    "log": Target(run=_log, seeds=seeds.REQUESTS, is_der=True),
    "reply": Target(run=_reply, seeds=seeds.REPLIES, is_der=True),
    "fast_error": Target(run=_fast_error, seeds=seeds.FAST_ERRORS, is_der=True),
    "foreign_reply": Target(run=_foreign_reply, seeds=seeds.REPLIES, is_der=True),
    "kpasswd": Target(run=_kpasswd, seeds=seeds.KPASSWD, is_der=True),
    "cldap": Target(run=_ping, seeds=seeds.PINGS, is_der=True),
    "records": Target(run=_records, seeds=seeds.RECORDS),
    "dns": Target(run=_dns, seeds=seeds.DNS_RESPONSES),
    "discovery": Target(run=_discovery, seeds=seeds.BULK_RECORDS),
    "resolv_conf": Target(run=_resolv_conf, seeds=seeds.RESOLV_CONFS),
    "proxy_header": Target(run=_proxy_header, seeds=seeds.PROXY_HEADERS),
    "forwarded": Target(run=_forwarded, seeds=seeds.FORWARDED),
    "http_reply": Target(run=_http_reply, seeds=seeds.HTTP_RESPONSES),
    "via": Target(run=_via, seeds=seeds.VIA),
    "addresses": Target(run=_addresses, seeds=seeds.ADDRESSES),
    "krb5_conf": Target(run=_profile, seeds=seeds.PROFILES),
    "config": Target(run=_settings, seeds=seeds.SETTINGS),
    "x509": Target(run=_certificate, seeds=seeds.CERTIFICATES, is_der=True),
    "tunnel": Target(run=_tunnel, seeds=seeds.TUNNEL_FRAMES),
}
