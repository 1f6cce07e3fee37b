"""The settings of the guard: rates, failures and policy. config.toml.example has the reasons."""

from collections.abc import Iterator
from dataclasses import field
from typing import Literal

from kkdcpd.config.addresses import Network, parse_trusted_network
from kkdcpd.config.kinds import Choice, ListOf, Member, Number, Text, seconds
from kkdcpd.config.patterns import PrincipalPattern, parse_principal_pattern
from kkdcpd.config.reader import Table, setting
from kkdcpd.config.rules import in_order, items_differ
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen
from kkdcpd.values import MessageKind, Mode

__all__ = [
    "CONNECTIONS_TABLE",
    "GUARD_TABLE",
    "POLICY_TABLE",
    "ConnectionsConfig",
    "FailuresConfig",
    "ForwardedHeader",
    "GuardConfig",
    "PolicyConfig",
    "RatesConfig",
    "RefusalForm",
]

RefusalForm = Literal["http", "krb_error"]
ForwardedHeader = Literal["none", "x-forwarded-for", "forwarded"]

_MODE = Member(enumeration=Mode)
_REQUESTS = (MessageKind.AS_REQ, MessageKind.TGS_REQ, MessageKind.KPASSWD_REQ)
_PROXIES = ListOf(
    item=Text(
        parse=parse_trusted_network, remedy='write a network such as "192.0.2.0/24" or "2001:db8::/32"'
    ),
    remedy='write a list of networks, such as ["192.0.2.1", "2001:db8::/64"]',
    rule=items_differ,
)
_PRINCIPALS = ListOf(
    item=Text(parse=parse_principal_pattern, remedy='write a pattern such as "*/admin" or "host/*"'),
    remedy='write a list of patterns, such as ["*/admin"]',
    rule=items_differ,
)
_RATE = Number(minimum=0.1, maximum=1000000, unit="requests per second", is_whole=False)
_BURST = Number(minimum=1, maximum=10000000, unit="requests")
_CONCURRENCY = Number(minimum=1, maximum=1000000, unit="requests")
_PRINCIPAL_COUNT = Number(minimum=1, maximum=1000000, unit="principals")
_FAILURE_COUNT = Number(minimum=1, maximum=1000000, unit="failures")


@frozen
class RatesConfig:
    """[guard.rates]: how much one client, one realm and all together may ask."""

    mode: Mode = field(
        default=Mode.ENFORCE, metadata=setting(_MODE, "Whether these limits are off, logged or enforced.")
    )
    client_rate: float = field(
        default=50.0, metadata=setting(_RATE, "How often one client may ask in the long run.")
    )
    client_burst: int = field(
        default=1000, metadata=setting(_BURST, "How many requests one client may have saved up.")
    )
    client_concurrency: int = field(
        default=256, metadata=setting(_CONCURRENCY, "How many requests of one client are served at a time.")
    )
    realm_rate: float = field(
        default=500.0, metadata=setting(_RATE, "How often one realm may be asked in the long run.")
    )
    realm_burst: int = field(
        default=5000, metadata=setting(_BURST, "How many requests for one realm may have been saved up.")
    )
    total_rate: float = field(
        default=1000.0, metadata=setting(_RATE, "How often all clients together may ask in the long run.")
    )
    total_burst: int = field(
        default=10000, metadata=setting(_BURST, "How many requests may have been saved up in all.")
    )
    total_concurrency: int = field(
        default=2048, metadata=setting(_CONCURRENCY, "How many requests are served at a time in all.")
    )


