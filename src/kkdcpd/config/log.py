"""The settings of the log: how lines look, which are told, and how they name people.

Reasons are in config.toml.example.
"""

from dataclasses import field
from pathlib import Path
from typing import Literal

from kkdcpd.config.kinds import Choice, Text
from kkdcpd.config.reader import Table, setting
from kkdcpd.config.texts import parse_optional_path
from kkdcpd.frozen import frozen

__all__ = ["LOG_TABLE", "AreaLevel", "LogConfig", "LogLevels", "Principals"]

Level = Literal["debug", "info", "warning", "error"]
AreaLevel = Literal["default", "debug", "info", "warning", "error"]
Principals = Literal["plain", "hashed", "omitted"]

_LEVELS = ("debug", "info", "warning", "error")
_AREA_LEVEL = Choice(words=("default", *_LEVELS))
_KEY_FILE = Text(parse=parse_optional_path, remedy='write a path such as "/etc/kkdcpd/principals.key"')


@frozen
class LogLevels:
    """[log.levels]: the least that is told of one area; "default" is what `log.level` says."""

    exchange: AreaLevel = field(
        default="default", metadata=setting(_AREA_LEVEL, "The line of each exchange: the audit record.")
    )
    guard: AreaLevel = field(
        default="default", metadata=setting(_AREA_LEVEL, "Blocked clients, and principals under attack.")
    )
    connections: AreaLevel = field(
        default="default", metadata=setting(_AREA_LEVEL, "Connections, TLS handshakes, HTTP.")
    )
    kdc: AreaLevel = field(default="default", metadata=setting(_AREA_LEVEL, "The health of KDCs."))
    locate: AreaLevel = field(
        default="default", metadata=setting(_AREA_LEVEL, "DNS, sites, and what was found there.")
    )
    process: AreaLevel = field(
        default="default", metadata=setting(_AREA_LEVEL, "Start, end, configuration, the log itself.")
    )
    libraries: AreaLevel = field(
        default="default", metadata=setting(_AREA_LEVEL, "What the libraries have to say.")
    )


@frozen
class LogConfig:
    """[log]: what is told on standard output. The path is relative to the configuration file.

    `principals_key` is what is in that file, None if there is none.
    """

    format: Literal["text", "json"] = field(
        default="text", metadata=setting(Choice(words=("text", "json")), "How a log line looks.")
    )
    level: Level = field(default="info", metadata=setting(Choice(words=_LEVELS), "The least that is logged."))
    principals: Principals = field(
        default="plain",
        metadata=setting(
            Choice(words=("plain", "hashed", "omitted")), "How principals are named, and certificates."
        ),
    )
    principals_key_file: Path | None = field(
        default=None,
        metadata=setting(_KEY_FILE, "File with the secret that hashed names depend on."),
    )
    levels: LogLevels = field(
        default=LogLevels(), metadata=setting(Table(form=LogLevels), "Levels of single areas.")
    )
    principals_key: bytes | None = field(default=None, repr=False)


LOG_TABLE = Table(form=LogConfig)
