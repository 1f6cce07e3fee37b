"""The sections [realms."NAME"]: the realms that kkdcpd serves, and their servers."""

from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from kkdcpd.config.addresses import MAX_ENDPOINTS, EndpointSpec, parse_endpoint
from kkdcpd.config.kinds import File, Items, Text
from kkdcpd.config.patterns import CertificatePattern, parse_certificate_pattern
from kkdcpd.config.problems import items_differ
from kkdcpd.config.reader import NOT_A_SETTING, Shown
from kkdcpd.config.sections.policy import PolicyConfig
from kkdcpd.config.texts import WILDCARD, parse_realm_name, parse_site
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import KdcService

__all__ = ["Discovery", "RealmConfig", "find_realm_problems"]

Discovery = Literal["auto", "none", "dns", "active_directory", "proxies"]

Alias = Annotated[str, Text(parse=parse_realm_name, remedy='write a name such as "EXAMPLE.COM"')]
Site = Annotated[str, Text(parse=parse_site, remedy='write a name such as "Default-First-Site-Name"')]
Pattern = Annotated[
    CertificatePattern,
    Text(
        parse=parse_certificate_pattern,
        remedy='write a pattern such as "subject:CN=*,O=Example", "dns:*.example.com", '
        '"email:*@example.com", "upn:*@EXAMPLE.COM" or "uri:spiffe://example.com/*"',
    ),
]