@frozen
class FailuresConfig:
    """[guard.failures]: when a client that fails to log in is taken for one that guesses."""

    mode: Mode = field(
        default=Mode.ENFORCE, metadata=setting(_MODE, "Whether these limits are off, logged or enforced.")
    )
    window: float = field(
        default=600.0,
        metadata=setting(seconds(86400, minimum=10), "For how long a failure counts."),
    )
    guesses: int = field(
        default=10, metadata=setting(_FAILURE_COUNT, "How often one principal may fail from one client.")
    )
    sprayed_principals: int = field(
        default=15,
        metadata=setting(_PRINCIPAL_COUNT, "How many principals may fail from one client without log-ons."),
    )
    principals_per_success: float = field(
        default=0.5,
        metadata=setting(
            Number(minimum=0, maximum=100, unit="principals per success", is_whole=False),
            "How many more may fail for each principal that logged on from there.",
        ),
    )
    unknown_principals: int = field(
        default=15,
        metadata=setting(_PRINCIPAL_COUNT, "How many principals that no KDC knows one client may ask for."),
    )
    kpasswd_failures: int = field(
        default=20, metadata=setting(_FAILURE_COUNT, "How often password changes may fail from one client.")
    )
    block: float = field(
        default=60.0,
        metadata=setting(
            seconds(86400, minimum=1), "How long a client is blocked first; it doubles each time."
        ),
    )
    block_maximum: float = field(
        default=3600.0, metadata=setting(seconds(86400, minimum=1), "How long a client is blocked at most.")
    )
    alert_clients: int = field(
        default=5,
        metadata=setting(
            Number(minimum=2, maximum=1000000, unit="clients"),
            "From how many clients one principal must fail before a warning is logged. It blocks no client.",
        ),
    )


def _failures_in_order(failures: FailuresConfig, key: str) -> Iterator[ConfigProblem]:
    return in_order(failures, key, [("block", "block_maximum")])


@frozen
class GuardConfig:
    """[guard]: what holds for all of its rules."""

    refusal: RefusalForm = field(
        default="http",
        metadata=setting(
            Choice(words=("http", "krb_error")),
            "How a client is refused: by an HTTP status, or by a KRB-ERROR within a good response.",
        ),
    )
    table_entries: int = field(
        default=65536,
        metadata=setting(
            Number(minimum=1024, maximum=16777216, unit="entries"),
            "How many clients and principals are remembered; a power of two.",
        ),
    )
    rates: RatesConfig = field(
        default=RatesConfig(), metadata=setting(Table(form=RatesConfig), "How often clients may ask.")
    )
    failures: FailuresConfig = field(
        default=FailuresConfig(),
        metadata=setting(
            Table(form=FailuresConfig, rule=_failures_in_order), "How often they may fail to log on."
        ),
    )


def _entries_are_a_power_of_two(guard: GuardConfig, key: str) -> Iterator[ConfigProblem]:
    entries = guard.table_entries
    if entries & (entries - 1):
        yield ConfigProblem(
            key=f"{key}.table_entries",
            problem=f"{entries} is no power of two",
            remedy=f"write {1 << entries.bit_length()}",
        )


