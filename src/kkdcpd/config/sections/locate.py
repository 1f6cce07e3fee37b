"""The section [locate]: look-ups of KDCs in DNS and krb5.conf, and limits for their results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from kkdcpd.config.addresses import Nameserver, Network, parse_nameserver, parse_network, parse_server_domain
from kkdcpd.config.kinds import File, Items, Range, Text, seconds
from kkdcpd.config.problems import in_order, items_differ
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["LocateConfig"]

DnsServer = Annotated[
    Nameserver,
    Text(
        parse=parse_nameserver,
        remedy='write an IP address such as "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:53"',
    ),
]
AllowedNetwork = Annotated[
    Network,
    Text(parse=parse_network, remedy='write a network such as "192.0.2.0/24" or "2001:db8::/32"'),
]
Domain = Annotated[str, Text(parse=parse_server_domain, remedy='write a domain such as "example.com"')]


@frozen
class LocateConfig:
    """Finding KDCs that no list names.

    kkdcpd looks up only the realms in this file. An attacker that forges your DNS could name servers; these
    limits keep kkdcpd from connecting to other services.
    """

    krb5_conf: Annotated[Path | None, File("/etc/krb5.conf")] = None
    """The path of a krb5.conf; a relative path starts at the directory of this file. The default, "", is
    none.

    Realms with neither lists nor a discovery of their own take kdc, primary_kdc and kpasswd from it. If it
    has dns_lookup_kdc = false, kkdcpd does not look these realms up in DNS. kkdcpd reads it at start and
    reload. It does not serve realms that are only in krb5.conf.
    """

    nameservers: Annotated[
        tuple[DnsServer, ...],
        Items(remedy='write a list of addresses, such as ["192.0.2.53"]', rule=items_differ),
    ] = ()
    """The DNS servers in order: "192.0.2.53", "192.0.2.53:5353" or "[2001:db8::53]:53". The default is the
    servers of /etc/resolv.conf.
    """

    dns_timeout: Annotated[float, seconds(60)] = 2.0
    """The time for a whole look-up with all its tries.

    2 seconds are enough for a lost packet and a dead DNS server, and leave time to reach a KDC. Must not be
    longer than upstream.reach_timeout.
    """

    minimum_ttl: Annotated[int, Range(1, 86400, "seconds")] = 10
    maximum_ttl: Annotated[int, Range(1, 604800, "seconds")] = 3600
    """The shortest and the longest time that kkdcpd uses an answer, whatever its TTL.

    The minimum keeps a TTL of 0 from causing a look-up for each request. The maximum lets kkdcpd find a new
    KDC within the hour.
    """

    negative_ttl: Annotated[int, Range(1, 10800, "seconds")] = 30
    """The time that kkdcpd remembers that a name has no records.

    It is short, because an administrator may add the records soon; RFC 2308 allows at most 3 hours.
    """

    stale_ttl: Annotated[int, Range(0, 604800, "seconds")] = 86400
    """The time that kkdcpd uses expired answers while DNS is down; 0 means never.

    One day covers a night and the next morning. KDCs rarely move, and RFC 8767 suggests 1 to 3 days.
    """

    cache_entries: Annotated[int, Range(64, 1048576, "entries")] = 4096
    """The number of cached answers.

    A realm takes some ten entries, and an entry about one KiB: 4096 are 4 MiB in each worker process. A
    quarter of them is for realms under wildcards.
    """

    wildcard_realms: Annotated[int, Range(1, 65536, "realms")] = 64
    """The number of realms that each wildcard may serve at a time.

    Clients can make up names; few forests have 64 domains. When all are taken, the domain or client network
    with the most realms loses one.
    """

    rediscovery_interval: Annotated[float, seconds(3600)] = 30.0
    """The interval in which clients may have a realm looked up anew (the flag force-rediscovery of Windows).

    30 seconds find a new KDC soon, and make the flag useless for an attacker.
    """

    allowed_ports: Annotated[
        tuple[Annotated[int, Range(1, 65535)], ...],
        Items(remedy="write a list of ports, such as [88, 464]", may_be_empty=False, rule=items_differ),
    ] = (88, 464)
    """The ports that DNS records may name; 88 is Kerberos, 464 password changes.

    kkdcpd refuses other ports with a warning, so that no DNS record can make it connect to other services
    (CVE-2025-59088).
    """

    allowed_networks: Annotated[
        tuple[AllowedNetwork, ...],
        Items(remedy='write a list of networks, such as ["192.0.2.0/24"]', rule=items_differ),
    ] = ()
    """The networks that KDCs from DNS may be in, as in ["192.0.2.0/24", "2001:db8::/32"].

    The default, [], is every address but special ones: loopback, link-local, site-local, multicast,
    unspecified, reserved, Teredo and benchmark addresses. A listed network is allowed even if it is special.
    """

    proxy_ports: Annotated[
        tuple[Annotated[int, Range(1, 65535)], ...],
        Items(remedy="write a list of ports, such as [443]", may_be_empty=False, rule=items_differ),
    ] = (443,)
    proxy_domains: Annotated[
        tuple[Domain, ...],
        Items(remedy='write a list of domains, such as ["example.com"]', rule=items_differ),
    ] = ()
    proxy_networks: Annotated[
        tuple[AllowedNetwork, ...],
        Items(remedy='write a list of networks, such as ["192.0.2.0/24"]', rule=items_differ),
    ] = ()
    """The same for KDC proxies, in realms with discovery = "proxies": the ports that DNS records may name,
    the domains of the proxies' names (default: any), and the networks of their addresses.

    A proxy needs a certificate for its name, but an attacker that forges your DNS can choose the name. So
    name your domain in proxy_domains, as in ["example.com"].
    """

    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        """Find a minimum that is longer than the maximum."""
        return in_order(self, key, [("minimum_ttl", "maximum_ttl")])
