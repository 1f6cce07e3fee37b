"""The section [log]: the form and the level of the log, and the names in it."""

from dataclasses import field
from pathlib import Path
from typing import Annotated, Literal

from kkdcpd.config.kinds import File
from kkdcpd.config.reader import NOT_A_SETTING
from kkdcpd.frozen import frozen

__all__ = ["AreaLevel", "LogConfig", "LogLevels", "Principals"]

AreaLevel = Literal["default", "debug", "info", "warning", "error"]
Principals = Literal["plain", "hashed", "omitted"]


@frozen
class LogLevels:
    """The levels of single areas.

    "default" is the level above. docs/log.md lists the events of each area.
    """

    exchange: AreaLevel = "default"
    """One line for each request: the audit record."""

    guard: AreaLevel = "default"
    """Blocked clients, and principals under attack."""

    connections: AreaLevel = "default"
    """Connections, TLS handshakes, HTTP."""

    kdc: AreaLevel = "default"
    """KDCs that fail or recover."""

    locate: AreaLevel = "default"
    """DNS, sites, and servers from DNS that kkdcpd refuses."""

    process: AreaLevel = "default"
    """Start and end, the configuration, the log itself."""

    libraries: AreaLevel = "default"
    """Messages of asyncio and other libraries."""


@frozen
class LogConfig:
    """The log goes to standard output, where systemd's journal and containers collect it."""

    format: Literal["text", "json"] = "text"
    """The form of a line: "text" is for people, "json" (one object on each line) for log collectors."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that kkdcpd logs. info has one line for each request; debug helps to find a fault."""

    principals: Principals = "plain"
    """The form of principals and certificates.

    "plain" helps with faults and audits. "hashed" replaces each name by a pseudonym, so that lines of one
    name still belong together. "omitted" leaves names out.
    """

    principals_key_file: Annotated[Path | None, File("/etc/kkdcpd/principals.key")] = None
    """A file with the secret of the pseudonyms. With "", kkdcpd makes a new secret, and so new pseudonyms, at
    each start.

    Without the secret, a reader of the log could try names until a pseudonym matches. Make the file with
    `openssl rand -hex 32`, readable only by root and kkdcpd's group. Hosts that share the file use the same
    pseudonyms. A relative path starts at the directory of this file.
    """

    # The contents of the file, once `load` has read it.
    principals_key: Annotated[bytes | None, NOT_A_SETTING] = field(default=None, repr=False)

    levels: LogLevels = LogLevels()
