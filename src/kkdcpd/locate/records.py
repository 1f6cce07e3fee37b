"""Reads the servers of a realm from SRV records (RFC 2782) and URI records (RFC 7553).

URIs are `krb5srv:[FLAGS]:TRANSPORT:RESIDUAL` (draft-mccallum-kitten-krb-service-discovery 3, and krb5's
locate_kdc.c, which is more lenient). Pure: this module asks no DNS server and checks no address.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kkdcpd.endpoints import (
    KDC_TRANSPORTS,
    EndpointText,
    EndpointTextError,
    Transport,
    format_host_port,
    parse_endpoint_text,
)
from kkdcpd.frozen import frozen
from kkdcpd.values import KdcService, RefusedCandidate

__all__ = [
    "Record",
    "RecordTargets",
    "SrvRecord",
    "Target",
    "UriRecord",
    "demote_udp_duplicates",
    "read_srv",
    "read_uri",
]

NOT_OFFERED = "."
"""RFC 2782: with the root as target, a domain says that it does not offer the service."""

_URI_SCHEME = "krb5srv"
_URI_TRANSPORTS = frozenset(transport.value for transport in KDC_TRANSPORTS)


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
    """The servers that a set of records names. `is_declined`: the domain says that it has no such service."""

    targets: tuple[Target, ...] = ()
    primary_targets: tuple[Target, ...] = ()
    refused: tuple[RefusedCandidate, ...] = ()
    is_declined: bool = False


def read_srv(
    records: Iterable[SrvRecord], *, name: str, transports: Sequence[Transport], port: int | None = None
) -> RecordTargets:
    """Read the SRV records of `name`. `port` replaces the records' port if they are for another service.

    The record names the first transport only, so the other transports are fallbacks.
    """
    source = f"SRV {name}"
    targets: list[Target] = []
    refused: list[RefusedCandidate] = []
    for record in records:
        if record.target == NOT_OFFERED:
            refused.append(_declined(source))
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
            )
            for position, transport in enumerate(transports)
        )
    return RecordTargets(
        targets=tuple(targets), refused=tuple(refused), is_declined=bool(refused) and not targets
    )


def read_uri(records: Iterable[UriRecord], *, name: str, service: KdcService) -> RecordTargets:
    """Read the URI records of `name`. URIs of another scheme belong to other services and are ignored."""
    source = f"URI {name}"
    targets: list[Target] = []
    primaries: list[Target] = []
    refused: list[RefusedCandidate] = []
    for record in records:
        found = _read_krb5srv(record, source, service)
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
    record: UriRecord, source: str, service: KdcService
) -> tuple[Target, bool] | RefusedCandidate | None:
    scheme, flags, transport, residual = _fields(record.target)
    if scheme.lower() != _URI_SCHEME:
        return None
    if transport == "kkdcp":
        reason = "kkdcpd does not forward to other KDC proxies over https yet"
        return RefusedCandidate(source=source, target=record.target, reason=reason)
    if transport not in _URI_TRANSPORTS:
        reason = "the transport is unknown; known are udp, tcp and kkdcp"
        return RefusedCandidate(source=source, target=record.target, reason=reason)
    if residual == NOT_OFFERED:
        return _declined(source)
    parsed = _parse_residual(transport, residual, service)
    if parsed is None:
        reason = "the host is invalid, or the port after it"
        return RefusedCandidate(source=source, target=record.target, reason=reason)
    target = Target(
        host=parsed.host,
        port=parsed.port,
        transport=parsed.transports[0],
        path=parsed.path,
        priority=record.priority,
        weight=record.weight,
        source=source,
    )
    return target, "m" in flags.lower()


def _fields(uri: str) -> tuple[str, str, str, str]:
    scheme, _, rest = uri.partition(":")
    flags, _, rest = rest.partition(":")
    transport, _, residual = rest.partition(":")
    return scheme, flags, transport.lower(), residual


def _parse_residual(transport: str, residual: str, service: KdcService) -> EndpointText | None:
    try:
        parsed = parse_endpoint_text(
            f"{transport}://{residual}", default_port=service.default_port, is_lenient=True
        )
    except EndpointTextError:
        return None
    return parsed if parsed.host else None


def _declined(source: str) -> RefusedCandidate:
    return RefusedCandidate(
        source=source, target=NOT_OFFERED, reason="the domain says that it has no such service (RFC 2782)"
    )
