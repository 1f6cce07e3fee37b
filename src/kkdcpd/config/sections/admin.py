"""The section [admin]: the listener for metrics and health, and the realms that decide about readiness."""

from collections.abc import Iterator
from typing import Annotated

from kkdcpd.config.addresses import ListenAddress, parse_listen_address
from kkdcpd.config.kinds import Items, Text
from kkdcpd.config.problems import items_differ
from kkdcpd.config.texts import UnixMode, parse_realm_name
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["AdminConfig"]

Address = Annotated[
    ListenAddress | None,
    Text(
        parse=parse_listen_address,
        remedy='write an address of this host such as "127.0.0.1:9088", or "unix:/run/kkdcpd/admin.sock", '
        'or "" for none',
    ),
]
ReadyRealm = Annotated[
    str,
    Text(parse=parse_realm_name, remedy='write the name of a realm, such as "EXAMPLE.COM"'),
]


@frozen
class AdminConfig:
    """Metrics for Prometheus, and health, by plain HTTP on a listener of their own.

    The paths are /metrics, /livez, /readyz and /status (docs/metrics.md). Every program that can connect can
    read names of realms and KDCs, but no secret and nothing about a single client.
    """

    address: Address = ListenAddress(host="127.0.0.1", port=9088)
    """The address and port of the admin listener; "" means no admin listener.

    "127.0.0.1:9088" is for this host only; "unix:/run/kkdcpd/admin.sock" for users that may open this file.
    Kerberos clients have no use for it, so it is never one of the listeners above.
    """

    unix_mode: UnixMode = 0o660
    """The file mode of the UNIX socket, in octal digits as for chmod(1).

    By default the owner and the group may connect.
    """

    anywhere: bool = False
    """true allows any address, such as "192.0.2.1:9088" or "*:9088", for a network in which every host may
    read it, or behind a firewall that lets only Prometheus in.
    """

    ready_realms: Annotated[
        tuple[ReadyRealm, ...],
        Items(remedy='write a list of realms, such as ["EXAMPLE.COM"]', rule=items_differ),
    ] = ()
    """The realms that decide about readiness, as in ["EXAMPLE.COM"]. The default is none.

    While one of them has no reachable KDC, /readyz has status 503, and a load balancer uses another kkdcpd.
    List only realms that the other kkdcpd may still reach: if the KDCs themselves are down, a load balancer
    would remove all proxies.
    """

    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        """Find an address that other hosts can connect to."""
        if self.address is None or self.address.is_local or self.anywhere:
            return
        yield ConfigProblem(
            key=f"{key}.address",
            problem=f"at {self.address}, every host that can connect could read the names of realms and KDCs",
            remedy="listen on 127.0.0.1, [::1] or a unix socket, or accept it with anywhere = true",
        )
