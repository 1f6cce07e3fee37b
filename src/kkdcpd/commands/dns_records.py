"""`kkdcpd dns-records`: prints the DNS records by which clients find the KDC proxies of a realm."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from kkdcpd.config.addresses import is_domain_name
from kkdcpd.endpoints import (
    EndpointText,
    EndpointTextError,
    Transport,
    format_host_port,
    parse_endpoint_text,
)
from kkdcpd.frozen import frozen
from kkdcpd.locate.krb5srv import (
    INVALID_HOST,
    format_proxy,
    format_server,
    is_address,
    is_host,
    parse_proxy_url,
)
from kkdcpd.locate.questions import APPLE_PATH, HTTPS_PATH, WSS_PATH
from kkdcpd.locate.records import SrvRecord, UriRecord
from kkdcpd.values import KdcService

__all__ = ["Publication", "Published", "Request", "RequestError", "publish", "render_json", "render_zone"]

_WIDTH = 100

_FIRST_PRIORITY = 10
_STEP = 10
_BEHIND_SERVERS = 100
"""The priority of the first proxy behind the records of KDCs."""

MAX_SERVERS = 9
"""The number of servers of a kind, so that the priorities of KDCs stay below those of proxies."""

_NAMES = {KdcService.KDC: "_kerberos", KdcService.KPASSWD: "_kpasswd"}


class RequestError(Exception):
    """The records cannot be made; the text says why."""


@frozen
class Request:
    """The realm, the URLs of its proxies in the order of preference, and the servers for inside clients."""

    realm: str
    urls: tuple[str, ...]
    kdcs: tuple[str, ...] = ()
    password_servers: tuple[str, ...] = ()


@frozen
class Published:
    """A record with its owner name, without the final dot. `readers` are the programs that look it up."""

    name: str
    record: UriRecord | SrvRecord
    readers: str

    @property
    def type(self) -> str:
        """The type of the record."""
        return "URI" if isinstance(self.record, UriRecord) else "SRV"

    @property
    def data(self) -> str:
        """The data of the record, as in a zone file."""
        # In a zone file, a name without a final dot is relative to the zone.
        return f"{self.record}" if isinstance(self.record, UriRecord) else f"{self.record}."


@frozen
class Publication:
    """The records for a realm, and notes for the administrator."""

    realm: str
    records: tuple[Published, ...]
    notes: tuple[str, ...]


def publish(request: Request) -> Publication:
    """Make the records.

    Raises:
        RequestError: the realm is no domain name, or a URL or server is invalid.
    """
    if not is_domain_name(request.realm):
        raise RequestError(f"{request.realm} is no domain name, so DNS cannot have its records")
    proxies = [(url, _proxy(url)) for url in request.urls]
    if max(map(len, (proxies, request.kdcs, request.password_servers))) > MAX_SERVERS:
        raise RequestError(f"at most {MAX_SERVERS} servers of a kind can be named")
    records = (*_uri_records(request, proxies), *_srv_records(request.realm, [each for _, each in proxies]))
    return Publication(
        realm=request.realm, records=records, notes=tuple(_notes(request, [each for _, each in proxies]))
    )


def render_zone(publication: Publication, ttl: int) -> str:
    """Lay the records out as a part of a zone file, with the notes as comments."""
    lines = [line for note in publication.notes for line in _comment(note)]
    for readers, records in groupby(publication.records, lambda each: each.readers):
        lines += ["", f"; {readers}"]
        lines += [f"{each.name}. {ttl} IN {each.type} {each.data}" for each in records]
    return "\n".join(lines)


def render_json(publication: Publication, ttl: int) -> str:
    """Lay the records out as JSON, for programs that write them into DNS."""
    records = [
        {"name": f"{each.name}.", "ttl": ttl, "type": each.type, "data": each.data, "readers": each.readers}
        for each in publication.records
    ]
    return json.dumps({"realm": publication.realm, "records": records, "notes": publication.notes}, indent=2)


def _comment(note: str) -> list[str]:
    return textwrap.wrap(note, _WIDTH, initial_indent="; ", subsequent_indent=";   ")


def _proxy(url: str) -> EndpointText:
    try:
        return parse_proxy_url(url)
    except EndpointTextError as error:
        raise RequestError(f"{url}: {error.problem}") from error


def _server(text: str, service: KdcService) -> EndpointText:
    try:
        server = parse_endpoint_text(text, default_port=service.default_port)
    except EndpointTextError as error:
        raise RequestError(f"{text}: {error.problem}") from error
    if server.path or "://" in text or not is_host(server.host):
        raise RequestError(f"{text}: {INVALID_HOST}")
    return server


_READERS = {
    KdcService.KDC: "MIT Kerberos 1.15 and later, and kkdcpd, for log-ons and tickets",
    KdcService.KPASSWD: "MIT Kerberos 1.15 and later, and kkdcpd, for password changes",
}


def _uri_records(request: Request, proxies: Sequence[tuple[str, EndpointText]]) -> Iterator[Published]:
    servers = {KdcService.KDC: request.kdcs, KdcService.KPASSWD: request.password_servers}
    for service, label in _NAMES.items():
        own = servers[service]
        for priority, target in (*_server_uris(own, service), *_proxy_uris(proxies, follow=bool(own))):
            yield Published(
                name=f"{label}.{request.realm}",
                record=UriRecord(priority=priority, weight=0, target=target),
                readers=_READERS[service],
            )


def _server_uris(servers: Sequence[str], service: KdcService) -> Iterator[tuple[int, str]]:
    """Name each server over UDP and TCP: MIT's clients try `tcp` records after the proxies (locate_kdc.c)."""
    for number, text in enumerate(servers):
        server = _server(text, service)
        for transport in (Transport.UDP, Transport.TCP):
            host_port = format_host_port(server.host, server.port)
            yield _FIRST_PRIORITY + number * _STEP, format_server(transport, host_port)


