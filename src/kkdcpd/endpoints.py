"""Endpoints of KDCs and password servers, and the only parser and formatter of the texts that name them.

An endpoint text is `[SCHEME://]HOST[:PORT][/PATH]`. An IPv6 address stands in brackets if a port follows. A
new way out is a new member of `Transport`, a row of `SCHEMES`, and a row in `upstream.ways_out`.
"""

import re
from dataclasses import field
from ipaddress import IPv6Address

from kkdcpd.frozen import Word, frozen

__all__ = [
    "KDC_TRANSPORTS",
    "MAX_PORT",
    "PROXY_TRANSPORTS",
    "SCHEMES",
    "EndpointText",
    "EndpointTextError",
    "KdcEndpoint",
    "Scheme",
    "Transport",
    "format_host_port",
    "parse_endpoint_text",
    "parse_port",
    "split_host_port",
    "unpack_endpoint",
]

MAX_PORT = 65535

# Python takes digits of all scripts for digits, and refuses to read a number of more than 4300.
_DIGITS = re.compile(r"[0-9]{1,5}")

_HOST_PORT = re.compile(r"(?:\[(?P<bracketed>[^\[\]]*)\]|(?P<plain>[^:\[\]]*))(?::(?P<port>[^:]*))?")

# The characters of a path and query (RFC 3986 3.3, 3.4). They go into a request line as they are.
_PATH = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*")


class Transport(Word):
    """The protocol that carries messages to an endpoint. Its value is the scheme.

    TCP and UDP lead to a KDC (RFC 4120 7.2), HTTPS ([MS-KKDCP]) and WSS (docs/tunnel.md) to a KDC proxy.
    """

    TCP = "tcp"
    UDP = "udp"
    HTTPS = "https"
    WSS = "wss"


KDC_TRANSPORTS = (Transport.TCP, Transport.UDP)
"""The transports of KDCs and password servers, in the order of attempts."""

PROXY_TRANSPORTS = (Transport.HTTPS, Transport.WSS)
"""The transports of KDC proxies: [MS-KKDCP] by POST, or through a WebSocket."""

_SHARED_ADDRESSES = frozenset(PROXY_TRANSPORTS)
"""Transports with which servers of different names may share an address and port."""


@frozen
class Scheme:
    """The properties of a scheme.

    `transports` are in the order of attempts. Without a `default_port`, the service has one of its own. The
    TLS name of a scheme with TLS is the host of the text (`KdcEndpoint.name`).
    """

    transports: tuple[Transport, ...]
    default_port: int | None = None
    has_path: bool = False


SCHEMES = {
    "": Scheme(transports=KDC_TRANSPORTS),
    "tcp": Scheme(transports=(Transport.TCP,)),
    "udp": Scheme(transports=(Transport.UDP,)),
    "https": Scheme(transports=(Transport.HTTPS,), default_port=443, has_path=True),
    "wss": Scheme(transports=(Transport.WSS,), default_port=443, has_path=True),
}
"""All schemes. A text without a scheme names a host whose transports are not known.

`https://proxy.example.com` without a path means the path `/`, as for MIT's clients.
"""


class EndpointTextError(ValueError):
    """The text names no endpoint. `problem` and `remedy` are as in SettingError."""

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@frozen
class EndpointText:
    """The parts of an endpoint text. `host` may be any text: the parser does not check names."""

    transports: tuple[Transport, ...]
    host: str
    port: int
    path: str


