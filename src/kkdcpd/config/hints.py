"""Finds valid settings that may not be what the administrator wants."""

from collections.abc import Iterator

from kkdcpd.config.addresses import zone_of
from kkdcpd.config.krb5_conf import SOURCE
from kkdcpd.config.problems import join
from kkdcpd.config.schema import Config
from kkdcpd.config.sections.realms import RealmConfig
from kkdcpd.errors import ConfigProblem
from kkdcpd.socket_address import is_interface

__all__ = ["find_hints"]


def find_hints(config: Config) -> Iterator[ConfigProblem]:
    """Find realms that refuse password changes, and addresses on missing network interfaces."""
    for realm in config.realms:
        if realm.discovery == "none" and not realm.kpasswd:
            yield _no_kpasswd(realm)
    yield from _missing_interfaces(config)


def _no_kpasswd(realm: RealmConfig) -> ConfigProblem:
    if realm.source == SOURCE:
        # With a list in this file, kkdcpd would ignore krb5.conf for this realm.
        return ConfigProblem(
            key=join("realms", realm.name),
            problem="has no kpasswd_server in krb5.conf, so password changes are refused for this realm",
            remedy=f"add the servers that change passwords there: kpasswd_server = {realm.kdc[0].host}",
        )
    return ConfigProblem(
        key=join(join("realms", realm.name), "kpasswd"),
        problem="is missing, so password changes are refused for this realm",
        remedy=f'add the servers that change passwords, often the KDCs: kpasswd = ["{realm.kdc[0].host}"]',
    )


def _missing_interfaces(config: Config) -> Iterator[ConfigProblem]:
    """Find the link-local addresses on a network interface that this host does not have."""
    for key, host in _hosts_of(config):
        zone = zone_of(host)
        if zone and not is_interface(zone):
            yield ConfigProblem(
                key=key,
                problem=f"{host} is on the network interface {zone}, which this host does not have",
                remedy="correct the zone after the %, or bring the interface up",
            )


def _hosts_of(config: Config) -> Iterator[tuple[str, str]]:
    """Yield each host in the configuration, with its setting."""
    for listen in config.listen:
        yield "listen.address", listen.address.host
    for nameserver in config.locate.nameservers:
        yield "locate.nameservers", nameserver.host
    for address in config.upstream.source_addresses:
        yield "upstream.source_addresses", address
    for realm in config.realms:
        for setting, endpoints in (("kdc", realm.kdc), ("kpasswd", realm.kpasswd)):
            for endpoint in endpoints:
                yield join(join("realms", realm.name), setting), endpoint.host
