"""Every setting, declared once: type, default, unit, bounds and meaning, and the rules that bind several.

The reasons for the defaults are in config.toml.example, which a test holds against this module. Nothing here
opens a file or reads a clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from kkdcpd.config.addresses import (
    MAX_ENDPOINTS,
    EndpointSpec,
    ListenAddress,
    Nameserver,
    Network,
    is_domain_name,
    parse_endpoint,
    parse_listen_address,
    parse_nameserver,
    parse_network,
    parse_server_name,
    parse_source_address,
)
from kkdcpd.config.admin import ADMIN_TABLE, AdminConfig
from kkdcpd.config.guard import (
    CONNECTIONS_TABLE,
    GUARD_TABLE,
    POLICY_TABLE,
    ConnectionsConfig,
    GuardConfig,
    PolicyConfig,
)
from kkdcpd.config.kinds import Choice, Flag, ListOf, Number, Text, seconds
from kkdcpd.config.log import LOG_TABLE, LogConfig
from kkdcpd.config.patterns import CertificatePattern, parse_certificate_pattern
from kkdcpd.config.process import PROCESS_TABLE, ProcessConfig
from kkdcpd.config.reader import NamedTables, Table, join, setting
from kkdcpd.config.rules import in_order, items_differ
from kkdcpd.config.texts import (
    WILDCARD,
    parse_http_path,
    parse_mode,
    parse_optional_path,
    parse_principal,
    parse_realm_name,
    parse_realm_pattern,
    parse_site,
)
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import KdcService

__all__ = [
    "CONFIG_TABLE",
    "AdditionalCertificate",
    "ClientCertificates",
    "Config",
    "Discovery",
    "HttpConfig",
    "ListenConfig",
    "LocateConfig",
    "RealmConfig",
    "TlsConfig",
    "UpstreamConfig",
    "find_unserved",
]

_ADDRESS = Text(
    parse=parse_listen_address,
    remedy='write an IP address and a port such as "192.0.2.1:443" or "[2001:db8::1]:443", '
    'or "*:443" for all addresses, or "unix:/run/kkdcpd/http.sock"',
)
_MODE = Text(parse=parse_mode, remedy='write octal digits in quotes, such as "0660"')
_PATH = Text(parse=parse_http_path, remedy='write a plain path such as "/KdcProxy"')
_CERTIFICATE = Text(parse=Path, remedy='write a path such as "/etc/kkdcpd/tls/certificate.pem"')
_KEY = Text(parse=Path, remedy='write a path such as "/etc/kkdcpd/tls/key.pem"')
_SERVER_NAME = Text(
    parse=parse_server_name, remedy='write a DNS name such as "kdc.example.com" or "*.example.com"'
)
_NAME = Text(parse=parse_realm_name, remedy='write a name such as "EXAMPLE.COM"')
_NAME_OR_WILDCARD = Text(parse=parse_realm_pattern, remedy='write a name such as "EXAMPLE.COM"')
_SITE = Text(parse=parse_site, remedy='write a name such as "Default-First-Site-Name"')
_KRB5_CONF = Text(parse=parse_optional_path, remedy='write a path such as "/etc/krb5.conf"')
_NAMESERVER = Text(
    parse=parse_nameserver,
    remedy='write an IP address such as "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:53"',
)
_NETWORK = Text(parse=parse_network, remedy='write a network such as "192.0.2.0/24" or "2001:db8::/32"')
_PORT = Number(minimum=1, maximum=65535)
_SOURCE_ADDRESS = Text(
    parse=parse_source_address, remedy='write an IP address of this host, such as "192.0.2.1"'
)
_PRINCIPAL = Text(parse=parse_principal, remedy='write a name such as "krbtgt", "probe" or "host/kdc1"')

_CLIENT_CA = Text(parse=parse_optional_path, remedy='write a path such as "/etc/kkdcpd/tls/client-ca.pem"')
_CLIENT_CRL = Text(parse=parse_optional_path, remedy='write a path such as "/etc/kkdcpd/tls/client-crl.pem"')
_TOKENS_FILE = Text(parse=parse_optional_path, remedy='write a path such as "/etc/kkdcpd/tokens"')
_CERTIFICATE_PATTERN = Text(
    parse=parse_certificate_pattern,
    remedy='write a pattern such as "subject:CN=*,O=Example", "dns:*.example.com", "email:*@example.com", '
    '"upn:*@EXAMPLE.COM" or "uri:spiffe://example.com/*"',
)

ClientCertificates = Literal["none", "optional", "required"]
Discovery = Literal["auto", "none", "dns", "active_directory"]


@frozen
class ListenConfig:
    """[[listen]]: one address to accept connections on. `section` is where it stands if that is elsewhere."""

    section: str = ""
    address: ListenAddress = field(
        default=ListenAddress(port=443),
        metadata=setting(
            _ADDRESS, "Where to listen. `*` is every IPv4 and IPv6 address, port 0 any free port."
        ),
    )
    tls: bool = field(default=True, metadata=setting(Flag(), "Whether this listener speaks TLS."))
    plain_http_anywhere: bool = field(
        default=False,
        metadata=setting(Flag(), "Whether plain HTTP may be spoken where other hosts can connect."),
    )
    unix_mode: int = field(
        default=0o660, metadata=setting(_MODE, "The file mode of a unix socket, in octal digits.")
    )
    proxy_protocol: bool = field(
        default=False,
        metadata=setting(Flag(), "Whether trusted proxies begin each connection with a PROXY header."),
    )
    client_certificates: ClientCertificates = field(
        default="none",
        metadata=setting(
            Choice(words=("none", "optional", "required")), "Whether clients are asked for a certificate."
        ),
    )


def _listener_is_sound(listener: ListenConfig, key: str) -> Iterator[ConfigProblem]:
    yield from _plain_http_stays_local(listener, key)
    if listener.client_certificates != "none" and not listener.tls:
        yield ConfigProblem(
            key=f"{key}.client_certificates",
            problem=f'is "{listener.client_certificates}", but only TLS has certificates',
            remedy="write tls = true, or remove it",
        )


def _plain_http_stays_local(listener: ListenConfig, key: str) -> Iterator[ConfigProblem]:
    if not (listener.tls or listener.plain_http_anywhere or listener.address.is_local):
        yield ConfigProblem(
            key=f"{key}.tls",
            problem=f"without TLS, each host on the way to {listener.address} can read and change messages",
            remedy="write tls = true, or listen on 127.0.0.1, [::1] or a unix socket, "
            "or accept it with plain_http_anywhere = true",
        )


def _addresses_differ(listeners: Mapping[str, ListenConfig]) -> Iterator[ConfigProblem]:
    seen: dict[str, ListenConfig] = {}
    for key, listener in listeners.items():
        for other_key, other in seen.items():
            if listener.address.overlaps(other.address):
                yield ConfigProblem(
                    key=f"{key}.address",
                    problem=f"{listener.address} is taken by {other_key} already ({other.address})",
                    remedy="remove one of the two, or give it another port",
                )
        seen[key] = listener


def _paths_differ(paths: Mapping[str, str]) -> Iterator[ConfigProblem]:
    seen: dict[str, str] = {}
    for key, path in paths.items():
        first = seen.setdefault(path.lower(), key)
        if first != key:
            yield ConfigProblem(
                key=key,
                problem=f"is the same path as {first}, as case doesn't count",
                remedy="remove one of them",
            )


@frozen
class HttpConfig:
    """[http]: what a client may send, and how long it may take."""

    paths: tuple[str, ...] = field(
        default=("/KdcProxy",),
        metadata=setting(
            ListOf(
                item=_PATH,
                may_be_empty=False,
                remedy='write a list of paths, such as ["/KdcProxy"]',
                rule=_paths_differ,
            ),
            "The paths that are served; case doesn't count.",
        ),
    )
    max_body_bytes: int = field(
        default=262144,
        metadata=setting(
            Number(minimum=1024, maximum=1048576, unit="bytes"), "The longest request body taken."
        ),
    )
    body_timeout: float = field(
        default=10.0, metadata=setting(seconds(120), "How long a request's body may take to arrive.")
    )
    head_timeout: float = field(
        default=10.0, metadata=setting(seconds(120), "How long a request's head may take to arrive.")
    )
    keepalive_timeout: float = field(
        default=60.0, metadata=setting(seconds(3600), "How long an idle connection stays open.")
    )
    max_requests_per_connection: int = field(
        default=1000,
        metadata=setting(
            Number(minimum=1, maximum=1000000, unit="requests"), "After how many a connection is closed."
        ),
    )
    handshake_timeout: float = field(
        default=10.0, metadata=setting(seconds(120), "How long a TLS handshake may take.")
    )


@frozen
class AdditionalCertificate:
    """[[tls.additional]]: a certificate for clients that ask for one of its names by SNI (RFC 6066 3)."""

    certificate: Path = field(metadata=setting(_CERTIFICATE, "PEM file: the certificate, then its chain."))
    key: Path = field(metadata=setting(_KEY, "PEM file: the certificate's private key."))
    server_names: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(item=_SERVER_NAME, remedy='write a list of DNS names, such as ["kdc.example.com"]'),
            "The server names (SNI) for which clients get it; by default the DNS names in the certificate.",
        ),
    )


def _server_names_differ(pairs: Mapping[str, AdditionalCertificate]) -> Iterator[ConfigProblem]:
    seen: dict[str, str] = {}
    for key, pair in pairs.items():
        for name in pair.server_names:
            first = seen.setdefault(name, key)
            if first != key:
                yield ConfigProblem(
                    key=f"{key}.server_names",
                    problem=f'"{name}" is a server name of {first} already',
                    remedy="remove it from one of them",
                )


@frozen
class TlsConfig:
    """[tls]: certificates and versions. Paths are relative to the configuration file."""

    certificate: Path = field(
        default=Path("/etc/kkdcpd/tls/certificate.pem"),
        metadata=setting(_CERTIFICATE, "PEM file: the server's certificate, then its chain."),
    )
    key: Path = field(
        default=Path("/etc/kkdcpd/tls/key.pem"),
        metadata=setting(_KEY, "PEM file: the certificate's private key, without passphrase."),
    )
    minimum_version: Literal["1.2", "1.3"] = field(
        default="1.2", metadata=setting(Choice(words=("1.2", "1.3")), "The oldest version of TLS spoken.")
    )
    additional: tuple[AdditionalCertificate, ...] = field(
        default=(),
        metadata=setting(
            ListOf(
                item=Table(form=AdditionalCertificate),
                remedy="write each as a section [[tls.additional]]",
                rule=_server_names_differ,
            ),
            "Further certificates, chosen by the server name that the client asks for.",
        ),
    )
    client_ca: Path | None = field(
        default=None,
        metadata=setting(_CLIENT_CA, "PEM file: the authorities that client certificates must come from."),
    )
    client_crl: Path | None = field(
        default=None,
        metadata=setting(_CLIENT_CRL, "PEM file: the revocation lists of these authorities (RFC 5280 5)."),
    )


def _one_per_family(addresses: Mapping[str, str]) -> Iterator[ConfigProblem]:
    seen: dict[int, str] = {}
    for key, address in addresses.items():
        version = ip_address(address).version
        first = seen.setdefault(version, key)
        if first != key:
            yield ConfigProblem(
                key=key, problem=f"is an IPv{version} address as {first} is", remedy="remove one of them"
            )


@frozen
class UpstreamConfig:
    """[upstream]: how KDCs are asked, how long they may take, and how much they may say."""

    connect_timeout: float = field(
        default=1.5, metadata=setting(seconds(60), "How long one TCP connect to a KDC may take.")
    )
    reach_timeout: float = field(
        default=5.0, metadata=setting(seconds(60), "How long it may take until some KDC has the message.")
    )
    reply_timeout: float = field(
        default=20.0, metadata=setting(seconds(300), "How long the whole request may take, reply included.")
    )
    max_reply_bytes: int = field(
        default=1048576,
        metadata=setting(Number(minimum=1024, maximum=16777216, unit="bytes"), "The longest reply taken."),
    )
    stagger: float = field(
        default=0.25,
        metadata=setting(
            seconds(2, minimum=0.01), "How long after one connect the next one starts (RFC 8305 5)."
        ),
    )
    hedge_delay: float = field(
        default=0.4,
        metadata=setting(seconds(60, minimum=0.05), "After how long a silence a KDC is suspect."),
    )
    hedge_ratio: float = field(
        default=0.1,
        metadata=setting(
            Number(minimum=0, maximum=1, unit="hedges per request", is_whole=False),
            "How many requests may go to a second KDC because the first is silent.",
        ),
    )
    password_change_preference: float = field(
        default=600.0,
        metadata=setting(
            seconds(86400, minimum=0), "How long a user's log-ons prefer the host that changed the password."
        ),
    )
    max_in_flight_per_kdc: int = field(
        default=256,
        metadata=setting(
            Number(minimum=1, maximum=65536, unit="requests"), "How many requests one KDC has at a time."
        ),
    )
    source_addresses: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(
                item=_SOURCE_ADDRESS,
                remedy='write a list of addresses, such as ["192.0.2.1", "2001:db8::1"]',
                rule=_one_per_family,
            ),
            "From which addresses KDCs are asked; by default from any.",
        ),
    )
    probe_principal: str = field(
        default="krbtgt",
        metadata=setting(
            _PRINCIPAL, "The principal in probes; `krbtgt` stands for the realm's own krbtgt/REALM."
        ),
    )
    probe_interval: float = field(
        default=2.0,
        metadata=setting(seconds(60), "How long after a KDC's failure it is probed; it doubles each time."),
    )
    probe_interval_maximum: float = field(
        default=60.0, metadata=setting(seconds(3600), "How far apart probes get.")
    )


def _upstream_in_order(upstream: UpstreamConfig, key: str) -> Iterator[ConfigProblem]:
    pairs = (
        ("stagger", "connect_timeout"),
        ("connect_timeout", "reach_timeout"),
        ("reach_timeout", "reply_timeout"),
        ("hedge_delay", "reply_timeout"),
        ("probe_interval", "probe_interval_maximum"),
    )
    return in_order(upstream, key, pairs)


@frozen
class LocateConfig:
    """[locate]: how KDCs are found, and which are believed. The path is relative to the configuration file.

    An empty `allowed_networks` allows every address but special ones, such as loopback and multicast; a
    network that is listed is allowed whatever it is.
    """

    krb5_conf: Path | None = field(
        default=None,
        metadata=setting(_KRB5_CONF, "A krb5.conf that names KDCs of realms without lists of their own."),
    )
    nameservers: tuple[Nameserver, ...] = field(
        default=(),
        metadata=setting(
            ListOf(
                item=_NAMESERVER,
                remedy='write a list of addresses, such as ["192.0.2.53"]',
                rule=items_differ,
            ),
            "The DNS servers to ask, in order; by default those of /etc/resolv.conf.",
        ),
    )
    dns_timeout: float = field(
        default=2.0, metadata=setting(seconds(60), "How long a whole look-up in DNS may take.")
    )
    minimum_ttl: int = field(
        default=10,
        metadata=setting(
            Number(minimum=1, maximum=86400, unit="seconds"), "How long what was found is used at least."
        ),
    )
    maximum_ttl: int = field(
        default=3600,
        metadata=setting(
            Number(minimum=1, maximum=604800, unit="seconds"), "How long what was found is used at most."
        ),
    )
    negative_ttl: int = field(
        default=30,
        metadata=setting(
            Number(minimum=1, maximum=10800, unit="seconds"), "How long a name without records is believed."
        ),
    )
    stale_ttl: int = field(
        default=86400,
        metadata=setting(
            Number(minimum=0, maximum=604800, unit="seconds"),
            "How long what has expired is used while DNS is down (RFC 8767); 0 is never.",
        ),
    )
    cache_entries: int = field(
        default=4096,
        metadata=setting(
            Number(minimum=64, maximum=1048576, unit="entries"), "How many answers are remembered."
        ),
    )
    wildcard_realms: int = field(
        default=64,
        metadata=setting(
            Number(minimum=1, maximum=65536, unit="realms"), "How many realms one wildcard may stand for."
        ),
    )
    rediscovery_interval: float = field(
        default=30.0,
        metadata=setting(seconds(3600), "How often a client's force-rediscovery is heeded, per realm."),
    )
    allowed_ports: tuple[int, ...] = field(
        default=(88, 464),
        metadata=setting(
            ListOf(
                item=_PORT,
                may_be_empty=False,
                remedy="write a list of ports, such as [88, 464]",
                rule=items_differ,
            ),
            "The ports that a record in DNS may name.",
        ),
    )
    allowed_networks: tuple[Network, ...] = field(
        default=(),
        metadata=setting(
            ListOf(
                item=_NETWORK,
                remedy='write a list of networks, such as ["192.0.2.0/24"]',
                rule=items_differ,
            ),
            "The networks that a KDC found in DNS may be in; by default all but special ones.",
        ),
    )


def _ttls_in_order(locate: LocateConfig, key: str) -> Iterator[ConfigProblem]:
    return in_order(locate, key, [("minimum_ttl", "maximum_ttl")])


def _endpoints_differ(endpoints: Mapping[str, EndpointSpec]) -> Iterator[ConfigProblem]:
    seen: dict[str, EndpointSpec] = {}
    for key, endpoint in endpoints.items():
        for other_key, other in seen.items():
            if endpoint.overlaps(other):
                yield ConfigProblem(
                    key=key, problem=f"names the same endpoint as {other_key}", remedy="remove one of them"
                )
        seen[key] = endpoint


def _endpoints(name: str, service: KdcService, *, may_be_empty: bool = True) -> ListOf[EndpointSpec]:
    host = "kdc1.example.com"
    return ListOf(
        item=Text(
            parse=partial(parse_endpoint, service=service),
            remedy=f'write a host such as "{host}", "{host}:{service.default_port}", "tcp://{host}" '
            'or "[2001:db8::1]"',
        ),
        may_be_empty=may_be_empty,
        at_most=MAX_ENDPOINTS,
        remedy=f'write a list of hosts, such as {name} = ["{host}"], or leave it out',
        rule=_endpoints_differ,
    )


@frozen
class RealmConfig:
    """[realms."NAME"]: a realm that is served, or with `*.NAME` all realms below it, and its servers.

    Each list that there is counts; `discovery` finds what has none. "auto" is how it may be written: in a
    configuration that was read it is settled. `source` tells where the lists come from. `policy` is what is
    written for this realm only, and in a configuration that was read all that holds for it. `tokens` are the
    SHA-256 digests of the secrets in `tokens_file`, once that was read.
    """

    name: str
    source: str = "configuration"
    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    kdc: tuple[EndpointSpec, ...] = field(
        default=(),
        metadata=setting(
            # An empty list could mean no server, or the servers in DNS.
            _endpoints("kdc", KdcService.KDC, may_be_empty=False),
            "The realm's KDCs, in order of preference.",
        ),
    )
    primary_kdc: tuple[EndpointSpec, ...] = field(
        default=(),
        metadata=setting(
            _endpoints("primary_kdc", KdcService.KDC),
            "The KDCs for requests that need the primary (PDC); by default every KDC.",
        ),
    )
    kpasswd: tuple[EndpointSpec, ...] = field(
        default=(),
        metadata=setting(
            _endpoints("kpasswd", KdcService.KPASSWD),
            "The servers that change passwords (RFC 3244), in order.",
        ),
    )
    aliases: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(item=_NAME, remedy='write a list of names, such as ["EXAMPLE"]'),
            "Other names by which clients ask for the realm, such as its NetBIOS name.",
        ),
    )
    discovery: Discovery = field(
        default="auto",
        metadata=setting(
            Choice(words=("auto", "none", "dns", "active_directory")),
            "How the servers are found that no list names: auto is dns where no list has a KDC.",
        ),
    )
    site: str = field(
        default="",
        metadata=setting(_SITE, "The Active Directory site we are in; by default a DC is asked for it."),
    )
    client_certificates: tuple[CertificatePattern, ...] = field(
        default=(),
        metadata=setting(
            ListOf(
                item=_CERTIFICATE_PATTERN,
                remedy='write a list of patterns, such as ["dns:*.example.com"]',
                rule=items_differ,
            ),
            "Whose certificates may use the realm; by default no certificate is needed.",
        ),
    )
    tokens_file: Path | None = field(
        default=None,
        metadata=setting(_TOKENS_FILE, "A file of secrets, one of which must stand in the URL's path."),
    )
    policy: PolicyConfig = field(
        default=PolicyConfig(), metadata=setting(POLICY_TABLE, "What of [policy] is other for this realm.")
    )

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for all realms below its name."""
        return self.name.startswith(WILDCARD)

    @property
    def domain(self) -> str:
        """The name, of a wildcard without its star."""
        return self.name.removeprefix(WILDCARD)