@frozen
class KdcEndpoint:
    """One host, port and transport of a KDC. `name` is the host as configured, `address` an IP address.

    `path` is the path of the URL, empty for transports that have none. `branch` is the domain below a
    wildcard that the endpoint was found for, empty for a realm that the configuration names. The owner of the
    domain decides how many endpoints there are, so quotas are for the branch.
    """

    name: str
    address: str
    port: int
    transport: Transport
    path: str = ""
    branch: str = field(default="", compare=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        # Address and port distinguish enough endpoints.
        object.__setattr__(self, "_hash", hash((self.address, self.port)))

    def __hash__(self) -> int:
        # Each request looks endpoints up in several tables.
        return self._hash

    def __str__(self) -> str:
        """Return the text for logs and metrics, without the end of a longer path: it may be a token."""
        return f"{self.transport.value}://{self.host_port}{_shown(self.path) if self.path else ''}"

    @property
    def server(self) -> tuple[str, ...]:
        """A value that is equal for endpoints that lead to the same server."""
        if self.transport in _SHARED_ADDRESSES:
            return self.address, str(self.port), self.name.lower(), self.path
        return self.address, str(self.port)

    @property
    def host_port(self) -> str:
        """The host as configured and the port, as users read them."""
        return format_host_port(self.name, self.port)

    def pack(self) -> str:
        """Return a text from which another process makes an equal endpoint. No field contains a space."""
        return f"{self.transport.value} {self.address} {self.port} {self.path} {self.name}"


def unpack_endpoint(text: str, *, branch: str = "") -> KdcEndpoint:
    """Return the endpoint that `KdcEndpoint.pack` made the text of."""
    transport, address, port, path, name = text.split(" ", 4)
    return KdcEndpoint(
        name=name, address=address, port=int(port), transport=Transport(transport), path=path, branch=branch
    )


def format_host_port(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets (RFC 3986 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _shown(path: str) -> str:
    segment, _, rest = path[1:].replace("?", "/").partition("/")
    return f"/{segment}/..." if rest else f"/{segment}"


def parse_endpoint_text(text: str, *, default_port: int, is_lenient: bool = False) -> EndpointText:
    """Parse an endpoint text. `default_port` is the port of the service.

    Raises:
        EndpointTextError: the text has no valid form.
    """
    before, separator, after = text.partition("://")
    name, rest = (before.lower(), after) if separator else ("", text)
    scheme = SCHEMES.get(name)
    if scheme is None or (separator and not name):
        known = ", ".join(f"{known}://" for known in SCHEMES if known)
        raise EndpointTextError(
            f"begins with {before}://, which is no transport", f"write {known} or neither"
        )
    authority, slash, path = rest.partition("/")
    if slash and not scheme.has_path:
        raise EndpointTextError("has a path, which no KDC has", "remove the slash and the text after it")
    if not _PATH.fullmatch(path):
        raise EndpointTextError(
            "has a path with a character that no URL has",
            "write the character as % and two hexadecimal digits",
        )
    host, port = split_host_port(authority, is_lenient=is_lenient)
    number = scheme.default_port or default_port if port is None else parse_port(port)
    if not number:
        raise EndpointTextError(f"has a port that is no number from 1 to {MAX_PORT}")
    return EndpointText(transports=scheme.transports, host=host, port=number, path=slash + path)


def split_host_port(text: str, *, is_lenient: bool = False) -> tuple[str, str | None]:
    """Return the host and the text of the port, None if there is no port.

    The lenient form is MIT's for URI records: a bare IPv6 address has no port, and a port may be empty. In
    settings both are errors: 2001:db8::1:88 may be meant as a host and a port.

    Raises:
        EndpointTextError: brackets are missing, or surround a text that is no IPv6 address.
    """
    if is_lenient and _is_ipv6(text):
        return text, None
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        raise EndpointTextError(
            "has an IPv6 address that is not in brackets", "write it as in [2001:db8::1]:88"
        )
    bracketed = found["bracketed"]
    if bracketed is not None and not _is_ipv6(bracketed):
        raise EndpointTextError("has brackets round a text that is no IPv6 address")
    port = found["port"] or None if is_lenient else found["port"]
    return bracketed or found["plain"], port


def parse_port(text: str) -> int | None:
    """Return the number, from 0 to 65535; None if the text is no port. DNS records may have any text."""
    if not _DIGITS.fullmatch(text) or int(text) > MAX_PORT:
        return None
    return int(text)


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True
