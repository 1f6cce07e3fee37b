"""The worker process: builds everything that serves clients from the configuration, and runs it."""

import asyncio
import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kkdcpd.config import Config, SystemFiles
from kkdcpd.frontends.http.acceptor import Acceptor, Listener
from kkdcpd.frontends.http.connection_limits import ConnectionLimits
from kkdcpd.frontends.http.way_in import HttpWayIn
from kkdcpd.frontends.kdc_proxy import KdcProxyFrontend
from kkdcpd.frontends.local.frontend import LocalFrontend
from kkdcpd.frontends.local.options import LocalListener, LocalOptions
from kkdcpd.frontends.websocket import TunnelFrontend
from kkdcpd.frozen import frozen
from kkdcpd.guard.guard import Guard
from kkdcpd.guard.limits import HandshakeRate
from kkdcpd.guard.shared_table import SharedTable
from kkdcpd.locate.locator import build_locator
from kkdcpd.log.events import EventLogger
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics
from kkdcpd.pipeline.pipeline import Pipeline
from kkdcpd.pipeline.relay import Relay
from kkdcpd.process_messages import HealthNotice, LoadDropped, Retire, ServiceStatus
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.shared_memory.network_counts import NetworkCounts
from kkdcpd.shared_memory.notes import Notes
from kkdcpd.upstream.driver import Upstream
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.password_changes import PasswordChanges
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.ways_out import WaysOut

__all__ = ["LocalSockets", "WayIn", "Worker"]

logger = EventLogger(__name__)

MEMORY_SECONDS = 5.0
"""Interval at which memory is returned to the system after a load has dropped."""

M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 65536
"""Blocks of this size and more have their own pages, which return to the system when freed (mallopt(3)).

By default, glibc raises the threshold when a TLS connection of uvloop frees its buffer of 256 KiB. From then
on it takes these buffers from the heap, which small blocks between them fragment.
"""


class WayIn(Protocol):
    """A way in, as the worker process runs it."""

    name: str

    @property
    def open(self) -> int:
        """The number of open connections."""
        ...

    @property
    def has_outlived_load(self) -> bool:
        """Whether there were very many connections once, and few are left."""
        ...

    async def run(self) -> None:
        """Accept and serve clients. After `drain`, return when the last client is served."""

    def drain(self) -> None:
        """Accept the backlog, and close the listeners. Each client may have one more reply."""

    async def stop(self) -> None:
        """Close every connection."""

    def has_load_dropped(self) -> bool:
        """Whether there were many connections, and most of them are gone. True once for each load."""
        ...


@frozen
class LocalSockets:
    """The sockets of the local way in, and its options."""

    options: LocalOptions
    listeners: Sequence[LocalListener]