@frozen
class PolicyConfig:
    """[policy], and for one realm [realms."NAME".policy]: what clients may send, and get."""

    message_kinds: tuple[MessageKind, ...] = field(
        default=_REQUESTS,
        metadata=setting(
            ListOf(
                item=Member(enumeration=MessageKind, members=_REQUESTS),
                remedy='write a list of kinds, such as ["as_req", "tgs_req"]',
                may_be_empty=False,
                rule=items_differ,
            ),
            "Which requests are relayed.",
        ),
    )
    message_kind: Mode = field(
        default=Mode.ENFORCE, metadata=setting(_MODE, "About requests of other kinds than these.")
    )
    kpasswd_set: Mode = field(
        default=Mode.OFF,
        metadata=setting(_MODE, "About password changes by the set protocol (version 0xff80, RFC 3244)."),
    )
    require_armor: Mode = field(
        default=Mode.OFF, metadata=setting(_MODE, "About passwords that are used without FAST or PKINIT.")
    )
    weak_etypes: Mode = field(
        default=Mode.MONITOR, metadata=setting(_MODE, "About requests that offer nothing but RC4 and DES.")
    )
    unproven_ticket: Mode = field(
        default=Mode.MONITOR, metadata=setting(_MODE, "About tickets given out without preauthentication.")
    )
    initial_service: Mode = field(
        default=Mode.MONITOR,
        metadata=setting(_MODE, "About AS-REQs for other services than krbtgt and kadmin/changepw."),
    )
    many_services: Mode = field(
        default=Mode.MONITOR, metadata=setting(_MODE, "About clients that ask for many services.")
    )
    services: int = field(
        default=50,
        metadata=setting(
            Number(minimum=1, maximum=1000000, unit="services"), "How many services are not yet many."
        ),
    )
    services_window: float = field(
        default=300.0, metadata=setting(seconds(86400, minimum=10), "For how long a service counts.")
    )
    s4u2self: Mode = field(
        default=Mode.OFF, metadata=setting(_MODE, "About tickets for others to oneself ([MS-SFU] 1.3.1).")
    )
    s4u2proxy: Mode = field(
        default=Mode.OFF, metadata=setting(_MODE, "About tickets for others elsewhere ([MS-SFU] 1.3.2).")
    )
    realm_mismatch: Mode = field(
        default=Mode.ENFORCE, metadata=setting(_MODE, "About messages that name another realm than asked.")
    )
    cname: Mode = field(
        default=Mode.ENFORCE, metadata=setting(_MODE, "About clients that the two lists below are against.")
    )
    cname_allow: tuple[PrincipalPattern, ...] = field(
        default=(), metadata=setting(_PRINCIPALS, "The only clients that get tickets; by default all.")
    )
    cname_deny: tuple[PrincipalPattern, ...] = field(
        default=(), metadata=setting(_PRINCIPALS, "Clients that get no tickets.")
    )
    sname: Mode = field(
        default=Mode.ENFORCE, metadata=setting(_MODE, "About services that the two lists below are against.")
    )
    sname_allow: tuple[PrincipalPattern, ...] = field(
        default=(), metadata=setting(_PRINCIPALS, "The only services beside krbtgt to have tickets for.")
    )
    sname_deny: tuple[PrincipalPattern, ...] = field(
        default=(), metadata=setting(_PRINCIPALS, "Services that no tickets are to be had for.")
    )
    client_certificate: Mode = field(
        default=Mode.ENFORCE,
        metadata=setting(_MODE, "About clients without one of the realm's client_certificates."),
    )
    token: Mode = field(
        default=Mode.ENFORCE, metadata=setting(_MODE, "About clients without a token of the realm's file.")
    )


@frozen
class ConnectionsConfig:
    """[connections]: how many may be open, how fast they may come, and which proxies name their clients."""

    maximum: int = field(
        default=8192,
        metadata=setting(
            Number(minimum=16, maximum=1048576, unit="connections"), "How many may be open in all."
        ),
    )
    per_client: int = field(
        default=1024,
        metadata=setting(
            Number(minimum=1, maximum=1048576, unit="connections"), "How many one client may have open."
        ),
    )
    per_network: int = field(
        default=4096,
        metadata=setting(
            Number(minimum=1, maximum=1048576, unit="connections"),
            "How many the clients of one IPv4 /24 or IPv6 /48 may have open together.",
        ),
    )
    handshake_rate: float = field(
        default=100.0,
        metadata=setting(
            Number(minimum=0.1, maximum=1000000, unit="handshakes per second", is_whole=False),
            "How often one client may begin a TLS handshake in the long run.",
        ),
    )
    handshake_burst: int = field(
        default=1000,
        metadata=setting(
            Number(minimum=1, maximum=10000000, unit="handshakes"),
            "How many handshakes one client may have saved up.",
        ),
    )
    write_timeout: float = field(
        default=10.0, metadata=setting(seconds(120), "How long a client may leave its reply unread.")
    )
    trusted_proxies: tuple[Network, ...] = field(
        default=(),
        metadata=setting(_PROXIES, "The networks of proxies that tell in whose name they connect."),
    )
    forwarded: ForwardedHeader = field(
        default="none",
        metadata=setting(
            Choice(words=("none", "x-forwarded-for", "forwarded")),
            "The HTTP header by which trusted proxies tell the client's address.",
        ),
    )


GUARD_TABLE = Table(form=GuardConfig, rule=_entries_are_a_power_of_two)
POLICY_TABLE = Table(form=PolicyConfig)
CONNECTIONS_TABLE = Table(form=ConnectionsConfig)