def _endpoint(service: KdcService) -> Text[EndpointSpec]:
    host = "kdc1.example.com"
    return Text(
        parse=partial(parse_endpoint, service=service),
        remedy=f'write a host such as "{host}", "{host}:{service.default_port}", "tcp://{host}" '
        'or "[2001:db8::1]"',
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


def _hosts(name: str, *, may_be_empty: bool = True) -> Items:
    return Items(
        remedy=f'write a list of hosts, such as {name} = ["kdc1.example.com"], or leave it out',
        may_be_empty=may_be_empty,
        at_most=MAX_ENDPOINTS,
        rule=_endpoints_differ,
    )


Kdcs = tuple[Annotated[EndpointSpec, _endpoint(KdcService.KDC)], ...]
PasswordServers = tuple[Annotated[EndpointSpec, _endpoint(KdcService.KPASSWD)], ...]


@frozen
class RealmConfig:
    """A realm that kkdcpd serves, and its servers."""

    name: Annotated[str, NOT_A_SETTING]
    # The file that names the servers: the configuration or krb5.conf.
    source: Annotated[str, NOT_A_SETTING] = "configuration"
    # The SHA-256 digests of the secrets in `tokens_file`, once `load` has read it.
    tokens: Annotated[tuple[bytes, ...], NOT_A_SETTING] = field(default=(), repr=False)

    # An empty list of KDCs could mean no server, or the servers in DNS.
    kdc: Annotated[
        Kdcs, _hosts("kdc", may_be_empty=False), Shown('["kdc1.example.com", "kdc2.example.com"]')
    ] = ()
    """The KDCs in order of preference. Without this line, kkdcpd looks them up in DNS.

    kkdcpd serves only the realms in this file, whatever name a client sends.
    """

    kpasswd: Annotated[PasswordServers, _hosts("kpasswd"), Shown('["kdc1.example.com"]')] = ()
    """The servers that change passwords: any domain controller, or the admin server of MIT and FreeIPA.
    Without this line, kkdcpd refuses password changes for this realm, unless it looks the servers up in DNS.
    """

    aliases: Annotated[tuple[Alias, ...], Items(remedy='write a list of names, such as ["EXAMPLE"]')] = ()
    """Other names of this realm that clients use: Windows uses the NetBIOS name, as in ["EXAMPLE"].

    Upper and lower case are equal in names. The default is none.
    """

    primary_kdc: Annotated[Kdcs, _hosts("primary_kdc")] = ()
    """The KDCs for requests that need the primary KDC (Windows: the PDC), such as a log-on right after a
    password change. The default is every KDC.
    """

    # "auto" is decided when the files are read: a loaded configuration does not have it.
    discovery: Discovery = "auto"
    """The source of servers that no list above names: "dns" uses URI and SRV records, as MIT does;
    "active_directory" uses the records of domain controllers, and starts with the nearest site.

    "proxies" uses records of KDC proxies, for a kkdcpd outside the network of the KDCs. With "none" there is
    no such source. "auto" means "none" if this section has kdc (or krb5.conf names KDCs, see [locate]), else
    "dns". [locate] has the limits for DNS.
    """

    site: Site = ""
    """With discovery = "active_directory": kkdcpd prefers the domain controllers of this site, such as
    "Default-First-Site-Name". With the default, "", kkdcpd asks a domain controller for the site of this
    host.
    """

    client_certificates: Annotated[
        tuple[Pattern, ...],
        Items(remedy='write a list of patterns, such as ["dns:*.example.com"]', rule=items_differ),
    ] = ()
    """The client certificates that may use this realm, on listeners that request certificates. By default,
    clients need no certificate.

    A certificate must match one of these patterns, as in ["dns:*.example.com",
    "subject:CN=*,OU=Laptops,O=Example"]. A pattern begins with the compared part: subject:, or one of the
    subjectAltNames dns:, email:, uri:, upn: (the log-on name of smart cards). `*` is any text within one
    value of the subject; upper and lower case are equal. `openssl x509 -noout -subject -nameopt
    RFC2253,-esc_msb -in FILE` prints a subject in the form of a pattern.
    """

    tokens_file: Annotated[Path | None, File("/etc/kkdcpd/tokens")] = None
    """A file of secrets. Clients then reach the realm only by a path that ends in one of these secrets (see
    "Tokens" below). The default, "", is none.
    """

    # In a loaded configuration: the whole policy of the realm, with the settings of [policy].
    policy: PolicyConfig = PolicyConfig()
    """The settings of [policy] that differ for this realm, as in { require_armor = "enforce" }."""

    """More about realms. Write the name in quotes, because it contains dots. Add one section for each realm.
    Write a KDC or kpasswd server as

        "kdc1.example.com"        port 88 (kpasswd: 464); TCP first, and UDP only if no TCP connection opens:
                                  so replies of any size pass, and no password is tried twice
        "kdc1.example.com:1088"   another port
        "tcp://kdc1.example.com"  TCP only: no wait where a firewall drops UDP
        "udp://kdc1.example.com"  UDP only, as for Heimdal's kpasswdd
        "192.0.2.10", "[2001:db8::10]:88"
                                  addresses

    A section [realms."*.EXAMPLE.COM"] serves every realm below EXAMPLE.COM, at any depth, but not
    EXAMPLE.COM. So the domains of a forest need no section each. Such a section has no lists, only discovery
    (and site).
    """

    """Tokens: Windows clients accept only a URL, so the secret is a part of the URL's path. The file has one
    token on each line, of at least 16 of the characters A-Z a-z 0-9 . _ ~ - (lines that begin with # are
    comments); `openssl rand -hex 16` makes a token. Clients then use
    https://kdc.example.com/KdcProxy/THE-TOKEN. With two lines, an old and a new token are valid while you
    change it. kkdcpd neither logs nor stores tokens. A program that can read a client's configuration can
    read its token, so tokens only keep unknown clients out.
    """

    @property
    def is_wildcard(self) -> bool:
        """Whether the section stands for all realms below its name."""
        return self.name.startswith(WILDCARD)

    @property
    def domain(self) -> str:
        """The name, without the star of a wildcard."""
        return self.name.removeprefix(WILDCARD)


def find_realm_problems(realms: Mapping[str, RealmConfig]) -> Iterator[ConfigProblem]:
    """Find realms with the same name, and settings that contradict each other."""
    yield from _names_differ(realms)
    for rule in (_wildcard_has_no_lists, _wildcard_has_discovery, _site_is_used):
        for key, realm in realms.items():
            yield from rule(realm, key)


def _names_differ(realms: Mapping[str, RealmConfig]) -> Iterator[ConfigProblem]:
    seen: dict[str, str] = {}
    for key, realm in realms.items():
        aliases = {f"{key}.aliases[{position}]": alias for position, alias in enumerate(realm.aliases)}
        for name_key, name in {key: realm.name, **aliases}.items():
            first = seen.setdefault(fold_realm(name), name_key)
            if first != name_key:
                yield ConfigProblem(
                    key=name_key,
                    problem=f'"{name}" is the same name as {first}, as case and a last dot don\'t count',
                    remedy="remove one of them",
                )


_LISTS = ("kdc", "primary_kdc", "kpasswd", "aliases")


def _wildcard_has_no_lists(realm: RealmConfig, key: str) -> Iterator[ConfigProblem]:
    for name in _LISTS if realm.is_wildcard else ():
        if getattr(realm, name):
            yield ConfigProblem(
                key=f"{key}.{name}",
                problem="stands under a wildcard, and can't hold for every realm",
                remedy="remove it, or add a section for the realm it belongs to",
            )


def _wildcard_has_discovery(realm: RealmConfig, key: str) -> Iterator[ConfigProblem]:
    if realm.is_wildcard and realm.discovery == "none":
        yield ConfigProblem(
            key=f"{key}.discovery",
            problem="is none, but a wildcard's realms have no other way to be found",
            remedy='write "dns" or "active_directory"',
        )


def _site_is_used(realm: RealmConfig, key: str) -> Iterator[ConfigProblem]:
    if realm.site and realm.discovery != "active_directory":
        yield ConfigProblem(
            key=f"{key}.site",
            problem=f'"{realm.site}" is never used, as discovery is "{realm.discovery}"',
            remedy='write discovery = "active_directory", or remove the site',
        )
