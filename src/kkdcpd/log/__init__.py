"""The log: lines on standard output, each an event and its fields.

A record is `logger.info("exchange", extra={"fields": {...}})`. With `"repeats": key` beside
`fields`, of all lines with this key the first is told at once, then the last of each ten seconds, with their
`count`.
"""

from kkdcpd.log.configure import configure_logging

__all__ = ["configure_logging"]