def _names_differ(realms: Mapping[str, RealmConfig]) -> Iterator[ConfigProblem]:
    seen: dict[str, str] = {}
    for key, realm in realms.items():
        aliases = {f"{key}.aliases[{position}]": alias for position, alias in enumerate(realm.aliases)}
        for place, name in {key: realm.name, **aliases}.items():
            first = seen.setdefault(fold_realm(name), place)
            if first != place:
                yield ConfigProblem(
                    key=place,
                    problem=f'"{name}" is the same name as {first}, as case and a last dot don\'t count',
                    remedy="remove one of them",
                )


def _wildcards_have_no_lists(realms: Mapping[str, RealmConfig]) -> Iterator[ConfigProblem]:
    for key, realm in realms.items():
        listed = (name for name in _REALM_LISTS if realm.is_wildcard and getattr(realm, name))
        for name in listed:
            yield ConfigProblem(
                key=f"{key}.{name}",
                problem="stands under a wildcard, and can't hold for every realm",
                remedy="remove it, or add a section for the realm it belongs to",
            )


_REALM_LISTS = ("kdc", "primary_kdc", "kpasswd", "aliases")


def _wildcards_are_found(realms: Mapping[str, RealmConfig]) -> Iterator[ConfigProblem]:
    for key, realm in realms.items():
        if realm.is_wildcard and realm.discovery == "none":
            yield ConfigProblem(
                key=f"{key}.discovery",
                problem="is none, but a wildcard's realms have no other way to be found",
                remedy='write "dns" or "active_directory"',
            )


