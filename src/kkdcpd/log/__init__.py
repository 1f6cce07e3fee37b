"""The log: lines on standard output, each an event and its fields.

`events.EventLogger` is how the other modules log.
"""

from kkdcpd.log.configure import configure_logging

__all__ = ["configure_logging"]
