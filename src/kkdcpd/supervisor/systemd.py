"""What systemd and we tell each other: sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3).

Three environment variables and one datagram socket: a library for that would be longer.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

__all__ = ["Notifier", "take_sockets", "watchdog_interval"]

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START."""


def take_sockets(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Return the listening sockets that were passed to us; whom we start shall not take them for its own."""
    pid = environment.pop("LISTEN_PID", None)
    count = environment.pop("LISTEN_FDS", "0")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    sockets = [socket.socket(fileno=FIRST_DESCRIPTOR + number) for number in range(int(count))]
    for sock in sockets:
        sock.set_inheritable(False)
    return sockets


def watchdog_interval(environment: MutableMapping[str, str] = os.environ) -> float | None:
    """Return after how many seconds at most the watchdog wants to hear of us, if it does."""
    microseconds = environment.pop("WATCHDOG_USEC", "")
    pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1e6


class Notifier:
    """Tells the service manager of our state. Where there is none, or it doesn't hear, nothing happens."""

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            # A name that begins with @ is one of the abstract namespace.
            self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """Make the one that the environment names; whoever we start shall not speak in our name."""
        return cls(environment.pop("NOTIFY_SOCKET", None))

    def ready(self, status: str) -> None:
        """Say that we serve."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun; its end is `ready`, whatever came of it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=reloading")

    def stopping(self, status: str) -> None:
        """Say that the end has begun."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Say in a few words what we do."""
        self._tell(f"STATUS={status}")

    def alive(self) -> None:
        """Keep the watchdog quiet."""
        self._tell("WATCHDOG=1")

    def close(self) -> None:
        """Say no more."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def _tell(self, *lines: str) -> None:
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)
