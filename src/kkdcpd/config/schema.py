"""The whole configuration: the table of its sections, and the rules that several sections share.

Nothing here opens a file or reads a clock.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from kkdcpd.config.addresses import is_domain_name
from kkdcpd.config.kinds import Items, Text
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.problems import join
from kkdcpd.config.sections.admin import AdminConfig
from kkdcpd.config.sections.connections import ConnectionsConfig
from kkdcpd.config.sections.guard import GuardConfig
from kkdcpd.config.sections.http import HttpConfig
from kkdcpd.config.sections.listen import ListenConfig, addresses_differ
from kkdcpd.config.sections.locate import LocateConfig
from kkdcpd.config.sections.log import LogConfig
from kkdcpd.config.sections.policy import PolicyConfig
from kkdcpd.config.sections.process import ProcessConfig
from kkdcpd.config.sections.realms import RealmConfig, find_realm_problems
from kkdcpd.config.sections.tls import TlsConfig
from kkdcpd.config.sections.tunnel import TunnelConfig
from kkdcpd.config.sections.upstream import UpstreamConfig
from kkdcpd.config.texts import parse_realm_pattern
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["Config", "find_unserved"]

Listeners = Annotated[
    tuple[ListenConfig, ...],
    Items(remedy="write each as a section [[listen]]", may_be_empty=False, rule=addresses_differ),
]
Realms = Annotated[
    tuple[RealmConfig, ...],
    NamedTables(
        form=RealmConfig,
        name=Text(parse=parse_realm_pattern, remedy='write a name such as "EXAMPLE.COM"'),
        remedy='add a realm: a section [realms."EXAMPLE.COM"] with kdc = ["kdc1.example.com"]',
        rule=find_realm_problems,
    ),
]


@frozen
class Config:
    """The configuration of kkdcpd. Copy it to /etc/kkdcpd/config.toml. `kkdcpd check` checks it.

    Set two things: your certificate and your realm. Every other setting has a default, and a line `#key =
    value` shows this default. Uncomment only the lines that you change; the [section] above such a line is
    active already. A comment after a value has the valid values.
    """

    # None if no listener uses TLS.
    tls: TlsConfig | None = TlsConfig()
    realms: Realms
    listen: Listeners = (ListenConfig(),)
    log: LogConfig = LogConfig()
    admin: AdminConfig = AdminConfig()
    process: ProcessConfig = ProcessConfig()
    http: HttpConfig = HttpConfig()
    tunnel: TunnelConfig = TunnelConfig()
    upstream: UpstreamConfig = UpstreamConfig()
    locate: LocateConfig = LocateConfig()
    connections: ConnectionsConfig = ConnectionsConfig()
    guard: GuardConfig = GuardConfig()
    policy: PolicyConfig = PolicyConfig()

    def find_problems(self, _key: str) -> Iterator[ConfigProblem]:
        """Find settings of different sections that contradict each other."""
        yield from _dns_leaves_time(self)
        yield from _realms_are_served(self)
        yield from _certificates_are_requested(self)
        yield from _proxies_are_known(self)
        yield from _admin_address_differs(self)
        yield from _ready_realms_are_served(self)


def _realms_are_served(config: Config) -> Iterator[ConfigProblem]:
    # A krb5.conf may name the servers: `load` finds unserved realms after it has read the file.
    for realm in config.realms if config.locate.krb5_conf is None else ():
        yield from find_unserved(realm)


def _dns_leaves_time(config: Config) -> Iterator[ConfigProblem]:
    least, most = config.locate.dns_timeout, config.upstream.reach_timeout
    if least > most:
        yield ConfigProblem(
            key="locate.dns_timeout",
            problem=f"{least:g} seconds is longer than upstream.reach_timeout, which is {most:g}",
            remedy=f"write {most:g} or less, or raise upstream.reach_timeout",
        )


def _certificates_are_requested(config: Config) -> Iterator[ConfigProblem]:
    is_requested = any(listener.client_certificates != "none" for listener in config.listen)
    tls = config.tls or TlsConfig()
    if is_requested and tls.client_ca is None:
        yield ConfigProblem(
            key="tls.client_ca",
            problem="is missing, so that no client's certificate could be trusted",
            remedy="name the PEM file of the authority that clients have their certificates from",
        )
    unused = [f"tls.{name}" for name in ("client_ca", "client_crl") if getattr(tls, name)]
    unused += [
        f"{join('realms', realm.name)}.client_certificates"
        for realm in config.realms
        if realm.client_certificates
    ]
    for key in () if is_requested else unused:
        yield ConfigProblem(
            key=key,
            problem="is never used, as no listener asks for client certificates",
            remedy='write client_certificates = "optional" or "required" under [[listen]], or remove it',
        )


def _proxies_are_known(config: Config) -> Iterator[ConfigProblem]:
    connections = config.connections
    if connections.trusted_proxies:
        if connections.forwarded == "none" and not any(listener.proxy_protocol for listener in config.listen):
            yield ConfigProblem(
                key="connections.trusted_proxies",
                problem="is never used, as neither a PROXY header nor an HTTP header is read",
                remedy="write forwarded there, or proxy_protocol = true under [[listen]], or remove it",
            )
        return
    remedy = 'name your proxies in connections.trusted_proxies, as in ["192.0.2.1"]'
    inet = [position for position, listener in enumerate(config.listen) if not listener.address.unix_path]
    for position in inet:
        if config.listen[position].proxy_protocol:
            yield ConfigProblem(
                key=f"listen[{position}].proxy_protocol",
                problem="is true, but no proxy is trusted, so no client could connect",
                remedy=remedy,
            )
    if connections.forwarded != "none" and len(inet) == len(config.listen):
        yield ConfigProblem(
            key="connections.forwarded",
            problem=f'is "{connections.forwarded}", but no proxy is trusted, so that it would never be read',
            remedy=remedy,
        )


def _admin_address_differs(config: Config) -> Iterator[ConfigProblem]:
    address = config.admin.address
    for position, listener in enumerate(config.listen):
        if address and address.overlaps(listener.address):
            yield ConfigProblem(
                key="admin.address",
                problem=f"{address} is taken by listen[{position}] already ({listener.address})",
                remedy="give it another port: clients and administrators don't share a listener",
            )


def _ready_realms_are_served(config: Config) -> Iterator[ConfigProblem]:
    known = {realm.name for realm in config.realms if not realm.is_wildcard}
    for position, name in enumerate(config.admin.ready_realms):
        if name not in known:
            yield ConfigProblem(
                key=f"admin.ready_realms[{position}]",
                problem=f'"{name}" is no realm of this configuration',
                remedy=f'write it as in [realms."{name}"], neither an alias nor a wildcard, or remove it',
            )


def find_unserved(
    realm: RealmConfig, *, krb5_conf: Path | None = None, is_dns_allowed: bool = True
) -> Iterator[ConfigProblem]:
    """Find the realms without servers and without discovery.

    `krb5_conf` is given once it was read, with what it says of DNS.
    """
    if realm.kdc and realm.discovery in {"auto", "none"}:
        return
    if realm.discovery == "none":
        also = f", and {krb5_conf} names none" if krb5_conf else ""
        yield from _no_kdc(realm, f"discovery is none{also}")
    elif realm.discovery == "auto" and not is_dns_allowed:
        yield from _no_kdc(realm, f"{krb5_conf} says dns_lookup_kdc = false")
    elif not is_domain_name(realm.domain):
        yield ConfigProblem(
            key=join("realms", realm.name),
            problem="is no domain's name, so its KDCs can't be found in DNS",
            remedy='name them: kdc = ["kdc1.example.com"]',
        )


def _no_kdc(realm: RealmConfig, reason: str) -> Iterator[ConfigProblem]:
    key = join("realms", realm.name)
    if not realm.is_wildcard:
        yield ConfigProblem(
            key=f"{key}.kdc",
            problem=f"is missing, and {reason}: there is no KDC to ask",
            remedy='name the KDCs, as in kdc = ["kdc1.example.com"], or write discovery = "dns"',
        )
    elif realm.discovery == "auto":
        yield ConfigProblem(
            key=f"{key}.discovery",
            problem=f"is missing, and {reason}: no realm can be found",
            remedy='write discovery = "dns" or "active_directory"',
        )
