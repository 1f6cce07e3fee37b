"""Counts connections by network, and makes room for new ones when a limit is reached.

A limit that only refuses lets the first clients keep all others out. So a connection that waits for its
client is closed to make room: first an idle connection of the largest network, then a connection with an
incomplete request, the oldest first. A connection is never closed while its request is being answered.

The counts are those of all worker processes, but a process can close only its own connections. The kernel
spreads connections over the processes at random, so the largest network of one process is usually that of
all. Where it is not, as when a process drains, `keep_room` lets each process close its share.
"""

import asyncio
import heapq
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Protocol

from kkdcpd.config import ConnectionsConfig
from kkdcpd.metrics.counters import Counters
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.values import ConnectionActivity, ConnectionRefusal

__all__ = ["PROXIES", "ConnectionLimits", "Member"]

PROXIES = ("proxies",)
"""The network of connections from trusted proxies: `connections.maximum` is their only limit."""

LOAD = 128
"""After this number of open connections, it is worth the time to return memory to the system."""

LARGE_LOAD = 512
"""This number of connections leaves some 8 MiB of fragmented memory, which is worth a new process."""

ROOM_SECONDS = 0.25
"""The interval at which a process checks the room for new connections."""

ROOM_SHARE = 1 / 32
"""The part of `connections.maximum` that stays free, as long as idle connections can be closed."""

MOST_NETWORKS = 2048
"""The most networks that are searched for a connection to close: as many as there are request slots."""

MOST_MEMBERS = 256
"""The most connections of one network that are searched, which takes some 50 µs."""


class Member(Protocol):
    """A connection that is counted."""

    @property
    def activity(self) -> ConnectionActivity:
        """The activity at this moment."""
        ...

    def evict(self, reason: ConnectionRefusal) -> None:
        """Close the connection, and have it leave."""
        ...


class _Level:
    """The networks of one width, with the connections of each, the oldest first."""

    def __init__(self, limit: float, reason: ConnectionRefusal) -> None:
        self.limit = limit
        self.reason = reason
        self.members: dict[str, dict[Member, None]] = {}
        self._by_size: dict[int, dict[str, None]] = {}
        self._largest = 0

    def add(self, network: str, member: Member) -> None:
        members = self.members.get(network)
        if members is None:
            members = self.members[network] = {}
        members[member] = None
        self._resize(network, len(members) - 1, len(members))

    def remove(self, network: str, member: Member) -> None:
        members = self.members[network]
        del members[member]
        if not members:
            del self.members[network]
        self._resize(network, len(members) + 1, len(members))

    def clear(self) -> None:
        self.members.clear()
        self._by_size.clear()
        self._largest = 0

    def load(self, network: str) -> float:
        """Return the part of its limit that the network uses."""
        return len(self.members.get(network, ())) / self.limit

    def largest_first(self) -> Iterator[tuple[float, dict[Member, None]]]:
        """Yield the load and the connections of each network."""
        for size in range(self._largest, 0, -1):
            for network in self._by_size.get(size, ()):
                yield size / self.limit, self.members[network]

    def _resize(self, network: str, before: int, after: int) -> None:
        by_size = self._by_size
        if before:
            same_size = by_size[before]
            del same_size[network]
            if not same_size:
                del by_size[before]
        if after:
            if after not in by_size:
                by_size[after] = {}
            by_size[after][network] = None
        if after > self._largest or self._largest not in by_size:
            self._largest = after