def _sites_are_used(realms: Mapping[str, RealmConfig]) -> Iterator[ConfigProblem]:
    for key, realm in realms.items():
        if realm.site and realm.discovery != "active_directory":
            yield ConfigProblem(
                key=f"{key}.site",
                problem=f'"{realm.site}" is never used, as discovery is "{realm.discovery}"',
                remedy='write discovery = "active_directory", or remove the site',
            )


_REALM_RULES = (
    _names_differ,
    _wildcards_have_no_lists,
    _wildcards_are_found,
    _sites_are_used,
)


def _realms_are_sound(realms: Mapping[str, RealmConfig]) -> Iterator[ConfigProblem]:
    for rule in _REALM_RULES:
        yield from rule(realms)


@frozen
class Config:
    """The whole configuration. `tls` is None where no listener speaks TLS."""

    listen: tuple[ListenConfig, ...] = field(
        default=(ListenConfig(),),
        metadata=setting(
            ListOf(
                item=Table(form=ListenConfig, rule=_listener_is_sound),
                may_be_empty=False,
                remedy="write each as a section [[listen]]",
                rule=_addresses_differ,
            ),
            "The addresses to accept connections on.",
        ),
    )
    http: HttpConfig = field(
        default=HttpConfig(),
        metadata=setting(Table(form=HttpConfig), "What clients may send, and how slowly."),
    )
    tls: TlsConfig | None = field(
        default=TlsConfig(), metadata=setting(Table(form=TlsConfig), "Certificates and TLS versions.")
    )
    upstream: UpstreamConfig = field(
        default=UpstreamConfig(),
        metadata=setting(Table(form=UpstreamConfig, rule=_upstream_in_order), "How KDCs are asked."),
    )
    locate: LocateConfig = field(
        default=LocateConfig(),
        metadata=setting(Table(form=LocateConfig, rule=_ttls_in_order), "How KDCs are found."),
    )
    connections: ConnectionsConfig = field(
        default=ConnectionsConfig(),
        metadata=setting(CONNECTIONS_TABLE, "How many connections there may be, and whose they are."),
    )
    guard: GuardConfig = field(
        default=GuardConfig(),
        metadata=setting(GUARD_TABLE, "How clients are kept from wearing KDCs out and from guessing."),
    )
    policy: PolicyConfig = field(
        default=PolicyConfig(), metadata=setting(POLICY_TABLE, "What clients may send, and get.")
    )
    process: ProcessConfig = field(
        default=ProcessConfig(),
        metadata=setting(PROCESS_TABLE, "How many processes serve, and how they end."),
    )
    admin: AdminConfig = field(
        default=AdminConfig(), metadata=setting(ADMIN_TABLE, "Where metrics and health are told.")
    )
    log: LogConfig = field(default=LogConfig(), metadata=setting(LOG_TABLE, "What is logged, and how."))
    realms: tuple[RealmConfig, ...] = field(
        metadata=setting(
            NamedTables(
                form=RealmConfig,
                name=_NAME_OR_WILDCARD,
                remedy='add a realm: a section [realms."EXAMPLE.COM"] with kdc = ["kdc1.example.com"]',
                rule=_realms_are_sound,
            ),
            "The realms that are served; no other is.",
        )
    )


