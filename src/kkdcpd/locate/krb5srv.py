"""Reads and writes `krb5srv` URIs, which name KDCs, password servers and KDC proxies in DNS. Pure.

The form is `krb5srv:[FLAGS]:TRANSPORT:RESIDUAL` (draft-mccallum-kitten-krb-service-discovery 3, and krb5's
locate_kdc.c, which is more lenient). The residual of `udp` and `tcp` is a host and port. The residual of
`kkdcp` is the URL of a KDC proxy: https://, or wss:// for its WebSocket, which MIT's clients skip.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from kkdcpd.config.addresses import is_domain_name
from kkdcpd.endpoints import (
    PROXY_TRANSPORTS,
    EndpointText,
    EndpointTextError,
    Transport,
    parse_endpoint_text,
)
from kkdcpd.frozen import frozen
from kkdcpd.protocol.ip_addresses import parse_address

__all__ = [
    "INVALID_HOST",
    "Krb5Srv",
    "format_proxy",
    "format_server",
    "is_address",
    "is_host",
    "parse_krb5srv",
    "parse_proxy_url",
]

INVALID_HOST = "the host is invalid, or the port after it"

_SCHEME = "krb5srv"
_DECLINED = "."  # as in SRV records (RFC 2782)
_PROXY_SCHEMES = tuple(f"{transport.value}://" for transport in PROXY_TRANSPORTS)

_PATH = re.compile(r"(?:/[!$-\[\]-~]*)?")
"""RFC 3986 3.3 and 3.4, more widely. Spaces, line ends and fragments could change the HTTP request, quotation
marks and backslashes a zone file."""


@frozen
class Krb5Srv:
    """The server that a URI names. Without `endpoint`, the domain says that it does not offer the service."""

    endpoint: EndpointText | None
    is_primary: bool


def parse_krb5srv(uri: str, *, default_port: int) -> Krb5Srv | None:
    """Parse a URI. Return None if it has another scheme. `default_port` is the port of the service.

    Raises:
        EndpointTextError: the URI names no server.
    """
    scheme, _, rest = uri.partition(":")
    if scheme.lower() != _SCHEME:
        return None
    flags, _, rest = rest.partition(":")
    transport, _, residual = rest.partition(":")
    parse = _PARSERS.get(transport.lower())
    if parse is None:
        raise EndpointTextError("the transport is unknown; known are udp, tcp and kkdcp")
    endpoint = None if residual == _DECLINED else parse(transport.lower(), residual, default_port)
    return Krb5Srv(endpoint=endpoint, is_primary="m" in flags.lower())


def parse_proxy_url(url: str) -> EndpointText:
    """Parse the URL of a KDC proxy. The host becomes the TLS name, and the path a part of the HTTP request.

    Raises:
        EndpointTextError: the text is no such URL.
    """
    if not url.lower().startswith(_PROXY_SCHEMES):
        raise EndpointTextError("the URL of a KDC proxy does not begin with https:// or wss://")
    _, slash, path = url.partition("://")[2].partition("/")
    if not _PATH.fullmatch(slash + path):
        raise EndpointTextError("the path has a character that no URL has")
    endpoint = _parse(url, default_port=0, is_lenient=False)
    if not is_host(endpoint.host):
        raise EndpointTextError(INVALID_HOST)
    # MIT's clients send `POST /` for a URL without a path.
    return replace(endpoint, path=endpoint.path or "/")


def format_proxy(url: str) -> str:
    """Return the URI for a KDC proxy. The flag m spares clients a second try at the primary KDC."""
    return f"{_SCHEME}:m:kkdcp:{url}"


def format_server(transport: Transport, host_port: str) -> str:
    """Return the URI for a KDC or password server."""
    return f"{_SCHEME}:m:{transport.value}:{host_port}"


def is_host(text: str) -> bool:
    """Whether the text is a host name or an IP address."""
    return is_address(text) or is_domain_name(text)


def is_address(text: str) -> bool:
    """Whether the text is an IP address. An address with a zone has a meaning on one host only."""
    try:
        parse_address(text)
    except ValueError:
        return False
    return "%" not in text


def _parse_server(transport: str, residual: str, default_port: int) -> EndpointText:
    endpoint = _parse(f"{transport}://{residual}", default_port=default_port, is_lenient=True)
    if not endpoint.host:
        raise EndpointTextError(INVALID_HOST)
    return endpoint


def _parse(text: str, *, default_port: int, is_lenient: bool) -> EndpointText:
    try:
        return parse_endpoint_text(text, default_port=default_port, is_lenient=is_lenient)
    except EndpointTextError as error:
        raise EndpointTextError(INVALID_HOST) from error


_PARSERS: Mapping[str, Callable[[str, str, int], EndpointText]] = {
    "tcp": _parse_server,
    "udp": _parse_server,
    "kkdcp": lambda _, url, __: parse_proxy_url(url),
}
