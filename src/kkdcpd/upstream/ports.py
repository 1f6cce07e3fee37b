"""Keeps the local ports of datagrams whose answers may still come.

Nothing in clear ties a Kerberos reply to its request. If the port of an abandoned datagram were free, the
next request that gets the port would get the late answer too. So the socket stays open, and drops the answer.

The number of such sockets is bounded, and so is a network's share of them. At the bound no port is reused
early: the attempt fails on this host, and the exchange goes on by TCP.
"""

import asyncio
import resource
import socket
from dataclasses import dataclass

from kkdcpd.upstream.readiness import READABLE, Readiness
from kkdcpd.upstream.shares import Places
from kkdcpd.values import KdcEndpoint

__all__ = ["KdcPorts", "ports_within"]

PORTS_PER_KDC = 1024
PORTS_IN_ALL = 2048
"""Sockets of one worker process, those in use included. Linux has 28,232 ports by default for all of them."""

DESCRIPTORS_PER_PORT = 8
"""Of so many file descriptors, one may be such a socket."""

MAX_IDLE_ENDPOINTS = 1024
"""Endpoints whose places are kept though none is taken. Beyond that all of these are forgotten."""

KEEP_SECONDS = 60.0
"""How long an answer may be late: a KDC that waits for a one-time password may take half a minute."""

KEEP_ANSWERED_SECONDS = 10.0
"""How long the answer to a further copy may be late. It is a message that no KDC has to wait for."""


def ports_within(descriptors: int) -> int:
    """Return how many of a process's file descriptors may be sockets of this kind."""
    if descriptors == resource.RLIM_INFINITY:
        return PORTS_IN_ALL
    return min(PORTS_IN_ALL, descriptors // DESCRIPTORS_PER_PORT)


@dataclass(slots=True, eq=False)
class _Kept:
    sock: socket.socket
    endpoint: KdcEndpoint
    network: str
    answers: int
    timer: asyncio.TimerHandle | None = None


class KdcPorts:
    """The local UDP ports of this process. Make it in a running event loop."""

    def __init__(
        self,
        readiness: Readiness,
        *,
        per_kdc: int = PORTS_PER_KDC,
        in_all: int | None = None,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._readiness = readiness
        self._per_kdc = per_kdc
        self._keep_seconds = keep_seconds
        self._of_kdc: dict[KdcEndpoint, Places] = {}
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._all = Places(ports_within(soft_limit) if in_all is None else in_all)
        self._kept: set[_Kept] = set()

    def close(self) -> None:
        """Close all sockets that are kept: this process is about to end."""
        for kept in [*self._kept]:
            self._close(kept)

    def take(self, endpoint: KdcEndpoint, network: str) -> bool:
        """Take a place for a socket that is about to be opened; say whether there was one."""
        if not self._all.take(network):
            return False
        places = self._of_kdc.get(endpoint)
        if places is None:
            if len(self._of_kdc) >= MAX_IDLE_ENDPOINTS:
                self._of_kdc = {other: busy for other, busy in self._of_kdc.items() if not busy.is_empty}
            places = self._of_kdc[endpoint] = Places(self._per_kdc)
        if places.take(network):
            return True
        self._all.give_back(network)
        return False

    def give_back(self, endpoint: KdcEndpoint, network: str) -> None:
        """Give the place back: no answer can come to the port any more."""
        self._all.give_back(network)
        self._of_kdc[endpoint].give_back(network)

    def keep(
        self, sock: socket.socket, endpoint: KdcEndpoint, network: str, *, answers: int, is_answered: bool
    ) -> None:
        """Hold the socket open until its answers have come, or can no longer come."""
        kept = _Kept(sock, endpoint, network, answers)
        seconds = min(self._keep_seconds, KEEP_ANSWERED_SECONDS) if is_answered else self._keep_seconds
        kept.timer = self._loop.call_later(seconds, self._close, kept)
        self._kept.add(kept)
        self._watch(kept)

    def _watch(self, kept: _Kept) -> None:
        self._readiness.call_once(kept.sock, READABLE, lambda: self._drop_answer(kept))

    def _drop_answer(self, kept: _Kept) -> None:
        try:
            kept.sock.recv(1)
        except BlockingIOError:
            self._watch(kept)
            return
        except OSError:
            pass  # an ICMP error: the datagram will not be answered
        kept.answers -= 1
        if kept.answers:
            self._watch(kept)
        else:
            self._close(kept)

    def _close(self, kept: _Kept) -> None:
        assert kept.timer
        kept.timer.cancel()
        self._kept.remove(kept)
        self._readiness.close_socket(kept.sock)
        self.give_back(kept.endpoint, kept.network)
