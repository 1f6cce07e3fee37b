"""Reads the command line of `kkdcpd agent`: which proxies to use, where to listen, and what to write."""

import argparse
import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from kkdcpd.commands.krb5_texts import AgentService, LocalAddress
from kkdcpd.config.addresses import is_domain_name
from kkdcpd.endpoints import (
    MAX_PORT,
    EndpointText,
    EndpointTextError,
    parse_port,
    split_host_port,
)
from kkdcpd.frozen import frozen
from kkdcpd.locate.krb5srv import is_address, parse_proxy_url

__all__ = ["ENTRA_REALM", "AgentOptions", "AgentOptionsError", "read_options"]

ENTRA_REALM = "KERBEROS.MICROSOFTONLINE.COM"
"""The realm of all tenants: the path of the URL names the tenant."""

_ENTRA_URL = "https://login.microsoftonline.com/{}/kerberos"
_TENANT_ID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

SYSTEM_PORTS = (88, 464)
USER_PORTS = (10088, 10464)
"""For users without rights to lower ports. No system takes these ports for outgoing connections."""

_LOOPBACK = ("127.0.0.1", "::1")
"""Both, because a program may use either address of `localhost`, and impacket uses the first one only."""

SOCKET_NAMES = ("kdc", "kpasswd")


class AgentOptionsError(Exception):
    """The command line is invalid; the text names the option and a remedy."""


@frozen
class AgentOptions:
    """What the agent is to do.

    Without `proxies`, the agent finds the proxies of the realms in DNS. `kdc` and `kpasswd` are the addresses
    to listen at, for programs the first one; without `kpasswd` the agent takes no password changes.
    """

    realms: tuple[str, ...]
    proxies: tuple[EndpointText, ...]
    kdc: tuple[LocalAddress, ...]
    kpasswd: tuple[LocalAddress, ...]
    krb5_conf: Path | None = None

    @property
    def service(self) -> AgentService:
        """The agent as the programs of the host reach it."""
        return AgentService(
            realms=self.realms, kdc=self.kdc[0], kpasswd=self.kpasswd[0] if self.kpasswd else None
        )


def read_options(options: argparse.Namespace, *, is_root: bool) -> AgentOptions:
    """Read the parsed arguments.

    Raises:
        AgentOptionsError: an argument is invalid, or two arguments contradict each other.
    """
    urls, realms = tuple(options.urls), tuple(options.realm)
    if options.entra is not None:
        urls, realms = _entra(options.entra, urls, realms)
    if not realms:
        raise AgentOptionsError("no realm is named; add --realm REALM")
    kdc, kpasswd = _addresses(options.listen, options.socket, SYSTEM_PORTS if is_root else USER_PORTS)
    return AgentOptions(
        realms=realms,
        proxies=tuple(map(_proxy, urls)),
        kdc=kdc,
        # Entra Kerberos changes no passwords.
        kpasswd=() if options.entra is not None else kpasswd,
        krb5_conf=options.krb5_conf,
    )


def _entra(
    tenant: str, urls: tuple[str, ...], realms: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if urls or realms:
        raise AgentOptionsError("--entra has its own URL and realm; leave the URL and --realm out")
    # The tenant becomes a part of the URL.
    if not (_TENANT_ID.fullmatch(tenant) or ("." in tenant and is_domain_name(tenant))):
        raise AgentOptionsError(f"--entra: {tenant!r} is neither the id nor the domain of a tenant")
    return (_ENTRA_URL.format(tenant),), (ENTRA_REALM,)


def _proxy(url: str) -> EndpointText:
    try:
        return parse_proxy_url(url)
    except EndpointTextError as error:
        raise AgentOptionsError(f"{url}: {error.problem}") from error


_Addresses = tuple[LocalAddress, ...]

_PASSWORD_PORT_OFFSET = SYSTEM_PORTS[1] - SYSTEM_PORTS[0]


def _addresses(
    listen: Sequence[str], folder: Path | None, ports: tuple[int, int]
) -> tuple[_Addresses, _Addresses]:
    """Return the addresses of both services: the sockets last, because all programs can use the others."""
    texts = listen or (() if folder else _LOOPBACK)
    pairs = [_address(text, ports) for text in texts]
    if folder:
        kdc, kpasswd = (LocalAddress(socket=folder / name) for name in SOCKET_NAMES)
        pairs.append((kdc, kpasswd))
    return tuple(kdc for kdc, _ in pairs), tuple(kpasswd for _, kpasswd in pairs)


def _address(text: str, ports: tuple[int, int]) -> tuple[LocalAddress, LocalAddress]:
    try:
        host, port = split_host_port(text, is_lenient=True)
    except EndpointTextError as error:
        raise AgentOptionsError(f"--listen {text}: {error.problem}") from error
    if not is_address(host):
        raise AgentOptionsError(f"--listen {text}: name an IP address, such as 127.0.0.1:{ports[0]}")
    if not ip_address(host.partition("%")[0]).is_loopback:
        raise AgentOptionsError(
            f"--listen {text}: other hosts could use the agent; name an address such as 127.0.0.1:{ports[0]}"
        )
    number = ports[0] if port is None else parse_port(port)
    if not number or number + _PASSWORD_PORT_OFFSET > MAX_PORT:
        highest = MAX_PORT - _PASSWORD_PORT_OFFSET
        raise AgentOptionsError(f"--listen {text}: the port is no number from 1 to {highest}")
    kpasswd = LocalAddress(host=host, port=number + _PASSWORD_PORT_OFFSET)
    return LocalAddress(host=host, port=number), kpasswd
