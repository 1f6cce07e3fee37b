"""Writes the configuration by which Kerberos programs of this host reach the agent. Pure.

MIT Kerberos, Heimdal and Java read krb5.conf differently, so each has its own text. docs/agent.md explains
the lines.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kkdcpd.endpoints import format_host_port
from kkdcpd.frozen import frozen

__all__ = [
    "AgentService",
    "Krb5TextError",
    "LocalAddress",
    "heimdal_text",
    "java_options",
    "java_text",
    "mit_text",
]

_KDC_PORT = 88

_REALM = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
"""In krb5.conf, spaces, braces, `=`, `*` and line ends have other meanings."""

_PATH = re.compile(r"/[!-~]+")
"""A socket's path that krb5.conf can have. A blank ends a value for some programs."""


class Krb5TextError(Exception):
    """The text cannot be written; the message says why and what to do."""


@frozen
class LocalAddress:
    """Where the agent listens: `socket`, or else `host` (an IP address or `localhost`) and `port`."""

    host: str = ""
    port: int = 0
    socket: Path | None = None

    def __str__(self) -> str:
        return str(self.socket) if self.socket else format_host_port(self.host, self.port)


@frozen
class AgentService:
    """The realms that the agent serves, the default realm first, and its addresses for both services.

    Without `kpasswd`, the agent takes no password changes.
    """

    realms: tuple[str, ...]
    kdc: LocalAddress
    kpasswd: LocalAddress | None = None

    def __post_init__(self) -> None:
        for realm in self.realms:
            if not _REALM.fullmatch(realm):
                raise Krb5TextError(
                    f"krb5.conf cannot have the realm {realm!r}: use letters, digits, . and -"
                )
        for address in self._addresses:
            if address.socket and not _PATH.fullmatch(str(address.socket)):
                raise Krb5TextError(
                    f"krb5.conf cannot have the path {address.socket}: use a path without blanks"
                )

    @property
    def _addresses(self) -> Iterable[LocalAddress]:
        return (self.kdc, self.kpasswd) if self.kpasswd else (self.kdc,)

    @property
    def is_on_sockets(self) -> bool:
        """Whether a UNIX socket is the only address of a service."""
        return any(address.socket for address in self._addresses)


def mit_text(agent: AgentService, *, is_whole: bool = False) -> str:
    """Write the text for MIT Kerberos: a drop-in for /etc/krb5.conf.d, or a `whole` krb5.conf.

    The drop-in does not turn DNS off, because other realms of the host may need it. It names all kinds of
    servers, so libkrb5 looks up none of them in DNS. The agent uses TCP only, or else a request would come by
    UDP and, after a second, again by TCP.
    """
    lines = ["[libdefaults]", "    udp_preference_limit = 1"]
    if is_whole:
        lines += _whole_defaults(agent, ("dns_lookup_kdc", "dns_lookup_realm"))
    return _joined([*lines, "", *_realms(agent, _mit_servers(agent))])


def heimdal_text(agent: AgentService) -> str:
    """Write a whole krb5.conf for Heimdal. `tcp/` makes it send each request once, over TCP.

    Raises:
        Krb5TextError: the agent listens on UNIX sockets, which Heimdal cannot use.
    """
    _expect_ports(agent, "Heimdal")
    servers = [("kdc", f"tcp/{agent.kdc}")]
    if agent.kpasswd:
        servers += [("kpasswd_server", f"tcp/{agent.kpasswd}"), ("admin_server", f"tcp/{agent.kpasswd}")]
    lines = ["[libdefaults]", *_whole_defaults(agent, ("dns_lookup_kdc", "dns_lookup_realm"))]
    return _joined([*lines, "", *_realms(agent, servers)])


def java_text(agent: AgentService) -> str:
    """Write a whole krb5.conf for Java and for gokrb5.

    Java takes 0 as "UDP always" and 1 as "TCP always" (KdcComm.java).

    Raises:
        Krb5TextError: the agent listens on UNIX sockets, which Java cannot use.
    """
    _expect_ports(agent, "Java")
    servers = [("kdc", f"{agent.kdc}")]
    if agent.kpasswd:
        # gokrb5 changes passwords, and Java ignores the line.
        servers += [("kpasswd_server", f"{agent.kpasswd}"), ("admin_server", f"{agent.kpasswd}")]
    defaults = _whole_defaults(agent, ("dns_lookup_kdc", "dns_lookup_realm"))
    return _joined(["[libdefaults]", "    udp_preference_limit = 1", *defaults, "", *_realms(agent, servers)])


def java_options(agent: AgentService, krb5_conf: Path) -> tuple[str, ...]:
    """Return options for the `java` command. `krb5_conf` is a file with the text for Java.

    Two properties can replace the file, but only for one realm at port 88: colons divide the hosts of
    `java.security.krb5.kdc`, so it can have neither a port nor an IPv6 address (Config.java).
    """
    is_plain = agent.kdc.port == _KDC_PORT and ":" not in agent.kdc.host and len(agent.realms) == 1
    if agent.is_on_sockets or not is_plain:
        return (f"-Djava.security.krb5.conf={krb5_conf}",)
    return (f"-Djava.security.krb5.realm={agent.realms[0]}", f"-Djava.security.krb5.kdc={agent.kdc.host}")


def _mit_servers(agent: AgentService) -> Sequence[tuple[str, str]]:
    """Name all kinds of servers: libkrb5 looks up other kinds in DNS, past the agent (locate_kdc.c)."""
    kdc = [("kdc", f"{agent.kdc}"), ("primary_kdc", f"{agent.kdc}")]
    if not agent.kpasswd:
        return kdc
    return [*kdc, ("kpasswd_server", f"{agent.kpasswd}"), ("admin_server", f"{agent.kpasswd}")]


def _whole_defaults(agent: AgentService, switched_off: Iterable[str]) -> list[str]:
    return [f"    default_realm = {agent.realms[0]}", *(f"    {name} = false" for name in switched_off)]


def _realms(agent: AgentService, servers: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield "[realms]"
    for realm in agent.realms:
        yield f"    {realm} = {{"
        yield from (f"        {name} = {value}" for name, value in servers)
        yield "    }"


def _joined(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _expect_ports(agent: AgentService, program: str) -> None:
    if agent.is_on_sockets:
        raise Krb5TextError(f"{program} cannot use a UNIX socket: give the agent an address and a port")
