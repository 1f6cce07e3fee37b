"""Keeps the local UDP ports of abandoned datagrams while their answers may still come.

No unencrypted field connects a Kerberos reply with its request. If the port of an abandoned datagram were
free, the next request that gets the port would get the late answer too. So the socket stays open, and drops
the answer.

The number of ports is bounded. At the bound no port is reused early: the attempt fails on this host, and the
exchange goes on by TCP.

A kept port cannot be taken back, so the share of each client network must be small before ports are short. A
part of the ports is reserved. While only reserved ports are free, each network has a window, as a TCP
connection in slow start: the network begins with a few ports, and answered requests make its window larger.
Networks whose datagrams stay unanswered get no more than these few ports.
"""

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.upstream.sockets import READABLE, Readiness

__all__ = ["KdcPorts", "PortCounts", "PortPool", "ports_within"]

PORTS_IN_ALL = 4096
"""The most UDP sockets of one worker process, those in use included.

All processes of the host share Linux's 28,232 default ports. Six worker processes at their limit leave 3,656.
"""

DESCRIPTORS_PER_PORT = 6
"""One of this number of file descriptors may be a UDP socket of a KDC."""

MAX_IDLE_POOLS = 1024
"""The most pools without a taken port that are kept. Beyond this number all of them are dropped."""

KEEP_SECONDS = 60.0
"""The time for a late answer. A KDC that waits for a one-time password may take half a minute."""

KEEP_ANSWERED_SECONDS = 10.0
"""The time for a late answer to a further copy. No KDC waits for a message that may be repeated."""

WINDOW_AT_KDC = 2
WINDOW_IN_ALL = 4
"""The ports that a network without answers may have while ports are short: at one KDC, and at all KDCs."""

ANSWERS_PER_PORT = 8
"""The answered requests that make a network's window one port larger."""


def ports_within(descriptors: int) -> int:
    """Return the number of UDP sockets that a process with this limit of file descriptors may have."""
    if descriptors == resource.RLIM_INFINITY:
        return PORTS_IN_ALL
    return min(PORTS_IN_ALL, descriptors // DESCRIPTORS_PER_PORT)


class PortCounts:
    """A number of ports, the owners of those in use, and the number of kept ports by network."""

    def __init__(self, limit: int, *, reserved: int, window: int) -> None:
        self.limit = limit
        self.free = limit
        self.in_use: dict[object, Sequence[str]] = {}
        self.kept: Counter[str] = Counter()
        self.reserved = reserved
        self._window = window
        self._answers: Counter[str] = Counter()
        self._answers_in_all = 0
        # The windows of all networks together grow by a quarter of the reserved ports at most.
        self._most_answers = reserved * ANSWERS_PER_PORT // 4

    @classmethod
    def in_all(cls, limit: int) -> Self:
        """Return the counts of all ports of a process."""
        return cls(limit, reserved=limit // 2, window=WINDOW_IN_ALL)

    def allow(self, networks: Sequence[str]) -> bool:
        """Whether a client of these networks may take a port. Windows count only while ports are short."""
        return self.free > self.reserved or (
            self.free > 0 and all(self._taken(network) < self._window_of(network) for network in networks)
        )

    def note_answer(self, networks: Sequence[str]) -> None:
        """Count an answered request. Beyond the most answers, halve all counts."""
        self._answers.update(networks)
        self._answers_in_all += len(networks)
        if self._answers_in_all > self._most_answers:
            halves = {network: count // 2 for network, count in self._answers.items() if count > 1}
            self._answers, self._answers_in_all = Counter(halves), sum(halves.values())

    def _taken(self, network: str) -> int:
        return self.kept[network] + sum(network in each for each in self.in_use.values())

    def _window_of(self, network: str) -> int:
        return self._window + self._answers[network] // ANSWERS_PER_PORT


class PortPool:
    """The ports for one KDC, which count among those for all KDCs too.

    One KDC has at most half of all ports. Three quarters of them are reserved: one network may still have 256
    requests in flight at the KDC, the default of `max_in_flight_per_kdc`, before it needs reserved ports.
    """

    def __init__(self, for_all: PortCounts) -> None:
        limit = max(for_all.limit // 2, 1)
        self._own = PortCounts(limit, reserved=limit * 3 // 4, window=WINDOW_AT_KDC)
        self._both = self._own, for_all

    @property
    def is_idle(self) -> bool:
        """Whether no port is taken."""
        return self._own.free == self._own.limit

    def has_room(self, networks: Sequence[str]) -> bool:
        """Whether a client of these networks may take a port."""
        return all(ports.allow(networks) for ports in self._both)

    def take(self, owner: object, networks: Sequence[str]) -> bool:
        """Take a port for the owner, unless a network has its share; return whether it did."""
        own, for_all = self._both
        is_plenty = own.free > own.reserved and for_all.free > for_all.reserved
        if not (is_plenty or self.has_room(networks)):
            return False
        for ports in self._both:
            ports.free -= 1
            ports.in_use[owner] = networks
        return True

    def note_answer(self, networks: Sequence[str]) -> None:
        """Note an answered request of these networks: while ports are short, their windows become larger."""
        for ports in self._both:
            if ports.free <= ports.reserved:
                ports.note_answer(networks)

    def give_back(self, owner: object) -> None:
        """Give the owner's port back: no answer can come to the port any more."""
        for ports in self._both:
            ports.free += 1
            del ports.in_use[owner]

    def keep(self, owner: object) -> None:
        """Count the owner's port as a kept port."""
        for ports in self._both:
            ports.kept.update(ports.in_use.pop(owner))

    def give_back_kept(self, networks: Sequence[str]) -> None:
        """Give a kept port back."""
        for ports in self._both:
            ports.free += 1
            ports.kept -= Counter(networks)  # without networks that have no more kept ports


@dataclass(slots=True, eq=False)
class _Kept:
    sock: socket.socket
    pool: PortPool
    networks: Sequence[str]
    answers: int
    timer: asyncio.TimerHandle | None = None


class KdcPorts:
    """The local UDP ports of this process. Make it in a running event loop."""

    def __init__(
        self,
        readiness: Readiness,
        *,
        in_all: int | None = None,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._readiness = readiness
        self._keep_seconds = keep_seconds
        self._pools: dict[KdcEndpoint, PortPool] = {}
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._for_all = PortCounts.in_all(ports_within(soft_limit) if in_all is None else in_all)
        self._kept: set[_Kept] = set()

    def close(self) -> None:
        """Close all kept sockets: this process is about to end."""
        for kept in [*self._kept]:
            self._close(kept)

    def pool(self, endpoint: KdcEndpoint) -> PortPool:
        """Return the ports for the endpoint."""
        pool = self._pools.get(endpoint)
        if pool is None:
            if len(self._pools) >= MAX_IDLE_POOLS:
                self._pools = {other: busy for other, busy in self._pools.items() if not busy.is_idle}
            pool = self._pools[endpoint] = PortPool(self._for_all)
        return pool

    def keep(
        self,
        sock: socket.socket,
        pool: PortPool,
        networks: Sequence[str],
        *,
        answers: int,
        is_answered: bool,
    ) -> None:
        """Hold the socket open until its answers have come, or can no longer come."""
        kept = _Kept(sock, pool, networks, answers)
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
        kept.pool.give_back_kept(kept.networks)
