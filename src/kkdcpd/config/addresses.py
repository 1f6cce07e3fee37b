"""Parses the settings that are addresses: listeners, KDCs, DNS servers, networks, source addresses.

Pure: no name is resolved and no socket is touched. An IPv4-mapped IPv6 address is read as the IPv4 address.
"""

import ipaddress
import re
from pathlib import Path

from kkdcpd.endpoints import (
    MAX_PORT,
    EndpointTextError,
    Transport,
    format_host_port,
    parse_endpoint_text,
    parse_port,
    split_host_port,
)
from kkdcpd.errors import SettingError
from kkdcpd.frozen import frozen
from kkdcpd.protocol import ip_addresses
from kkdcpd.protocol.ip_addresses import Address, Network
from kkdcpd.values import KdcService

__all__ = [
    "ANY_HOST",
    "MAX_ENDPOINTS",
    "EndpointSpec",
    "ListenAddress",
    "Nameserver",
    "Network",
    "is_domain_name",
    "parse_endpoint",
    "parse_listen_address",
    "parse_nameserver",
    "parse_network",
    "parse_server_domain",
    "parse_server_name",
    "parse_source_address",
    "parse_trusted_network",
    "zone_of",
]

ANY_HOST = "*"

MAX_ENDPOINTS = 256
"""The most servers in one list. Larger realms list them in DNS. Comparing thousands would take minutes."""

_MAX_UNIX_PATH_BYTES = 107  # sun_path of unix(7) is 108 bytes with its NUL
_MAX_NAME_LENGTH = 253  # RFC 1035 2.3.4: 255 bytes on the wire
_DNS_PORT = 53  # RFC 1035 4.2

_ZONE = re.compile(r"[^\s/%]{1,15}")  # the name of a network interface (IFNAMSIZ), or its number

_LEAST_TRUSTED_BITS = {4: 8, 6: 16}
"""The widest networks that one organisation has on the Internet; a wider network has hosts of others."""

# RFC 1123 2.1, with the underscore that Active Directory allows in host names.
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")


