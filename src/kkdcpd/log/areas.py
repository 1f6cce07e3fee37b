"""The areas of the log, each with a level of its own, and the modules that log its events."""

import logging
from collections.abc import Mapping

from kkdcpd.config import LogConfig

__all__ = ["AREAS", "set_levels"]

AREAS: Mapping[str, str] = {
    "libraries": "",
    "process": "kkdcpd",
    "exchange": "kkdcpd.pipeline",
    "guard": "kkdcpd.guard",
    "connections": "kkdcpd.frontends",
    "kdc": "kkdcpd.upstream",
    "locate": "kkdcpd.locate",
}
"""Logger names by setting of [log.levels]. An event of any other module belongs to `process`."""


def set_levels(config: LogConfig) -> None:
    """Give each area its level."""
    for area, name in AREAS.items():
        level = getattr(config.levels, area)
        logging.getLogger(name).setLevel((config.level if level == "default" else level).upper())