def _realms_are_served(config: Config) -> Iterator[ConfigProblem]:
    # With a krb5.conf it is known only once that was read.
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


def _certificates_are_asked_for(config: Config) -> Iterator[ConfigProblem]:
    is_asked = any(listener.client_certificates != "none" for listener in config.listen)
    tls = config.tls or TlsConfig()
    if is_asked and tls.client_ca is None:
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
    for key in () if is_asked else unused:
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
    by_network = [place for place, listener in enumerate(config.listen) if not listener.address.unix_path]
    for place in by_network:
        if config.listen[place].proxy_protocol:
            yield ConfigProblem(
                key=f"listen[{place}].proxy_protocol",
                problem="is true, but no proxy is trusted, so no client could connect",
                remedy=remedy,
            )
    if connections.forwarded != "none" and len(by_network) == len(config.listen):
        yield ConfigProblem(
            key="connections.forwarded",
            problem=f'is "{connections.forwarded}", but no proxy is trusted, so that it would never be read',
            remedy=remedy,
        )


def _admin_is_apart(config: Config) -> Iterator[ConfigProblem]:
    address = config.admin.address
    for place, listener in enumerate(config.listen):
        if address and address.overlaps(listener.address):
            yield ConfigProblem(
                key="admin.address",
                problem=f"{address} is taken by listen[{place}] already ({listener.address})",
                remedy="give it another port: clients and administrators don't share a listener",
            )


def _ready_realms_are_served(config: Config) -> Iterator[ConfigProblem]:
    known = {realm.name for realm in config.realms if not realm.is_wildcard}
    for place, name in enumerate(config.admin.ready_realms):
        if name not in known:
            yield ConfigProblem(
                key=f"admin.ready_realms[{place}]",
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


def _config_is_sound(config: Config, _key: str) -> Iterator[ConfigProblem]:
    yield from _dns_leaves_time(config)
    yield from _realms_are_served(config)
    yield from _certificates_are_asked_for(config)
    yield from _proxies_are_known(config)
    yield from _admin_is_apart(config)
    yield from _ready_realms_are_served(config)


CONFIG_TABLE = Table(form=Config, rule=_config_is_sound)
