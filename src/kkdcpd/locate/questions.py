"""Lists the names in DNS that may have a realm's servers, and reads the records of each name. Pure.

RFC 4120 7.2.3.2 and RFC 3244 define the names of KDCs and password servers. The names of KDC proxies are
those that clients use: MIT's and FreeIPA's URI records, Apple's `_kkdcp`, Kerberos.NET's `_https`, and
`_wss` for the WebSocket.
"""

from collections.abc import Iterable
from dataclasses import replace

from kkdcpd.endpoints import KDC_TRANSPORTS, PROXY_TRANSPORTS, Transport
from kkdcpd.frozen import frozen
from kkdcpd.locate.records import Record, RecordTargets, SrvRecord, UriRecord, read_srv, read_uri
from kkdcpd.values import DcLocatorFlags, KdcService, LocateQuery

__all__ = ["APPLE_PATH", "HTTPS_PATH", "WSS_PATH", "Question", "Stage", "kdc_stages", "proxy_stages"]

APPLE_PATH = "/kkdcp"
"""The path that Apple's clients use with `_kerberos._kkdcp` (srv_get_hosts in Apple's Heimdal)."""

HTTPS_PATH = "/KdcProxy"
"""[MS-KKDCP] 2.1. Kerberos.NET uses it with `_kerberos._https` (HttpsKerberosTransport)."""

WSS_PATH = "/KdcTunnel"
"""The path of the WebSocket tunnel (docs/tunnel.md)."""

_TIER = 1 << 16
"""More than the priority of any SRV record (RFC 2782)."""


@frozen
class Question:
    """A name to look up. `transports` are the transports of its SRV records, or the wanted ones of its URIs.

    `port` replaces the port of SRV records; `path` is the path of their servers. `primaries_only` selects
    primary KDCs. Servers of a lower `tier` come first, whatever the priorities of their records are.
    """

    name: str
    transports: tuple[Transport, ...]
    is_uri: bool = False
    port: int | None = None
    path: str = ""
    primaries_only: bool = False
    tier: int = 0

    def read(self, records: Iterable[Record], service: KdcService) -> RecordTargets:
        """Return the servers that the records name."""
        named = self._read_uris(records, service) if self.is_uri else self._read_srv(records)
        if self.primaries_only:
            # A domain without a primary KDC may have other KDCs, even if it declines the name of the primary.
            named = replace(named, is_declined=False)
        if not self.tier:
            return named
        below = self.tier * _TIER
        targets = (replace(target, priority=below + target.priority) for target in named.targets)
        return replace(named, targets=tuple(targets))

    def _read_uris(self, records: Iterable[Record], service: KdcService) -> RecordTargets:
        uris = (record for record in records if isinstance(record, UriRecord))
        named = read_uri(uris, name=self.name, service=service, transports=self.transports)
        return replace(named, targets=named.primary_targets) if self.primaries_only else named

    def _read_srv(self, records: Iterable[Record]) -> RecordTargets:
        found = (record for record in records if isinstance(record, SrvRecord))
        return read_srv(found, name=self.name, transports=self.transports, port=self.port, path=self.path)


Stage = tuple[Question, ...]
"""Questions with answers that are used together. The first stage with a server or a refusal counts."""


def kdc_stages(realm: str, query: LocateQuery) -> tuple[Stage, ...]:
    """List the names of KDCs or password servers, by precedence. A realm may have no primary KDC."""
    if query.service is KdcService.KPASSWD:
        # kadmind serves kpasswd on the same host (krb5's changepw.c).
        beside_kadmin = Question(
            name=f"_kerberos-adm._tcp.{realm}", transports=KDC_TRANSPORTS, port=query.service.default_port
        )
        return (_uri("_kpasswd", realm, KDC_TRANSPORTS),), _srv("_kpasswd", realm), (beside_kadmin,)
    uri = _uri("_kerberos", realm, KDC_TRANSPORTS)
    all_kdcs = (uri,), _srv("_kerberos", realm)
    if not query.flags & DcLocatorFlags.PDC_REQUIRED:
        return all_kdcs
    primary = (replace(uri, primaries_only=True),)
    return primary, _srv("_kerberos-master", realm, primaries_only=True), *all_kdcs


def proxy_stages(realm: str, query: LocateQuery) -> tuple[Stage, ...]:
    """List the names of KDC proxies, by precedence.

    A proxy takes password changes at the same URL, so the names for KDCs follow the name for password
    changes. Clients know no SRV names of proxies for password changes.
    """
    all_proxies = (_uri("_kerberos", realm, PROXY_TRANSPORTS),), _proxy_srv(realm)
    if query.service is KdcService.KPASSWD:
        return (_uri("_kpasswd", realm, PROXY_TRANSPORTS),), *all_proxies
    return all_proxies


def _uri(service: str, realm: str, transports: tuple[Transport, ...]) -> Question:
    return Question(name=f"{service}.{realm}", is_uri=True, transports=transports)


def _srv(service: str, realm: str, *, primaries_only: bool = False) -> Stage:
    return tuple(
        Question(
            name=f"{service}._{transport.value}.{realm}",
            transports=(transport,),
            primaries_only=primaries_only,
        )
        for transport in KDC_TRANSPORTS
    )


_PROXY_SRV = (
    ("_wss", Transport.WSS, WSS_PATH),
    ("_https", Transport.HTTPS, HTTPS_PATH),
    ("_kkdcp", Transport.HTTPS, APPLE_PATH),
)
"""The WebSocket first: it tells which messages reached no KDC. The names may lead to the same proxies."""


def _proxy_srv(realm: str) -> Stage:
    return tuple(
        Question(name=f"_kerberos.{label}.{realm}", transports=(transport,), path=path, tier=tier)
        for tier, (label, transport, path) in enumerate(_PROXY_SRV)
    )
