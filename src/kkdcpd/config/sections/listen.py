"""The section [[listen]]: the addresses on which kkdcpd accepts connections of clients."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from kkdcpd.config.addresses import ListenAddress, parse_listen_address
from kkdcpd.config.kinds import Text
from kkdcpd.config.reader import NOT_A_SETTING
from kkdcpd.config.texts import UnixMode
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["ClientCertificates", "ListenConfig", "addresses_differ"]

ClientCertificates = Literal["none", "optional", "required"]

Address = Annotated[
    ListenAddress,
    Text(
        parse=parse_listen_address,
        remedy='write an IP address and a port such as "192.0.2.1:443" or "[2001:db8::1]:443", '
        'or "*:443" for all addresses, or "unix:/run/kkdcpd/http.sock"',
    ),
]


@frozen
class ListenConfig:
    """Listeners. Change the address here, or add another section [[listen]] for each further address."""

    # The section of the address, if it is another section: the admin listener has the same class.
    section: Annotated[str, NOT_A_SETTING] = ""

    address: Address = ListenAddress(port=443)
    """The address and port. Port 0 is any free port, for tests.

    "192.0.2.1:443", "[2001:db8::1]:443", "*:443" for all IPv4 and IPv6 addresses (a host name is not valid,
    because its address may change), or "unix:/run/kkdcpd/http.sock" for a reverse proxy on this host. Every
    client tries port 443 first, and every firewall lets it out.
    """

    tls: bool = True
    """TLS on this listener. false means plain HTTP, behind a reverse proxy that handles TLS.

    kkdcpd accepts it only on 127.0.0.1, [::1] and UNIX sockets: Kerberos protects passwords well, but shows
    the names of users and services.
    """

    plain_http_anywhere: bool = False
    """true allows plain HTTP on every address, for a network that you trust between reverse proxy and kkdcpd.
    """

    unix_mode: UnixMode = 0o660
    """The file mode of a UNIX socket, in octal digits as for chmod(1).

    By default the owner and the group may connect.
    """

    proxy_protocol: bool = False
    """Write true if a proxy in front (HAProxy, nginx, a cloud's load balancer) begins each connection with a
    PROXY header, version 1 or 2, that has the client's address.

    Then every connection must have this header, and must come from [connections] trusted_proxies or through a
    UNIX socket, which unix_mode protects.
    """

    client_certificates: ClientCertificates = "none"
    """Certificates of clients, from an authority in [tls] client_ca. "none" requests no certificate.

    With "required", every TLS client needs a certificate. With "optional", clients without a certificate
    reach the realms that need none. MIT's clients cannot show a certificate; Windows' own proxy requests it
    in the same way (HttpsClientAuth).
    """

    def find_problems(self, key: str) -> Iterator[ConfigProblem]:
        """Find plain HTTP that other hosts can read, and certificates without TLS."""
        if not (self.tls or self.plain_http_anywhere or self.address.is_local):
            yield ConfigProblem(
                key=f"{key}.tls",
                problem=f"without TLS, each host on the way to {self.address} can read and change messages",
                remedy="write tls = true, or listen on 127.0.0.1, [::1] or a unix socket, "
                "or accept it with plain_http_anywhere = true",
            )
        if self.client_certificates != "none" and not self.tls:
            yield ConfigProblem(
                key=f"{key}.client_certificates",
                problem=f'is "{self.client_certificates}", but only TLS has certificates',
                remedy="write tls = true, or remove it",
            )


def addresses_differ(listeners: Mapping[str, ListenConfig]) -> Iterator[ConfigProblem]:
    """Find listeners that would take the address of an earlier listener."""
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
