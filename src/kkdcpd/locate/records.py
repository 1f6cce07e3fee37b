"""Reads the servers of a realm from SRV records (RFC 2782) and URI records (RFC 7553).

`krb5srv` reads the text of a URI. Pure: this module asks no DNS server and checks no address.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from kkdcpd.endpoints import (
    KDC_TRANSPORTS,
    PROXY_TRANSPORTS,
    EndpointTextError,
    Transport,
    format_host_port,
)
from kkdcpd.frozen import frozen
from kkdcpd.locate.krb5srv import INVALID_HOST, is_host, parse_krb5srv
from kkdcpd.values import KdcService, RefusedCandidate

__all__ = [
    "Record",
    "RecordTargets",
    "SrvRecord",
    "Target",
    "UriRecord",
    "demote_udp_duplicates",
    "drop_repeated_servers",
    "read_srv",
    "read_uri",
]

NOT_OFFERED = "."
"""RFC 2782: with the root as target, a domain says that it does not offer the service."""

_PROXY_UNWANTED = "the record names a KDC proxy; only discovery of proxies uses it"
_KDC_UNWANTED = "the record names no KDC proxy; discovery of proxies does not use it"


@frozen
class SrvRecord:
    """An SRV record (RFC 2782). `target` has no root dot, unless it is the root."""

    priority: int
    weight: int
    port: int
    target: str

    def __str__(self) -> str:
        """Write the record as in a zone file."""
        return f"{self.priority} {self.weight} {self.port} {self.target}"


@frozen
class UriRecord:
    """A URI record (RFC 7553 4)."""

    priority: int
    weight: int
    target: str

    def __str__(self) -> str:
        """Write the record as in a zone file."""
        return f'{self.priority} {self.weight} "{self.target}"'


Record = SrvRecord | UriRecord | str
"""The data of a record; an address is a plain str."""


@frozen
class Target:
    """A server that the configuration or DNS names, valid until `expires`. `host` is a name or an address."""

    host: str
    port: int
    transport: Transport
    priority: int
    weight: int
    source: str
    expires: float = math.inf
    is_fallback: bool = False
    path: str = ""

    def __str__(self) -> str:
        """Return the endpoint text, as in the configuration."""
        return f"{self.transport.value}://{format_host_port(self.host, self.port)}{self.path}"


@frozen
class RecordTargets:
    """The servers that a set of records names. `is_declined`: the domain does not offer the service."""

    targets: tuple[Target, ...] = ()
    primary_targets: tuple[Target, ...] = ()
    refused: tuple[RefusedCandidate, ...] = ()
    is_declined: bool = False


def read_srv(
    records: Iterable[SrvRecord],
    *,
    name: str,
    transports: Sequence[Transport],
    port: int | None = None,
    path: str = "",
) -> RecordTargets:
    """Read the SRV records of `name`. `port` replaces the records' port if they are for another service.

    The record names the first transport only, so the other transports are fallbacks. `path` is the path of
    all servers.
    """
    source = f"SRV {name}"
    targets: list[Target] = []
    refused: list[RefusedCandidate] = []
    for record in records:
        if record.target == NOT_OFFERED:
            refused.append(_declined(source))
            continue
        if path and not is_host(record.target):
            refused.append(RefusedCandidate(source=source, target=record.target, reason=INVALID_HOST))
            continue
        targets += (
            Target(
                host=record.target,
                port=record.port if port is None else port,
                transport=transport,
                priority=record.priority,
                weight=record.weight,
                source=source,
                is_fallback=position > 0,
                path=path,
            )
            for position, transport in enumerate(transports)
        )
    return RecordTargets(
        targets=tuple(targets), refused=tuple(refused), is_declined=bool(refused) and not targets
    )


def read_uri(
    records: Iterable[UriRecord],
    *,
    name: str,
    service: KdcService,
    transports: Sequence[Transport] = KDC_TRANSPORTS,
) -> RecordTargets:
    """Read the URI records of `name`. URIs of another scheme belong to other services and are ignored.

    Servers with other transports than `transports` are refused.
    """
    source = f"URI {name}"
    targets: list[Target] = []
    primaries: list[Target] = []
    refused: list[RefusedCandidate] = []
    for record in records:
        found = _read_krb5srv(record, source, service, transports)
        if isinstance(found, RefusedCandidate):
            refused.append(found)
        elif found is not None:
            target, is_primary = found
            targets.append(target)
            primaries += [target] if is_primary else []
    is_declined = not targets and any(each.target == NOT_OFFERED for each in refused)
    return RecordTargets(
        targets=tuple(targets),
        primary_targets=tuple(primaries),
        refused=tuple(refused),
        is_declined=is_declined,
    )


def drop_repeated_servers(targets: Iterable[Target]) -> Iterator[Target]:
    """Yield each server of one name. A later name for the same host, port and transport is the same server.

    The paths of proxies in SRV records do not count: they are conventions of clients.
    """
    first_sources: dict[tuple[str, int, Transport], str] = {}
    for target in targets:
        key = target.host.lower(), target.port, target.transport
        if first_sources.setdefault(key, target.source) == target.source:
            yield target


def demote_udp_duplicates(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Make each UDP target a fallback if the same host and port is offered over TCP as well."""
    known = tuple(targets)
    over_tcp = {(target.host.lower(), target.port) for target in known if target.transport is Transport.TCP}
    return tuple(_demote_if_over_tcp(target, over_tcp) for target in known)


def _demote_if_over_tcp(target: Target, over_tcp: set[tuple[str, int]]) -> Target:
    if target.transport is Transport.UDP and (target.host.lower(), target.port) in over_tcp:
        return replace(target, is_fallback=True)
    return target


def _read_krb5srv(
    record: UriRecord, source: str, service: KdcService, transports: Sequence[Transport]
) -> tuple[Target, bool] | RefusedCandidate | None:
    try:
        named = parse_krb5srv(record.target, default_port=service.default_port)
    except EndpointTextError as error:
        return RefusedCandidate(source=source, target=record.target, reason=error.problem)
    if named is None:
        return None
    if named.endpoint is None:
        return _declined(source)
    (transport,) = named.endpoint.transports
    if transport not in transports:
        reason = _PROXY_UNWANTED if transport in PROXY_TRANSPORTS else _KDC_UNWANTED
        return RefusedCandidate(source=source, target=record.target, reason=reason)
    target = Target(
        host=named.endpoint.host,
        port=named.endpoint.port,
        transport=transport,
        path=named.endpoint.path,
        priority=record.priority,
        weight=record.weight,
        source=source,
    )
    return target, named.is_primary


def _declined(source: str) -> RefusedCandidate:
    return RefusedCandidate(
        source=source, target=NOT_OFFERED, reason="the domain says that it has no such service (RFC 2782)"
    )