class Worker:
    """Serves the clients of its listeners. Make it in a running event loop.

    `row` is the row of this process in the shared memory. `notify` sends a message to the parent process.
    `local` are the sockets of the local way in. No other process may serve them.
    """

    def __init__(
        self,
        config: Config,
        listeners: Sequence[Listener],
        system: SystemFiles,
        memory: SharedMemory,
        row: int,
        *,
        notify: Callable[[HealthNotice | LoadDropped], object],
        local: LocalSockets | None = None,
    ) -> None:
        upstream = config.upstream
        self._notify = notify
        self._drain_timeout = config.process.drain_timeout
        counters = Counters(Metrics(memory.metrics).take_row(row))
        self._health = HealthTable(
            turn=row,
            probe_interval=upstream.probe_interval,
            probe_interval_maximum=upstream.probe_interval_maximum,
            reach_timeout=upstream.reach_timeout,
            notify=notify,
            note_change=counters.kdc_changed,
        )
        self._ways_out = WaysOut(upstream)
        self._prober = Prober(upstream, self._ways_out, self._health)
        self._locator = build_locator(config, system, on_lookup=counters.looked_up)
        table = SharedTable(memory.guard)
        guard = Guard(config, table, NetworkCounts(memory.requests, row), clock=time.monotonic)
        relay = Relay(
            guard=guard,
            locator=self._locator,
            upstream=Upstream(upstream, self._ways_out, self._health, self._prober, counters),
            password_changes=PasswordChanges(
                Notes(memory.password_changes), upstream.password_change_preference, time.monotonic
            ),
        )
        pipeline = Pipeline(guard=guard, relay=relay, counters=counters, config=config.guard)
        ways_in: list[WayIn] = []
        if listeners:
            tunnel = TunnelFrontend(config, pipeline) if config.tunnel.paths else None
            frontend = KdcProxyFrontend(config, pipeline, counters, tunnel)
            acceptor = Acceptor(
                listeners,
                config.connections,
                NetworkCounts(memory.connections, row),
                handshake_timeout=config.http.handshake_timeout,
                counters=counters,
                make_connection=frontend.connection,
                handshake_rate=HandshakeRate(config.connections, table, time.monotonic),
            )
            ways_in.append(HttpWayIn("https", acceptor, frontend))
        if local:
            limits = ConnectionLimits(NetworkCounts(memory.connections, row), config.connections, counters)
            ways_in.append(LocalFrontend(local.options, local.listeners, pipeline, limits, counters))
        self._ways_in: Sequence[WayIn] = ways_in

    def handle(self, message: HealthNotice | Retire | ServiceStatus) -> None:
        """Handle the health notice of another process, or the order to retire."""
        if isinstance(message, Retire):
            self._drain()
        elif isinstance(message, HealthNotice):
            self._health.apply_notice(message, asyncio.get_running_loop().time())
            self._prober.wake()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Then finish requests within `process.drain_timeout`.

        A retired worker process finishes its connections without a deadline, and then sets `stop` itself.
        """
        async with self._locator, asyncio.TaskGroup() as tasks:
            prober = tasks.create_task(self._prober.run(), name="prober")
            memory = tasks.create_task(self._return_memory(), name="memory")
            serving = [tasks.create_task(way_in.run(), name=way_in.name) for way_in in self._ways_in]
            retired = tasks.create_task(_set_after(stop, serving), name="retired")
            await stop.wait()
            self._drain()
            await self._finish(serving)
            for task in (prober, memory, retired):
                task.cancel()
        self._ways_out.close()

    def _drain(self) -> None:
        """Close the listeners. Each open connection may send one more request, so that no request is lost."""
        for way_in in self._ways_in:
            way_in.drain()

    async def _finish(self, serving: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the connections, and close the remaining ones after `process.drain_timeout`."""
        _, unfinished = await asyncio.wait(serving, timeout=self._drain_timeout)
        if unfinished:
            logger.info("drain_timed_out", connections=sum(way_in.open for way_in in self._ways_in))
            for task in unfinished:
                task.cancel()
            await asyncio.wait(unfinished)
        for way_in in self._ways_in:
            await way_in.stop()

    async def _return_memory(self) -> None:
        """Return memory to the system after the load has dropped. This takes 30 ms for 200 MiB.

        Python's allocator returns only whole arenas of 1 MiB, and small objects stay in most arenas. Only a
        new process is free of this fragmentation, so the worker process notifies its parent.
        """
        libc = ctypes.CDLL(None)
        can_trim = hasattr(libc, "malloc_trim")  # musl has no such function, and does not need it
        if can_trim:
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        while True:
            await asyncio.sleep(MEMORY_SECONDS)
            # Each way in notes its own load, so all of them are called.
            dropped = [way_in.has_load_dropped() for way_in in self._ways_in]
            if any(dropped) and can_trim:
                libc.malloc_trim(0)
            # A successor starts with an empty DNS cache. If DNS fails, this cache serves for up to a day.
            has_outlived = any(way_in.has_outlived_load for way_in in self._ways_in)
            if has_outlived and await self._locator.can_be_refilled():
                self._notify(LoadDropped())


async def _set_after(stop: asyncio.Event, serving: Sequence[asyncio.Task[None]]) -> None:
    """Set the event when all ways in have served their last client."""
    await asyncio.wait(serving)
    stop.set()
