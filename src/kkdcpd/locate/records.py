"""What the records of DNS say about a realm's servers: SRV (RFC 2782) and URI (RFC 7553).

URIs are `krb5srv:[FLAGS]:TRANSPORT:RESIDUAL` (draft-mccallum-kitten-krb-service-discovery 3, and krb5's
locate_kdc.c, which is more lenient). Pure: nothing here asks DNS, and an address is none of its concerns.
"""

import ipaddress
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from kkdcpd.frozen import frozen
from kkdcpd.protocol.ports import parse_port
from kkdcpd.values import KdcService, RefusedCandidate, Transport

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
"""RFC 2782: a target of the root says that the service is decidedly not available at this domain."""

_URI_SCHEME = "krb5srv"
_URI_TRANSPORTS = {"tcp": Transport.TCP, "udp": Transport.UDP}


@frozen
class SrvRecord:
    """RFC 2782. `target` has no root dot, unless it is the root."""

    priority: int
    weight: int
    port: int
    target: str

    def __str__(self) -> str:
        """Write it as in a zone file."""
        return f"{self.priority} {self.weight} {self.port} {self.target}"


@frozen
class UriRecord:
    """RFC 7553 4."""

    priority: int
    weight: int
    target: str

    def __str__(self) -> str:
        """Write it as in a zone file."""
        return f'{self.priority} {self.weight} "{self.target}"'


Record = SrvRecord | UriRecord | str
"""One record's data; an address is a plain str."""


@frozen
class Target:
    """A server as it was named: its host may be a name still. That holds until `expires`."""

    host: str
    port: int
    transport: Transport
    priority: int
    weight: int
    source: str
    expires: float = math.inf
    is_fallback: bool = False

    def __str__(self) -> str:
        """Write it as in the configuration."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport.value}://{host}:{self.port}"


@frozen
class RecordTargets:
    """What a set of records comes to. `is_declined` tells that the domain says it has no such service."""

    targets: tuple[Target, ...] = ()
    primary_targets: tuple[Target, ...] = ()
    refused: tuple[RefusedCandidate, ...] = ()
    is_declined: bool = False


def read_srv(
    records: Iterable[SrvRecord], *, name: str, transports: Sequence[Transport], port: int | None = None
) -> RecordTargets:
    """Read the SRV records of `name`; `port` takes the place of theirs, where they are another service's.

    Transports after the first are fallbacks: the record vouches for the first alone.
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
    """Read the URI records of `name`. URIs of another scheme are another service's and say nothing to us."""
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
    """Make a fallback of each UDP target whose host is offered over TCP too, at the same port."""
    known = tuple(targets)
    over_tcp = {(target.host.lower(), target.port) for target in known if target.transport is Transport.TCP}
    return tuple(_fallback_if_twin(target, over_tcp) for target in known)


def _fallback_if_twin(target: Target, over_tcp: set[tuple[str, int]]) -> Target:
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
        reason = "asking another KDC proxy over https is not built yet"
        return RefusedCandidate(source=source, target=record.target, reason=reason)
    if transport not in _URI_TRANSPORTS:
        reason = "names no transport that is known: udp, tcp or kkdcp"
        return RefusedCandidate(source=source, target=record.target, reason=reason)
    if residual == NOT_OFFERED:
        return _declined(source)
    place = _host_and_port(residual, service.default_port)
    if place is None:
        reason = "has no valid host, or no valid port after it"
        return RefusedCandidate(source=source, target=record.target, reason=reason)
    target = Target(
        host=place[0],
        port=place[1],
        transport=_URI_TRANSPORTS[transport],
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


def _host_and_port(text: str, default_port: int) -> tuple[str, int] | None:
    """Read `host[:port]`, IPv6 in brackets; an IPv6 address without brackets has no port."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not (bracket and (not rest or rest.startswith(":")) and _is_ipv6(host)):
            return None
        port = rest.removeprefix(":")
    elif not _is_ipv6(text):
        host, _, port = text.partition(":")
    number = parse_port(port) if port else default_port
    return (host, number) if host and number else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _declined(source: str) -> RefusedCandidate:
    return RefusedCandidate(
        source=source, target=NOT_OFFERED, reason="the domain says that it has no such service (RFC 2782)"
    )
