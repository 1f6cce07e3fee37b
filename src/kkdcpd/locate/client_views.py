"""Models how clients without a list of KDCs find the servers of a realm in DNS. Does no I/O itself.

Sources: krb5's locate_kdc.c, dnssrv.c, sendto_kdc.c and changepw.c (1.20); krbhst.c of Apple's Heimdal;
Kerberos.NET's ClientDomainService and transports.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from kkdcpd.endpoints import Transport
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import Word, frozen
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.questions import APPLE_PATH, HTTPS_PATH, Question
from kkdcpd.locate.records import Record, RecordTargets, Target
from kkdcpd.values import KdcService

__all__ = ["LocatingClient", "LookUpStep", "View", "view"]

LookUp = Callable[[str, RecordType], Awaitable[Sequence[Record]]]
"""Looks up a name. Raises DnsFailedError."""

UDP_PREFERENCE_LIMIT = 1465
"""The default size from which on MIT's clients prefer TCP to UDP (udp_preference_limit)."""


class LocatingClient(Word):
    """A family of clients."""

    MIT = "mit"
    APPLE = "apple"
    KERBEROS_NET = "kerberos.net"


@frozen
class LookUpStep:
    """A name that the client looks up, the records with what the client does with them, or the `failure`."""

    record_type: RecordType
    name: str
    uses: tuple[tuple[str, str], ...] = ()
    failure: str = ""


@frozen
class View:
    """The look-ups of a client in their order, the servers in the order of tries, and remarks."""

    client: LocatingClient
    service: KdcService
    steps: tuple[LookUpStep, ...]
    servers: tuple[Target, ...]
    remarks: tuple[str, ...]


async def view(client: LocatingClient, realm: str, service: KdcService, look_up: LookUp) -> View:
    """Look up the names that the client would look up, in the same order, and read the answers as it does."""
    search = _Search(look_up, service)
    find = {
        LocatingClient.MIT: _find_as_mit,
        LocatingClient.APPLE: _find_as_apple,
        LocatingClient.KERBEROS_NET: _find_as_kerberos_net,
    }[client]
    servers, remarks = await find(search, realm)
    return View(
        client=client,
        service=service,
        steps=tuple(search.steps),
        servers=tuple(servers),
        remarks=tuple(remarks),
    )


_Found = tuple[Sequence[Target], Sequence[str]]

_USED = "used"


class _Search:
    """Looks up names one after the other, and notes each step."""

    def __init__(self, look_up: LookUp, service: KdcService) -> None:
        self._look_up = look_up
        self.service = service
        self.steps: list[LookUpStep] = []

    async def uri(self, name: str, skipped: Mapping[Transport, str]) -> RecordTargets:
        """Look up a URI name. `skipped` has the transports that the client does not use, with the reason."""
        return await self._ask(Question(name=name, is_uri=True, transports=tuple(Transport)), skipped)

    async def srv(
        self, name: str, transport: Transport, *, path: str = "", port: int | None = None
    ) -> RecordTargets:
        """Look up an SRV name. `port` replaces the port of the records."""
        return await self._ask(Question(name=name, transports=(transport,), path=path, port=port), {})

    async def _ask(self, question: Question, skipped: Mapping[Transport, str]) -> RecordTargets:
        record_type = RecordType.URI if question.is_uri else RecordType.SRV
        try:
            records = await self._look_up(question.name, record_type)
        except DnsFailedError as error:
            self.steps.append(LookUpStep(record_type=record_type, name=question.name, failure=str(error)))
            return RecordTargets()
        uses: list[tuple[str, str]] = []
        targets: list[Target] = []
        primaries: list[Target] = []
        is_declined = False
        for record in records:
            named = question.read([record], self.service)
            is_declined = is_declined or named.is_declined
            reason = _reason(named, skipped)
            uses.append((str(record), reason))
            if reason == _USED:
                targets += named.targets
                primaries += named.primary_targets
        self.steps.append(LookUpStep(record_type=record_type, name=question.name, uses=tuple(uses)))
        return RecordTargets(
            targets=tuple(sorted(targets, key=lambda target: target.priority)),
            primary_targets=tuple(primaries),
            is_declined=is_declined and not targets,
        )


def _reason(named: RecordTargets, skipped: Mapping[Transport, str]) -> str:
    """Return what the client does with a record."""
    if named.refused:
        return f"skipped: {named.refused[0].reason}"
    if not named.targets:
        return "skipped: the URI belongs to another service"
    reason = skipped.get(named.targets[0].transport)
    return f"skipped: {reason}" if reason else _USED


_NO_WEBSOCKET = {Transport.WSS: "the client knows no WebSocket"}


async def _find_as_mit(search: _Search, realm: str) -> _Found:
    if search.service is KdcService.KPASSWD:
        return await _find_kpasswd_as_mit(search, realm)
    found = await search.uri(f"_kerberos.{realm}", _NO_WEBSOCKET)
    if found.targets:
        return _in_order_of_mit(found.targets), _remarks_on_uris(found)
    servers = await _srv_as_mit(search, "_kerberos", realm)
    return _in_order_of_mit(servers), _remarks_on_size(servers)


async def _find_kpasswd_as_mit(search: _Search, realm: str) -> _Found:
    found = await search.uri(f"_kpasswd.{realm}", _NO_WEBSOCKET)
    servers: Sequence[Target] = found.targets
    if not servers:
        servers = await _srv_as_mit(search, "_kpasswd", realm)
    if not servers and not _is_declined(search):
        servers = await _beside_kadmind_as_mit(search, realm)
    # The client tries all servers without UDP first, and UDP only if none of them answers.
    return sorted(servers, key=lambda target: target.transport is Transport.UDP), []