def _proxy_uris(proxies: Sequence[tuple[str, EndpointText]], *, follow: bool) -> Iterator[tuple[int, str]]:
    first = _BEHIND_SERVERS if follow else _FIRST_PRIORITY
    for number, (url, _) in enumerate(proxies):
        yield first + number * _STEP, format_proxy(url)


_SRV_NAMES = (
    ("_kkdcp", Transport.HTTPS, f"Apple's clients, with the path {APPLE_PATH}"),
    ("_https", Transport.HTTPS, f"Kerberos.NET, with the path {HTTPS_PATH}"),
    ("_wss", Transport.WSS, f"kkdcpd, with the path {WSS_PATH}"),
)


def _srv_records(realm: str, proxies: Sequence[EndpointText]) -> Iterator[Published]:
    """SRV records have no path and name no IP address, so they fit a part of the proxies only."""
    named = [(number, proxy) for number, proxy in enumerate(proxies) if not is_address(proxy.host)]
    for label, transport, readers in _SRV_NAMES:
        known: dict[tuple[str, int], int] = {}
        for number, proxy in named:
            if transport in proxy.transports:
                known.setdefault((proxy.host, proxy.port), _FIRST_PRIORITY + number * _STEP)
        for (host, port), priority in known.items():
            record = SrvRecord(priority=priority, weight=0, port=port, target=host.removesuffix("."))
            yield Published(name=f"_kerberos.{label}.{realm}", record=record, readers=readers)


def _notes(request: Request, proxies: Sequence[EndpointText]) -> Iterator[str]:
    yield f"These records let clients find the KDC proxies of {request.realm}."
    yield "The flag m spares a client a second look-up and a second try after a failed login."
    yield (
        "Password changes need the records of _kpasswd, because MIT's clients use no proxy that a"
        " record of _kerberos-adm names."
    )
    yield from _notes_on_inside_clients(request)
    yield from _notes_on_paths([proxy for proxy in proxies if Transport.HTTPS in proxy.transports])
    if any(is_address(proxy.host) for proxy in proxies):
        yield "An SRV record cannot name an IP address. So a URL with an IP address has a URI record only."
    if "." not in request.realm:
        yield "Apple's clients look up nothing for a realm without a dot."


def _notes_on_inside_clients(request: Request) -> Iterator[str]:
    if not request.kdcs:
        yield (
            "A client that finds a URI record looks for no SRV record. So clients inside the network"
            " use the proxies, too. To avoid this, publish these records only outside (split horizon),"
            " or add the KDCs with --kdc."
        )
        return
    yield (
        "Keep the udp and the tcp record of each KDC. Without udp, MIT's clients try the proxies"
        " before the KDC, whatever the priorities are. Without tcp, a client that gets a reply too"
        " big for UDP finds no server, because it then uses tcp records only."
    )
    yield (
        "Clients outside try the KDCs for some seconds before the proxies. It is better to"
        " publish the KDCs only inside and the proxies only outside (split horizon)."
    )
    if not request.password_servers:
        yield "Clients inside change passwords through the proxies. To avoid this, add --password-server."


def _notes_on_paths(proxies: Sequence[EndpointText]) -> Iterator[str]:
    if any(proxy.path == "/" for proxy in proxies):
        yield f"A URL has no path. MIT's clients then use the path /, but kkdcpd usually serves {HTTPS_PATH}."
    if proxies:
        yield f"Apple's clients always use the path {APPLE_PATH}. Add it to http.paths of the proxies."
    if any(proxy.path.lower() != HTTPS_PATH.lower() for proxy in proxies):
        yield f"Kerberos.NET uses the path {HTTPS_PATH}. Add it to http.paths of the proxies."
