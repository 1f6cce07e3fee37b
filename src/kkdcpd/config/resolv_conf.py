"""Reads the nameservers of a resolv.conf(5) as glibc does: a line that it can't use is passed over.

The file is the system's, not ours, and other programs work with it as it is. So nothing in it is an error.
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
"""The server to ask when the file names none (resolv.conf(5))."""

MAX_NAMESERVERS = 3
"""MAXNS of glibc, which does not ask any server after the third."""

MAX_SHOWN = 64
"""Characters of a line that a warning shows."""

# The keyword begins the line, and white space ends it and the address.
_NAMESERVER = re.compile(r"nameserver[ \t]+(?P<address>[^ \t]*)")
_ZONE = re.compile(r"[!-~]{1,15}")  # the name or number of an interface (IFNAMSIZ)


@frozen
class ResolvConf:
    """The servers to ask, in order, and a warning for each line that is passed over."""

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
            problem = f'nameserver "{shown}" is passed over, as it is no IP address'
            remedy = "write nameserver and an IP address, without a port"
            warnings.append(ConfigProblem(key=key, problem=problem, remedy=remedy))
        elif len(nameservers) == MAX_NAMESERVERS:
            problem = f"nameserver {nameserver.host} is passed over, as it comes after the third"
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
        # glibc takes 127.1 and the like too (inet_aton(3)).
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