class ConnectionLimits:
    """The connections of this process, and the limits for all processes together.

    The levels are kept up to date only while a limit may be near: to sort each connection into them would
    cost a new connection half a percent of its CPU time.
    """

    def __init__(self, counts: NetworkCounts, config: ConnectionsConfig, counters: Counters) -> None:
        self._counts = counts
        self._counters = counters
        self._maximum = config.maximum
        self._levels = _levels(config)
        self._all_levels = tuple(dict.fromkeys(level for row in self._levels.values() for level in row))
        # With fewer connections in all, no limit can be reached.
        self._least_limit = min(config.maximum, config.per_client)
        self._networks: dict[Member, tuple[str, ...]] = {}
        self._has_levels = False
        self._peak = 0
        self._most = 0
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def open(self) -> int:
        """The number of connections of this process."""
        return len(self._networks)

    def enter(self, member: Member, networks: tuple[str, ...]) -> ConnectionRefusal | None:
        """Count a connection for its networks, or return the limit that leaves no room."""
        if self._counts.total >= self._least_limit:
            refusal = self._check(networks)
            if refusal:
                return refusal
        self._add(member, networks)
        return None

    def leave(self, member: Member) -> None:
        """Stop counting a connection. Further calls do nothing."""
        networks = self._networks.pop(member, None)
        if networks is None:
            return
        self._counts.remove(*networks)
        if self._has_levels:
            self._remove_from_levels(member, networks)
        self._counters.connections_are(len(self._networks))
        if not self._networks:
            self._is_empty.set()

    def count_eviction(self, member: Member) -> None:
        """Count a connection that is closed to make room for another one."""
        self._counters.connection_evicted(member.activity)

    async def keep_room(self) -> None:
        """Close idle connections of the largest networks before the maximum is reached, until cancelled."""
        room = math.ceil(self._maximum * ROOM_SHARE)
        while True:
            await asyncio.sleep(ROOM_SECONDS)
            total = self._counts.total
            if total > self._maximum - room:
                excess = (total - self._maximum + room) * self.open / total
                for _ in range(math.ceil(excess)):
                    self._make_room(PROXIES)

    async def wait_until_empty(self) -> None:
        """Wait until this process has no connection."""
        await self._is_empty.wait()

    def has_load_dropped(self) -> bool:
        """Whether there were many connections, and most of them are gone. True once for each load."""
        if self._peak < LOAD or self.open > self._peak / 2:
            return False
        self._peak = self.open
        return True

    @property
    def has_outlived_load(self) -> bool:
        """Whether this process had very many connections once, and few are left."""
        return self._most >= LARGE_LOAD and self.open <= self._most / 10

    def _check(self, networks: tuple[str, ...]) -> ConnectionRefusal | None:
        """Make room at each limit that is reached, or return the limit where no connection can be closed."""
        self._need_levels()
        for network, level in zip(networks, self._levels_of(networks), strict=True):
            if self._counts.count(network) >= level.limit:
                members = level.members.get(network, {})
                if not _evict_one(members, level.reason):
                    return level.reason
        if self._counts.total >= self._maximum and not self._make_room(networks):
            return ConnectionRefusal.MAXIMUM
        return None

    def _levels_of(self, networks: tuple[str, ...]) -> tuple[_Level, ...]:
        return self._levels[0 if networks is PROXIES else len(networks)]

    def _add(self, member: Member, networks: tuple[str, ...]) -> None:
        self._networks[member] = networks
        self._counts.add(*networks)
        if self._has_levels:
            self._add_to_levels(member, networks)
        count = len(self._networks)
        self._counters.connections_are(count)
        if count > self._peak:
            self._peak = count
            self._most = max(self._most, count)
        if count == 1:
            self._is_empty.clear()

    def _need_levels(self) -> None:
        if not self._has_levels:
            self._has_levels = True
            for member, networks in self._networks.items():
                self._add_to_levels(member, networks)

    def _add_to_levels(self, member: Member, networks: tuple[str, ...]) -> None:
        for network, level in zip(networks, self._levels_of(networks), strict=True):
            level.add(network, member)

    def _remove_from_levels(self, member: Member, networks: tuple[str, ...]) -> None:
        """Remove a connection, or all of them if no limit is near any more."""
        if self._counts.total < self._least_limit / 2:
            self._has_levels = False
            for level in self._all_levels:
                level.clear()
            return
        for network, level in zip(networks, self._levels_of(networks), strict=True):
            level.remove(network, member)

    def _make_room(self, networks: tuple[str, ...]) -> bool:
        """Close a connection of a network that uses at least the same part of its limit as these networks."""
        self._need_levels()
        loads = zip(networks, self._levels_of(networks), strict=True)
        least = max(level.load(network) for network, level in loads)
        largest = heapq.merge(
            *(level.largest_first() for level in self._all_levels), key=lambda found: found[0], reverse=True
        )
        for load, members in islice(largest, MOST_NETWORKS):
            if load < least:
                return False
            if _evict_one(members, ConnectionRefusal.MAXIMUM):
                return True
        return False


def _levels(config: ConnectionsConfig) -> Mapping[int, tuple[_Level, ...]]:
    """Return the levels by the number of a client's networks. 0 is for trusted proxies."""
    widest = max(config.per_network, config.per_client)
    client = _Level(config.per_client, ConnectionRefusal.PER_CLIENT)
    home = _Level(max(widest // 2, config.per_client), ConnectionRefusal.PER_NETWORK)
    site = _Level(widest, ConnectionRefusal.PER_NETWORK)
    proxies = _Level(math.inf, ConnectionRefusal.MAXIMUM)
    return {0: (proxies,), 1: (client,), 2: (client, site), 3: (client, home, site)}


def _evict_one(members: dict[Member, None], reason: ConnectionRefusal) -> bool:
    """Close the oldest idle connection, else the oldest with an incomplete request. Return success."""
    incomplete: Member | None = None
    for member in list(islice(members, MOST_MEMBERS)):
        activity = member.activity
        if activity is ConnectionActivity.IDLE:
            member.evict(reason)
            return True
        if activity is ConnectionActivity.SERVING:
            members[member] = members.pop(member)  # The next search begins with the connections behind it.
        elif incomplete is None:
            incomplete = member
    if incomplete is None:
        return False
    incomplete.evict(reason)
    return True
