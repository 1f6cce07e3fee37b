"""Reads the nameservers of a resolv.conf(5) as glibc does: an unusable line is ignored.

The file belongs to the system, and other programs work with it. So a fault in it is a warning, not an error.
"""

import ipaddress
import re
import socket
from collections.abc import Iterator

from kkdcpd.config.addresses import Nameserver
from kkdcpd.errors import ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["ResolvConf", "read_resolv_conf"]

LOCAL_RESOLVER = Nameserver(host="127.0.0.1")
"""The server of a file without nameservers (resolv.conf(5))."""

MAX_NAMESERVERS = 3
"""MAXNS of glibc, which ignores further servers."""

MAX_SHOWN = 64
"""Characters of a line that a warning shows."""

# The keyword begins the line, and white space ends it and the address.
_NAMESERVER = re.compile(r"nameserver[ \t]+(?P<address>[^ \t]*)")
_ZONE = re.compile(r"[!-~]{1,15}")  # the name or number of an interface (IFNAMSIZ)


@frozen
class ResolvConf:
    """The servers to ask, in order, and a warning for each ignored line."""

    nameservers: tuple[Nameserver, ...]
    warnings: tuple[ConfigProblem, ...] = ()


def read_resolv_conf(text: str, source: str) -> ResolvConf:
    """Read the text of the file `source`."""
    nameservers: list[Nameserver] = []
    warnings: list[ConfigProblem] = []
    for number, written in _written_nameservers(text):
        key = f"{source} line {number}"
        nameserver = _nameserver(written)
        if nameserver is None:
            shown = ascii(written[:MAX_SHOWN])[1:-1]
            problem = f'nameserver "{shown}" is ignored, as it is no IP address'
            remedy = "write nameserver and an IP address, without a port"
            warnings.append(ConfigProblem(key=key, problem=problem, remedy=remedy))
        elif len(nameservers) == MAX_NAMESERVERS:
            problem = f"nameserver {nameserver.host} is ignored, as it comes after the third"
            remedy = "set locate.nameservers to ask more"
            warnings.append(ConfigProblem(key=key, problem=problem, remedy=remedy))
        else:
            nameservers.append(nameserver)
    return ResolvConf(
        nameservers=tuple(dict.fromkeys(nameservers)) or (LOCAL_RESOLVER,), warnings=tuple(warnings)
    )


def _written_nameservers(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        found = _NAMESERVER.match(line)
        if found:
            yield number, found["address"].removesuffix("\r")


def _nameserver(text: str) -> Nameserver | None:
    try:
        # glibc accepts short forms such as 127.1 (inet_aton(3)).
        return Nameserver(host=str(ipaddress.IPv4Address(socket.inet_aton(text))))
    except (OSError, ValueError):
        return _ipv6_nameserver(text)


def _ipv6_nameserver(text: str) -> Nameserver | None:
    address, _, zone = text.partition("%")
    try:
        parsed = ipaddress.IPv6Address(address)
    except ValueError:
        return None
    if not (parsed.is_link_local and zone):
        return Nameserver(host=str(parsed))
    return Nameserver(host=f"{parsed}%{zone}") if _ZONE.fullmatch(zone) else None