@frozen
class ListenAddress:
    """The address of a listener: `unix_path`, or else `host` (an IP address or ANY_HOST) and `port`.

    Port 0 is any free port.
    """

    host: str = ANY_HOST
    port: int = 0
    unix_path: Path | None = None

    def __str__(self) -> str:
        if self.unix_path:
            return f"unix:{self.unix_path}"
        return format_host_port(self.host, self.port)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this host can connect."""
        if self.unix_path:
            return True
        return self.host != ANY_HOST and ipaddress.ip_address(self.host).is_loopback

    def overlaps(self, other: "ListenAddress") -> bool:
        """Whether the system refuses to bind both addresses."""
        if self.unix_path or other.unix_path:
            return self.unix_path == other.unix_path
        return self.port == other.port != 0 and self._shares_host(other)

    def _shares_host(self, other: "ListenAddress") -> bool:
        if ANY_HOST in {self.host, other.host}:
            return True
        mine, theirs = ipaddress.ip_address(self.host), ipaddress.ip_address(other.host)
        if mine.version != theirs.version:
            return False
        return mine == theirs or mine.is_unspecified or theirs.is_unspecified


@frozen
class EndpointSpec:
    """A KDC as configured: a host name or IP address, a port, and the transports in the order of attempts."""

    host: str
    port: int
    transports: tuple[Transport, ...]
    path: str = ""

    def overlaps(self, other: "EndpointSpec") -> bool:
        """Whether both name one endpoint, so that a message could reach it twice."""
        mine, theirs = ((each.host.lower(), each.port, each.path) for each in (self, other))
        return mine == theirs and not set(self.transports).isdisjoint(other.transports)


@frozen
class Nameserver:
    """A DNS server: `host` is an IP address."""

    host: str
    port: int = _DNS_PORT

    def __str__(self) -> str:
        return format_host_port(self.host, self.port)


def parse_listen_address(text: str) -> ListenAddress:
    """Read `host:port`, `[v6]:port`, `*:port` or `unix:/path`."""
    if text.startswith("unix:"):
        return ListenAddress(unix_path=_parse_unix_path(text.removeprefix("unix:")))
    host, port = _split_port(text)
    if port is None:
        raise SettingError("has no port")
    if host == ANY_HOST:
        return ListenAddress(host=ANY_HOST, port=_parse_port(port, least=0))
    address = _ip_address(host)
    if address is None:
        raise SettingError("does not begin with an IP address")
    return ListenAddress(host=address, port=_parse_port(port, least=0))


def parse_endpoint(text: str, *, service: KdcService) -> EndpointSpec:
    """Read `host`, `host:port`, or either after a scheme of `endpoints.SCHEMES`.

    A host without a scheme gets messages over TCP, and over UDP only where TCP cannot connect: TCP carries
    replies of any size, and a message that must not be repeated is never lost in a datagram.
    """
    try:
        parsed = parse_endpoint_text(text, default_port=service.default_port)
    except EndpointTextError as error:
        raise SettingError(error.problem, error.remedy) from error
    return EndpointSpec(
        host=_ip_address(parsed.host) or _checked_name(parsed.host),
        port=parsed.port,
        transports=parsed.transports,
        path=parsed.path,
    )


def parse_nameserver(text: str) -> Nameserver:
    """Read an IP address, or an IP address and a port. IPv6 before a port is in brackets."""
    host, port = (text, None) if _ip_address(text) else _split_port(text)
    address = _ip_address(host)
    if address is None:
        raise SettingError("does not begin with an IP address")
    return Nameserver(host=address, port=_DNS_PORT if port is None else _parse_port(port, least=1))


def parse_network(text: str) -> Network:
    """Read a network in CIDR notation (RFC 4632 3.1, RFC 4291 2.3), or one address."""
    if "%" in text:
        raise SettingError("has a zone, which no network has", "remove the % and the zone after it")
    try:
        network = ip_addresses.parse_network(text)
    except ValueError as error:
        raise SettingError("is no IP network") from error
    if network.network_address != ip_addresses.parse_address(text.partition("/")[0]):
        raise SettingError("is an address within a network", f'write "{network}" for all of the network')
    return network


def parse_trusted_network(text: str) -> Network:
    """Read a network of proxies. Refuse a large part of the Internet, in which any client could be."""
    network = parse_network(text)
    if network.prefixlen < _LEAST_TRUSTED_BITS[network.version] and not network.is_private:
        raise SettingError(
            "holds a large part of the Internet, and each of its hosts could name any client's address",
            "write the addresses of your proxies; to trust every host that can reach a listener, use a unix "
            "socket and its unix_mode",
        )
    return network


def parse_source_address(text: str) -> str:
    """Read an address of this host, for outgoing connections."""
    address = _ip_address(text)
    if address is None:
        raise SettingError("is no IP address")
    if ipaddress.ip_address(address).is_unspecified or ipaddress.ip_address(address).is_multicast:
        raise SettingError("is no address that one interface can have")
    return address


def zone_of(host: str) -> str | None:
    """Return the network interface that a link-local address names after its `%` (RFC 4007 11)."""
    return host.partition("%")[2] or None


def is_domain_name(text: str) -> bool:
    """Whether DNS can have names below this name."""
    return len(text) <= _MAX_NAME_LENGTH and bool(_HOST_NAME.fullmatch(text))


def parse_server_name(text: str) -> str:
    """Read a DNS name as TLS clients send it in SNI; `*.` before it stands for any one label."""
    _checked_name(text.removeprefix("*."))
    return text.lower()


def parse_server_domain(text: str) -> str:
    """Read a domain that contains the names of servers."""
    if _ip_address(text):
        raise SettingError("is an address, which no domain contains")
    return _checked_name(text).lower().removesuffix(".")


def _split_port(text: str) -> tuple[str, str | None]:
    try:
        return split_host_port(text)
    except EndpointTextError as error:
        raise SettingError(error.problem, error.remedy) from error


def _parse_port(text: str, *, least: int) -> int:
    port = parse_port(text)
    if port is None or port < least:
        raise SettingError(f"has a port that is no number from {least} to {MAX_PORT}")
    return port


def _ip_address(text: str) -> str | None:
    """Return the IP address in its canonical form, if the text is one."""
    try:
        address = ip_addresses.parse_address(text)
    except ValueError:
        return None
    _check_zone(address)
    return str(address)


def _check_zone(address: Address) -> None:
    """Refuse a link-local address without its network interface, and an interface of any other address."""
    zone = zone_of(str(address))
    if zone is None:
        if address.version == 6 and address.is_link_local:
            raise SettingError(
                "is a link-local address, which needs the name of a network interface",
                f'add the interface, as in "[{address}%eth0]"',
            )
    elif not address.is_link_local:
        raise SettingError(
            "has a zone, which only link-local addresses have", "remove the % and what follows"
        )
    elif not _ZONE.fullmatch(zone):
        raise SettingError("has a zone that is no name of a network interface", 'write one such as "eth0"')


def _checked_name(name: str) -> str:
    if not name.isascii():
        raise SettingError(
            "has a name that is not ASCII", "write the name's ASCII form, such as xn--bcher-kva.example"
        )
    # RFC 1123 2.1: no top-level domain is numeric, so this is a mistyped IP address.
    if ":" in name or name.removesuffix(".").rpartition(".")[2].isdigit():
        raise SettingError("has no valid IP address")
    if len(name) > _MAX_NAME_LENGTH or not _HOST_NAME.fullmatch(name):
        raise SettingError("has no valid host name")
    return name


def _parse_unix_path(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise SettingError("has no absolute path")
    if len(text.encode()) > _MAX_UNIX_PATH_BYTES:
        raise SettingError(f"has a path of more than {_MAX_UNIX_PATH_BYTES} bytes, which no socket can have")
    return Path(text)
