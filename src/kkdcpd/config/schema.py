"""Every setting, declared once: type, default, unit, bounds and meaning, and the rules that bind several.

The reasons for the defaults are in config.toml.example, which a test holds against this module. Nothing here
opens a file or reads a clock.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal

from kkdcpd.config.addresses import (
    EndpointSpec,
    ListenAddress,
    parse_endpoint,
    parse_listen_address,
    parse_server_name,
)
from kkdcpd.config.kinds import Choice, Flag, ListOf, Number, Text
from kkdcpd.config.reader import NamedTables, Table, setting
from kkdcpd.config.texts import parse_http_path, parse_mode, parse_realm_name
from kkdcpd.errors import ConfigProblem
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import KdcService

__all__ = [
    "AdditionalCertificate",
    "Config",
    "HttpConfig",
    "ListenConfig",
    "LogConfig",
    "RealmConfig",
    "TlsConfig",
    "UpstreamConfig",
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


def _seconds(maximum: float) -> Number:
    return Number(minimum=0.1, maximum=maximum, unit="seconds", is_whole=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenConfig:
    """[[listen]]: one address to accept connections on."""

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


def _plain_http_stays_local(listener: ListenConfig, key: str) -> Iterator[ConfigProblem]:
    if not (listener.tls or listener.plain_http_anywhere or listener.address.is_local):
        yield ConfigProblem(
            key=f"{key}.tls",
            problem=f"without TLS, whoever is on the way to {listener.address} could read and alter messages",
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


@dataclass(frozen=True, slots=True, kw_only=True)
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
        default=131072,
        metadata=setting(
            Number(minimum=1024, maximum=1048576, unit="bytes"), "The longest request body taken."
        ),
    )
    body_timeout: float = field(
        default=10.0, metadata=setting(_seconds(120), "How long a request's body may take to arrive.")
    )
    head_timeout: float = field(
        default=10.0, metadata=setting(_seconds(120), "How long a request's head may take to arrive.")
    )
    keepalive_timeout: float = field(
        default=60.0, metadata=setting(_seconds(3600), "How long an idle connection stays open.")
    )
    max_requests_per_connection: int = field(
        default=1000,
        metadata=setting(
            Number(minimum=1, maximum=1000000, unit="requests"), "After how many a connection is closed."
        ),
    )
    handshake_timeout: float = field(
        default=10.0, metadata=setting(_seconds(120), "How long a TLS handshake may take.")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditionalCertificate:
    """[[tls.additional]]: a certificate for clients that ask for one of its names by SNI (RFC 6066 3)."""

    certificate: Path = field(metadata=setting(_CERTIFICATE, "PEM file: the certificate, then its chain."))
    key: Path = field(metadata=setting(_KEY, "PEM file: the certificate's private key."))
    server_names: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(item=_SERVER_NAME, remedy='write a list of DNS names, such as ["kdc.example.com"]'),
            "Who asks for these names gets this certificate; by default the certificate's own DNS names.",
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


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamConfig:
    """[upstream]: how long KDCs may take, and how much they may say."""

    connect_timeout: float = field(
        default=1.5, metadata=setting(_seconds(60), "How long one TCP connect to a KDC may take.")
    )
    reach_timeout: float = field(
        default=5.0, metadata=setting(_seconds(60), "How long it may take until some KDC has the message.")
    )
    reply_timeout: float = field(
        default=20.0, metadata=setting(_seconds(300), "How long the whole request may take, reply included.")
    )
    max_reply_bytes: int = field(
        default=1048576,
        metadata=setting(Number(minimum=1024, maximum=16777216, unit="bytes"), "The longest reply taken."),
    )


def _timeouts_grow(upstream: UpstreamConfig, key: str) -> Iterator[ConfigProblem]:
    timeouts = ("connect_timeout", "reach_timeout", "reply_timeout")
    for shorter, longer in pairwise(timeouts):
        least, most = getattr(upstream, shorter), getattr(upstream, longer)
        if least > most:
            yield ConfigProblem(
                key=f"{key}.{shorter}",
                problem=f"{least:g} seconds is longer than {longer}, which is {most:g}",
                remedy=f"write {most:g} or less, or raise {longer}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """[log]: what is told on standard output."""

    format: Literal["text", "json"] = field(
        default="text", metadata=setting(Choice(words=("text", "json")), "How a log line looks.")
    )
    level: Literal["debug", "info", "warning", "error"] = field(
        default="info",
        metadata=setting(Choice(words=("debug", "info", "warning", "error")), "The least that is logged."),
    )


def _endpoints_differ(endpoints: Mapping[str, EndpointSpec]) -> Iterator[ConfigProblem]:
    seen: dict[str, EndpointSpec] = {}
    for key, endpoint in endpoints.items():
        for other_key, other in seen.items():
            if endpoint.overlaps(other):
                yield ConfigProblem(
                    key=key, problem=f"names the same endpoint as {other_key}", remedy="remove one of them"
                )
        seen[key] = endpoint


def _endpoints(service: KdcService, *, may_be_empty: bool) -> ListOf[EndpointSpec]:
    host = "kdc1.example.com"
    return ListOf(
        item=Text(
            parse=partial(parse_endpoint, service=service),
            remedy=f'write a host such as "{host}", "{host}:{service.default_port}", "tcp://{host}" '
            'or "[2001:db8::1]"',
        ),
        may_be_empty=may_be_empty,
        remedy=f'write a list of hosts, such as {service.value} = ["{host}"]',
        rule=_endpoints_differ,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmConfig:
    """[realms."NAME"]: a realm that is served, and who serves it."""

    name: str
    kdc: tuple[EndpointSpec, ...] = field(
        metadata=setting(
            _endpoints(KdcService.KDC, may_be_empty=False), "The realm's KDCs, in order of preference."
        )
    )
    kpasswd: tuple[EndpointSpec, ...] = field(
        default=(),
        metadata=setting(
            _endpoints(KdcService.KPASSWD, may_be_empty=True), "Who changes passwords (RFC 3244), in order."
        ),
    )
    aliases: tuple[str, ...] = field(
        default=(),
        metadata=setting(
            ListOf(item=_NAME, remedy='write a list of names, such as ["EXAMPLE"]'),
            "Other names by which clients ask for the realm, such as its NetBIOS name.",
        ),
    )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole configuration. `tls` is None where no listener speaks TLS."""

    listen: tuple[ListenConfig, ...] = field(
        default=(ListenConfig(),),
        metadata=setting(
            ListOf(
                item=Table(form=ListenConfig, rule=_plain_http_stays_local),
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
        metadata=setting(Table(form=UpstreamConfig, rule=_timeouts_grow), "How long KDCs may take."),
    )
    log: LogConfig = field(
        default=LogConfig(), metadata=setting(Table(form=LogConfig), "What is logged, and how.")
    )
    realms: tuple[RealmConfig, ...] = field(
        metadata=setting(
            NamedTables(
                form=RealmConfig,
                name=_NAME,
                remedy='add a realm: a section [realms."EXAMPLE.COM"] with kdc = ["kdc1.example.com"]',
                rule=_names_differ,
            ),
            "The realms that are served; no other is.",
        )
    )