async def _beside_kadmind_as_mit(search: _Search, realm: str) -> Sequence[Target]:
    """Find the host of the admin server, and use the port of password changes. Only `tcp` URIs count."""
    only_tcp = {
        Transport.UDP: "here the client uses tcp records only",
        Transport.HTTPS: "here the client uses tcp records only; publish it as _kpasswd",
        **_NO_WEBSOCKET,
    }
    port = search.service.default_port
    found = await search.uri(f"_kerberos-adm.{realm}", only_tcp)
    if found.targets:
        return [replace(target, port=port) for target in found.targets]
    return (await search.srv(f"_kerberos-adm._tcp.{realm}", Transport.TCP, port=port)).targets


async def _srv_as_mit(search: _Search, service: str, realm: str) -> Sequence[Target]:
    udp = await search.srv(f"{service}._udp.{realm}", Transport.UDP)
    if udp.is_declined:
        return ()
    return (*udp.targets, *(await search.srv(f"{service}._tcp.{realm}", Transport.TCP)).targets)


def _is_declined(search: _Search) -> bool:
    """Whether the last answer says that the domain does not offer the service."""
    return any(record.endswith(" .") for record, _ in search.steps[-1].uses)


def _in_order_of_mit(servers: Iterable[Target]) -> Sequence[Target]:
    """Put `tcp` last: the client defers it while the request is small."""
    return sorted(servers, key=lambda target: target.transport is Transport.TCP)


def _remarks_on_uris(found: RecordTargets) -> Sequence[str]:
    remarks = ["The client has found a URI record, so it looks for no SRV record."]
    if _is_a_tcp_record_overtaken(found.targets):
        remarks.append(_OVERTAKEN)
    transports = {each.transport for each in found.targets}
    if Transport.UDP in transports and Transport.TCP not in transports:
        remarks.append(_NO_TCP)
    replicas = ", ".join(str(each) for each in found.targets if each not in found.primary_targets)
    if replicas:
        remarks.append(f"{_NO_FLAG} {replicas}")
    return [*remarks, *_remarks_on_size(found.targets)]


def _is_a_tcp_record_overtaken(servers: Sequence[Target]) -> bool:
    priorities = [each.priority for each in servers if each.transport is Transport.TCP]
    return any(
        each.transport is Transport.HTTPS and each.priority > min(priorities, default=each.priority)
        for each in servers
    )


_OVERTAKEN = (
    "A tcp record has a better priority than a proxy, but the client tries the proxy first. Add a udp record"
    " of the same KDC."
)

_NO_TCP = (
    "After a reply that is too big for UDP, the client uses tcp records only, and finds no server. Add a tcp"
    " record of the same KDC."
)

_NO_FLAG = (
    "After a failed login, the client looks for a primary KDC and tries again. The flag m prevents that, but"
    " it is missing at:"
)


def _remarks_on_size(servers: Sequence[Target]) -> Sequence[str]:
    small = list(_in_order_of_mit(servers))
    large = sorted(servers, key=lambda target: target.transport is Transport.UDP)
    if large == small:
        return []
    order = ", ".join(map(str, large))
    return [f"For a request of more than {UDP_PREFERENCE_LIMIT} bytes the order is: {order}."]


async def _find_as_apple(search: _Search, realm: str) -> _Found:
    if "." not in realm:
        return [], ["The client looks up nothing for a realm without a dot."]
    if search.service is KdcService.KPASSWD:
        return await _find_kpasswd_as_apple(search, realm)
    found = await _srv_as_apple(search, "_kerberos", realm)
    proxies = await search.srv(f"_kerberos._kkdcp.{realm}", Transport.HTTPS, path=APPLE_PATH)
    remarks = ["The client looks up a name only when the servers of the names before have not answered."]
    if proxies.targets:
        remarks.append(f"The path is always {APPLE_PATH}: add it to http.paths of the proxies.")
    if found and proxies.targets:
        remarks.append("The client tries the KDCs before the proxies. Publish the KDCs only inside.")
    return [*found, *proxies.targets], remarks


async def _find_kpasswd_as_apple(search: _Search, realm: str) -> _Found:
    found = await _srv_as_apple(search, "_kpasswd", realm)
    if not found:
        port = search.service.default_port
        found = (await search.srv(f"_kerberos-adm._tcp.{realm}", Transport.TCP, port=port)).targets
    return found, [_NO_APPLE_PROXY]


_NO_APPLE_PROXY = (
    "The client finds no proxy for password changes in DNS. Name the proxy in preferredKDCs of its profile."
)


async def _srv_as_apple(search: _Search, service: str, realm: str) -> Sequence[Target]:
    udp = await search.srv(f"{service}._udp.{realm}", Transport.UDP)
    tcp = await search.srv(f"{service}._tcp.{realm}", Transport.TCP)
    return (*udp.targets, *tcp.targets)


async def _find_as_kerberos_net(search: _Search, realm: str) -> _Found:
    if search.service is KdcService.KPASSWD:
        found = await search.srv(f"_kpasswd._tcp.{realm}", Transport.TCP)
        return found.targets, ["The client changes passwords over TCP only, and so through no proxy."]
    servers = await search.srv(f"_kerberos._tcp.{realm}", Transport.TCP)
    proxies = await search.srv(f"_kerberos._https.{realm}", Transport.HTTPS, path=HTTPS_PATH)
    default = f"https://{realm.lower()}{HTTPS_PATH}"
    return [*servers.targets, *proxies.targets], [f"{_OPTIONAL} {default}", _ANY_OF_LOWEST_WEIGHT]


_OPTIONAL = "The client looks up _https only if TryResolvingServiceLocator is set. Otherwise its proxy is"

_ANY_OF_LOWEST_WEIGHT = (
    "The client chooses at random among the records with the lowest weight, whatever the priorities are."
)
