"""The interface to systemd: sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3).

It consists of environment variables and one datagram socket; a library would need more code.
"""

import contextlib
import os
import socket
import stat
import time
from collections.abc import MutableMapping
from typing import Self

from kkdcpd.errors import ConfigError, ConfigProblem

__all__ = ["Notifier", "take_sockets", "watchdog_interval"]

FIRST_DESCRIPTOR = 3
"""SD_LISTEN_FDS_START."""


STREAM_PROTOCOLS = {socket.IPPROTO_TCP, socket.IPPROTO_MPTCP}

_TYPE_PROBLEMS = {
    socket.SOCK_DGRAM: ("a datagram socket", "write ListenStream= in place of ListenDatagram="),
    socket.SOCK_SEQPACKET: (
        "a socket for sequential packets",
        "write ListenStream= in place of ListenSequentialPacket=",
    ),
}


def take_sockets(
    environment: MutableMapping[str, str] = os.environ, *, takes_datagrams: bool = False
) -> list[socket.socket]:
    """Return the sockets that systemd passed. Child processes do not inherit the variables.

    Raises:
        ConfigError: a socket is of a kind that clients cannot use.
    """
    pid = environment.pop("LISTEN_PID", None)
    count = environment.pop("LISTEN_FDS", "0")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    names += [""] * int(count)
    return [
        _take_socket(FIRST_DESCRIPTOR + number, names[number], takes_datagrams=takes_datagrams)
        for number in range(int(count))
    ]


def _take_socket(descriptor: int, name: str, *, takes_datagrams: bool) -> socket.socket:
    """Return the socket. By default, systemd names a descriptor after its .socket unit."""
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - the signature of os
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        remedy = "remove ListenFIFO=, ListenSpecial=, ListenMessageQueue= and ListenUSBFunction="
        raise _refusal("a descriptor that is not a socket", remedy, name)
    sock = socket.socket(fileno=descriptor)
    problem = _family_problem(sock)
    if not problem and not (takes_datagrams and _is_udp(sock)):
        problem = _TYPE_PROBLEMS.get(sock.type) or _state_problem(sock)
    if problem:
        raise _refusal(*problem, name)
    return sock


def _refusal(problem: str, remedy: str, name: str) -> ConfigError:
    unit = name if name.endswith(".socket") else "the .socket unit"
    return ConfigError([ConfigProblem(key=unit, problem=f"systemd passed {problem}", remedy=remedy)])


def _family_problem(sock: socket.socket) -> tuple[str, str] | None:
    remedy = "write an IP address and a port, or an absolute path, after ListenStream="
    if sock.family == socket.AF_NETLINK:
        return "a netlink socket", "remove ListenNetlink="
    if sock.family == socket.AF_UNIX:
        # A name in the abstract namespace is bytes; an unnamed socket is the client's end of a connection.
        is_abstract = isinstance(sock.getsockname(), bytes)
        return ("a UNIX socket in the abstract namespace", remedy) if is_abstract else None
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        return f"a socket of the family {sock.family}", remedy
    return None


def _is_udp(sock: socket.socket) -> bool:
    return sock.family != socket.AF_UNIX and sock.proto == socket.IPPROTO_UDP


def _state_problem(sock: socket.socket) -> tuple[str, str] | None:
    if sock.family != socket.AF_UNIX and sock.proto not in STREAM_PROTOCOLS:
        return f"a stream socket of the protocol {sock.proto}", "remove SocketProtocol="
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    with contextlib.suppress(OSError):
        sock.getpeername()
        return "a connection in place of a listening socket", "write Accept=no"
    return "a socket that does not listen", "write ListenStream="


def watchdog_interval(environment: MutableMapping[str, str] = os.environ) -> float | None:
    """Return the longest time between two watchdog notifications in seconds, or None without a watchdog."""
    microseconds = environment.pop("WATCHDOG_USEC", "")
    pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1e6


class Notifier:
    """Notifies the service manager, if there is one, of the service's state. It never waits for it."""

    def __init__(self, address: str | None) -> None:
        self._socket: socket.socket | None = None
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            # A name that begins with @ is in the abstract namespace.
            self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str] = os.environ) -> Self:
        """Make the notifier that the environment names. Child processes do not inherit it."""
        return cls(environment.pop("NOTIFY_SOCKET", None))

    def ready(self, status: str) -> None:
        """Notify that the service is ready."""
        self._notify("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Notify that a reload has begun. It ends with `ready`, also if it has failed."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._notify("RELOADING=1", f"MONOTONIC_USEC={microseconds}", "STATUS=reloading")

    def stopping(self, status: str) -> None:
        """Notify that the service stops."""
        self._notify("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Notify the watchdog."""
        self._notify("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket in this process."""
        if self._socket:
            self._socket.close()
            self._socket = None

    def _notify(self, *lines: str) -> None:
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)
