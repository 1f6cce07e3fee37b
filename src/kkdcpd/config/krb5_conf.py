"""Takes the KDCs of the configured realms from the relations of a krb5.conf, and its permission to use DNS.

This module opens no file: `krb5_profile` and `named_files` read krb5.conf. See krb5.conf(5), [realms] and
[libdefaults].
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from kkdcpd.config.addresses import MAX_ENDPOINTS, EndpointSpec, parse_endpoint
from kkdcpd.config.krb5_profile import Relation
from kkdcpd.config.problems import collected
from kkdcpd.config.sections.realms import RealmConfig
from kkdcpd.errors import ConfigError, ConfigProblem, SettingError
from kkdcpd.frozen import frozen
from kkdcpd.protocol.realms import fold_realm
from kkdcpd.values import KdcService

__all__ = ["SOURCE", "Imported", "import_realms", "is_dns_allowed"]

SOURCE = "krb5.conf"

_YES = {"y", "yes", "true", "t", "1", "on"}  # as in lib/krb5/krb/libdef_parse.c; every other value is no
_SEPARATORS = re.compile(r"[\s,]+")
_HEIMDAL_TRANSPORT = re.compile(r"^(tcp|udp)/(?!/)", re.IGNORECASE)  # Heimdal's krb5.conf(5)
_UNUSABLE = {
    "https://": "names a proxy, perhaps kkdcpd itself",
    "http://": "names a proxy",
    "http/": "names a proxy",  # in Heimdal's form
    "/": "is a unix socket, which may not be here when it is needed",
}
_UNUSABLE_REMEDY = "name the KDCs in the configuration of kkdcpd, if krb5.conf has no others"
# For each list of a realm, the relations that may have it. The first relation that the realm has counts.
_RELATIONS = {
    "kdc": ("kdc",),
    "primary_kdc": ("primary_kdc", "master_kdc"),
    "kpasswd": ("kpasswd_server", "admin_server"),
}
_HOST_REMEDY = 'write a host such as "kdc1.example.com", "kdc1.example.com:88" or "[2001:db8::1]:88"'


@frozen
class Imported:
    """The realms with the lists of krb5.conf, and warnings."""

    realms: tuple[RealmConfig, ...]
    warnings: tuple[ConfigProblem, ...]


def is_dns_allowed(relations: Iterable[Relation]) -> bool:
    """Whether kkdcpd may look KDCs up in DNS: dns_lookup_kdc."""
    path = ("libdefaults", "dns_lookup_kdc")
    values = (relation.value for relation in relations if relation.path == path)
    return next(values, "true").lower() in _YES


def import_realms(realms: Iterable[RealmConfig], relations: Iterable[Relation]) -> Imported:
    """Add the lists of krb5.conf to each realm without lists and without a discovery of its own.

    Raises:
        ConfigError: an entry is not usable. Each of the `problems` has its file and line.
    """
    problems: list[ConfigProblem] = []
    warnings: list[ConfigProblem] = []
    known = tuple(relations)
    imported = []
    for realm in realms:
        with collected(problems):
            imported.append(_filled(realm, known, warnings) if _may_be_filled(realm) else realm)
    if problems:
        raise ConfigError(problems)
    return Imported(realms=tuple(imported), warnings=tuple(warnings))


def _may_be_filled(realm: RealmConfig) -> bool:
    has_lists = realm.kdc or realm.primary_kdc or realm.kpasswd
    return not (has_lists or realm.is_wildcard) and realm.discovery in {"auto", "none"}


def _filled(realm: RealmConfig, known: Iterable[Relation], warnings: list[ConfigProblem]) -> RealmConfig:
    relations = tuple(relation for relation in known if _is_about(relation, realm))
    problems: list[ConfigProblem] = []
    lists: dict[str, tuple[EndpointSpec, ...]] = {}
    for name in _RELATIONS:
        with collected(problems):
            lists[name] = _endpoints(name, relations, warnings)
    if problems:
        raise ConfigError(problems)
    if not any(lists.values()):
        return realm
    return replace(
        realm, kdc=lists["kdc"], primary_kdc=lists["primary_kdc"], kpasswd=lists["kpasswd"], source=SOURCE
    )


def _is_about(relation: Relation, realm: RealmConfig) -> bool:
    match relation.path:
        case ("realms", name, _key):
            return fold_realm(name) == fold_realm(realm.name)
    return False


def _endpoints(
    name: str, relations: Sequence[Relation], warnings: list[ConfigProblem]
) -> tuple[EndpointSpec, ...]:
    """Return the endpoints of one list, each once."""
    written = {relation.path[-1] for relation in relations}
    chosen = next((key for key in _RELATIONS[name] if key in written), None)
    problems: list[ConfigProblem] = []
    endpoints: list[EndpointSpec] = []
    of_chosen = [relation for relation in relations if relation.path[-1] == chosen]
    entries = [(relation, word) for relation in of_chosen for word in _words(relation)]
    if len(entries) > MAX_ENDPOINTS:
        origin = entries[MAX_ENDPOINTS][0].origin
        problem = f"{chosen} names {len(entries)} servers of one realm"
        raise ConfigError(
            [ConfigProblem(key=origin, problem=problem, remedy=f"leave at most {MAX_ENDPOINTS}")]
        )
    for relation, word in entries:
        with collected(problems):
            endpoint = _endpoint(name, word, relation, warnings)
            if endpoint and not any(endpoint.overlaps(other) for other in endpoints):
                endpoints.append(endpoint)
    if problems:
        raise ConfigError(problems)
    return tuple(endpoints)


def _words(relation: Relation) -> Iterator[str]:
    """Return the hosts in a value. A comment may follow: MIT ends a host at a blank."""
    words = filter(None, _SEPARATORS.split(relation.value))
    return takewhile(lambda word: word[0] not in "#;", words)


def _endpoint(name: str, word: str, relation: Relation, warnings: list[ConfigProblem]) -> EndpointSpec | None:
    for start, reason in _UNUSABLE.items():
        if word.lower().startswith(start):
            problem = f'{relation.path[-1]} = "{word}" {reason}: it is left out'
            warnings.append(ConfigProblem(key=relation.origin, problem=problem, remedy=_UNUSABLE_REMEDY))
            return None
    service = KdcService.KPASSWD if name == "kpasswd" else KdcService.KDC
    try:
        endpoint = parse_endpoint(_HEIMDAL_TRANSPORT.sub(r"\1://", word, count=1), service=service)
    except SettingError as error:
        problem = f'{relation.path[-1]} = "{word}" {error.problem}'
        remedy = error.remedy or _HOST_REMEDY
        raise ConfigError([ConfigProblem(key=relation.origin, problem=problem, remedy=remedy)]) from error
    # The port of admin_server is kadmin's; lib/krb5/os/changepw.c uses port 464 of this host.
    return replace(endpoint, port=service.default_port) if relation.path[-1] == "admin_server" else endpoint
