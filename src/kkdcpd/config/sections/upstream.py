"""The section [upstream]: exchanges with KDCs."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Annotated

from kkdcpd.config.addresses import parse_source_address
from kkdcpd.config.kinds import Items, Range, Text, seconds
from kkdcpd.config.problems import in_order
from kkdcpd.config.sections.https import HttpsConfig
from kkdcpd.config.texts import parse_principal
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["UpstreamConfig"]

SourceAddress = Annotated[
    str,
    Text(parse=parse_source_address, remedy='write an IP address of this host, such as "192.0.2.1"'),
]
Principal = Annotated[
    str,
    Text(parse=parse_principal, remedy='write a name such as "krbtgt", "probe" or "host/kdc1"'),
]


def _families_differ(addresses: Mapping[str, str]) -> Iterator[ConfigProblem]:
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
    """Exchanges with KDCs.

    Of connect_timeout, reach_timeout and reply_timeout, each must be at least as long as the one before it.
    """

    connect_timeout: Annotated[float, seconds(60)] = 1.5
    """The time for one TCP connect to a KDC.

    TCP repeats a lost SYN after 1 second, which must be in time. A dead KDC still leaves time for others.
    """

    reach_timeout: Annotated[float, seconds(60)] = 5.0
    """The time until a KDC has the message.

    SSSD gives up after 6 seconds, and MIT tries its next proxy after 10. With 5 seconds, both learn that no
    KDC is reachable, and go on. After about this time kkdcpd also gives up a KDC that has the message and
    leaves two probes unanswered.
    """

    reply_timeout: Annotated[float, seconds(300)] = 20.0
    """The time for the whole exchange with its reply.

    A one-time password that is sent to a phone takes this long. MIT's client waits 24 seconds.
    """

    max_reply_bytes: Annotated[int, Range(1024, 16777216, "bytes")] = 1048576
    """The longest reply. MIT's client accepts 1 MiB."""

    stagger: Annotated[float, seconds(2, minimum=0.01)] = 0.25
    """The delay between one connect and the next one, to another KDC or address.

    The first connection that opens gets the message, and only this one. RFC 8305 recommends a quarter of a
    second: distant healthy KDCs respond within it, and a dead KDC costs no more. Must not be longer than
    connect_timeout.
    """

    hedge_delay: Annotated[float, seconds(60, minimum=0.05)] = 0.4
    """The silence after which a KDC is suspect.

    kkdcpd then probes the KDC, and sends a repeatable message (a message that proves no password) to another
    KDC, too. Healthy KDCs reply within some milliseconds, and busy ones within 0.4 seconds. Must not be
    longer than reply_timeout.
    """

    hedge_ratio: Annotated[float, Range(0, 1, "hedges per request")] = 0.1
    """The budget for such second messages; 0 means none.

    A tenth is enough for a dead KDC until kkdcpd knows of it. If all KDCs are slow, it does not double their
    load. Each worker process has its own budget.
    """

    max_in_flight_per_kdc: Annotated[int, Range(1, 65536, "requests")] = 256
    """The limit of requests in flight from one worker process at one KDC; further requests go to the next
    KDC.

    A KDC needs less than a millisecond for a request: 256 requests are a queue of a quarter of a second. N
    worker processes have N times as many in all. Client networks share them fairly: when all slots are taken,
    the oldest request of the largest network gives way to a request of a smaller network. Among networks with
    one request each, a request gives way if the KDC has answered a later one.
    """

    password_change_preference: Annotated[float, seconds(86400, minimum=0)] = 600.0
    """After a password change, the time in which the user's log-ons prefer the server that took it; 0 means
    never.

    Other servers learn the new password by replication: within seconds in one site, within some minutes
    between sites. While the preferred server fails, kkdcpd uses the others as usual.
    """

    source_addresses: Annotated[
        tuple[SourceAddress, ...],
        Items(
            remedy='write a list of addresses, such as ["192.0.2.1", "2001:db8::1"]', rule=_families_differ
        ),
    ] = ()
    """The addresses of this host from which kkdcpd connects to KDCs, where a firewall needs it: at most one
    of IPv4 and one of IPv6, as in ["192.0.2.1", "2001:db8::1"]. By default the system chooses.
    """

    probe_principal: Principal = "krbtgt"
    """kkdcpd probes a failed KDC with an AS-REQ for this principal (without realm) until the KDC answers.

    "krbtgt" stands for krbtgt/REALM, which every realm has; an unknown name would fill the KDC's log with
    errors.
    """

    probe_interval: Annotated[float, seconds(60)] = 2.0
    probe_interval_maximum: Annotated[float, seconds(3600)] = 60.0
    """The delay of the first probe after a failure. Each further delay is twice as long, up to the maximum.

    So kkdcpd notices a restarted KDC within seconds, and probes a KDC that is switched off once a minute.
    """

    https: HttpsConfig = HttpsConfig()

    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        """Find times that are longer than the time that contains them."""
        pairs = (
            ("stagger", "connect_timeout"),
            ("connect_timeout", "reach_timeout"),
            ("reach_timeout", "reply_timeout"),
            ("hedge_delay", "reply_timeout"),
            ("probe_interval", "probe_interval_maximum"),
        )
        return in_order(self, key, pairs)
