"""Keeps the local UDP ports of abandoned datagrams while their answers may still come.

No unencrypted field connects a Kerberos reply with its request. If the port of an abandoned datagram were
free, the next request that gets the port would get the late answer too. So the socket stays open, and drops
the answer.

The number of these sockets has a limit, and so has each client network's share. At the limit no port is
reused early: the attempt fails on this host, and the exchange goes on by TCP.
"""

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from kkdcpd.endpoints import KdcEndpoint
from kkdcpd.upstream.sockets import READABLE, Readiness

__all__ = ["KdcPorts", "PortPool", "ports_within"]

PORTS_PER_KDC = 1024
PORTS_IN_ALL = 2048
"""Sockets of one worker process, those in use included. All processes share Linux's 28,232 default ports."""

DESCRIPTORS_PER_PORT = 8
"""One of this number of file descriptors may be a UDP socket of a KDC."""

MAX_IDLE_POOLS = 1024
"""The most pools without a taken port that are kept. Beyond this number all of them are dropped."""

KEEP_SECONDS = 60.0
"""The time for a late answer. A KDC that waits for a one-time password may take half a minute."""

KEEP_ANSWERED_SECONDS = 10.0
"""The time for a late answer to a further copy. No KDC waits for a message that may be repeated."""

CHARGE_IN_USE = 3
CHARGE_KEPT = 8
"""The charge of a port to its client's networks. A network takes a port only if its charge is less than the
number of free ports.

So one network may have 256 requests in flight at a KDC, the default of `max_in_flight_per_kdc`. Abandoned
datagrams of one network keep a ninth of the ports. Each further network keeps a ninth of the rest. Beside 40
of these networks, a network without abandoned datagrams still finds a port.
"""


def ports_within(descriptors: int) -> int:
    """Return the number of UDP sockets that a process with this limit of file descriptors may have."""
    if descriptors == resource.RLIM_INFINITY:
        return PORTS_IN_ALL
    return min(PORTS_IN_ALL, descriptors // DESCRIPTORS_PER_PORT)


class _Ports:
    """A number of ports, the owners of those in use, and the number of kept ports by network."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.free = limit
        # With more free ports than this, no charge can reach their number.
        self.scarce_at = limit * CHARGE_KEPT // (CHARGE_KEPT + 1)
        self.in_use: dict[object, Sequence[str]] = {}
        self.kept: Counter[str] = Counter()

    def allow(self, networks: Sequence[str]) -> bool:
        """Whether every network's charge is less than the number of free ports."""
        in_use = Counter(network for each in self.in_use.values() for network in each)
        return all(
            CHARGE_IN_USE * in_use[network] + CHARGE_KEPT * self.kept[network] < self.free
            for network in networks
        )


class PortPool:
    """The ports for one KDC, which count among those for all KDCs too.

    Charges are added up only when ports are scarce.
    """

    def __init__(self, limit: int, for_all: _Ports | None = None) -> None:
        self._own = _Ports(limit)
        self._both = (self._own, for_all) if for_all else (self._own,)

    @property
    def is_idle(self) -> bool:
        """Whether no port is taken."""
        return self._own.free == self._own.limit

    def take(self, owner: object, networks: Sequence[str]) -> bool:
        """Take a port for the owner, unless a network has its share; return whether it did."""
        for ports in self._both:
            if ports.free <= ports.scarce_at and not ports.allow(networks):
                return False
        for ports in self._both:
            ports.free -= 1
            ports.in_use[owner] = networks
        return True

    def give_back(self, owner: object) -> None:
        """Give the owner's port back: no answer can come to the port any more."""
        for ports in self._both:
            ports.free += 1
            del ports.in_use[owner]

    def keep(self, owner: object) -> None:
        """Charge the owner's port as a kept port."""
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
        per_kdc: int = PORTS_PER_KDC,
        in_all: int | None = None,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._readiness = readiness
        self._per_kdc = per_kdc
        self._keep_seconds = keep_seconds
        self._pools: dict[KdcEndpoint, PortPool] = {}
        soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._for_all = _Ports(ports_within(soft_limit) if in_all is None else in_all)
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
            pool = self._pools[endpoint] = PortPool(self._per_kdc, self._for_all)
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
