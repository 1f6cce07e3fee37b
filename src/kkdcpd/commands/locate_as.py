"""`kkdcpd locate --as CLIENT`: shows how a client without a list of KDCs finds a realm's servers in DNS."""

import textwrap
from collections.abc import Mapping, Sequence

from kkdcpd.commands.locate import TITLES, table
from kkdcpd.config import Config, LocateConfig, RealmConfig, SystemFiles
from kkdcpd.errors import DnsFailedError
from kkdcpd.frozen import frozen
from kkdcpd.locate.client_views import LocatingClient, LookUpStep, View, view
from kkdcpd.locate.dns import DnsClient
from kkdcpd.locate.dns_wire import RecordType
from kkdcpd.locate.krb5srv import is_address
from kkdcpd.locate.records import Record
from kkdcpd.values import KdcService

__all__ = ["AGENT", "CLIENTS", "Addressed", "agent_config", "locate_as", "render"]

AGENT = "agent"
"""The agent's view is the real search of `locate.locator`, and not a model of it."""

CLIENTS = (*(client.value for client in LocatingClient), AGENT)

_NAMES = {
    LocatingClient.MIT: "MIT Kerberos",
    LocatingClient.APPLE: "Apple",
    LocatingClient.KERBEROS_NET: "Kerberos.NET",
}

_WIDTH = 100


@frozen
class Addressed:
    """A view, and the addresses of the servers' hosts or the reason why a host has none."""

    view: View
    addresses: Mapping[str, str]


def agent_config(realm: str, locate: LocateConfig) -> Config:
    """Return the configuration of a kkdcpd that finds the proxies of a realm in DNS."""
    return Config(realms=(RealmConfig(name=realm, discovery="proxies"),), locate=locate)


async def locate_as(
    client: LocatingClient,
    realm: str,
    services: Sequence[KdcService],
    locate: LocateConfig,
    system: SystemFiles,
) -> tuple[Addressed, ...]:
    """Look up what the client looks up, at the configured DNS servers, or else at those of the system."""
    dns = DnsClient(locate.nameservers or system.resolver().nameservers, timeout=locate.dns_timeout)

    async def look_up(name: str, record_type: RecordType) -> Sequence[Record]:
        return (await dns.query(name, record_type)).records

    views = [await view(client, realm, service, look_up) for service in services]
    return tuple([Addressed(view=each, addresses=await _addresses(dns, each)) for each in views])


async def _addresses(dns: DnsClient, found: View) -> Mapping[str, str]:
    hosts = dict.fromkeys(server.host for server in found.servers)
    return {host: host if is_address(host) else await _addresses_of(dns, host) for host in hosts}


async def _addresses_of(dns: DnsClient, host: str) -> str:
    texts: list[str] = []
    try:
        for record_type in (RecordType.AAAA, RecordType.A):
            texts += map(str, (await dns.query(host, record_type)).records)
    except DnsFailedError as error:
        return f"unknown: {error}"
    return ", ".join(texts) or "none in DNS"


def render(found: Sequence[Addressed]) -> str:
    """Lay the views out for a terminal."""
    return "\n\n".join("\n".join(_section(each)) for each in found)


def _section(found: Addressed) -> list[str]:
    shown = found.view
    lines = [f"{_NAMES[shown.client]}, {TITLES[shown.service]}:", "", "Looks up:"]
    lines += table([row for step in shown.steps for row in _rows(step)]) or ["  nothing"]
    if shown.servers:
        rows = [
            (f"  {number}", str(server), found.addresses[server.host])
            for number, server in enumerate(shown.servers, 1)
        ]
        lines += ["", "Uses, in this order:", *table(rows)]
    else:
        lines += ["", "Finds no server."]
    for remark in shown.remarks:
        lines += ["", *textwrap.wrap(remark, _WIDTH, break_long_words=False, break_on_hyphens=False)]
    return lines


def _rows(step: LookUpStep) -> list[tuple[str, str, str]]:
    question = f"  {step.record_type.value} {step.name}"
    if step.failure:
        return [(question, "", step.failure)]
    uses = step.uses or (("no record", ""),)
    return [(question if not position else "", *use) for position, use in enumerate(uses)]
