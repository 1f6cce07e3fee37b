"""The worker process: builds everything that serves clients from the configuration, and runs it."""

import asyncio
import contextlib
import ctypes
import time
from collections.abc import Callable, Sequence

from kkdcpd.config import Config, SystemFiles
from kkdcpd.frontends.http.acceptor import Acceptor, Listener
from kkdcpd.frontends.kdc_proxy import KdcProxyFrontend
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

__all__ = ["Worker"]

logger = EventLogger(__name__)

MEMORY_SECONDS = 5.0
"""Interval at which memory is returned to the system after a load has dropped."""

M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 65536
"""Blocks of this size and more have their own pages, which return to the system when freed (mallopt(3)).

By default, glibc raises the threshold when a TLS connection of uvloop frees its buffer of 256 KiB. From then
on it takes these buffers from the heap, which small blocks between them fragment.
"""


class Worker:
    """Serves the clients of its listeners. Make it in a running event loop.

    `row` is the row of this process in the shared memory. `notify` sends a message to the parent process.
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
        self._frontend = KdcProxyFrontend(config, pipeline, counters)
        self._acceptor = Acceptor(
            listeners,
            config.connections,
            NetworkCounts(memory.connections, row),
            handshake_timeout=config.http.handshake_timeout,
            counters=counters,
            make_connection=self._frontend.connection,
            handshake_rate=HandshakeRate(config.connections, table, time.monotonic),
        )

    def handle(self, message: HealthNotice | Retire | ServiceStatus) -> None:
        """Handle the health notice of another process, or the order to retire."""
        if isinstance(message, Retire):
            self._stop_accepting()
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
            room = tasks.create_task(self._acceptor.connections.keep_room(), name="room")
            acceptor = tasks.create_task(self._acceptor.keep(), name="acceptor")
            finishing = tasks.create_task(self._finish(acceptor, stop), name="finish")
            await stop.wait()
            self._stop_accepting()
            await self._drain(acceptor, finishing)
            for task in (prober, memory, room):
                task.cancel()
        self._ways_out.close()

    def _stop_accepting(self) -> None:
        """Close the listeners. Each open connection may send one more request, so that no request is lost."""
        self._frontend.drain()
        self._acceptor.close()

    async def _finish(self, acceptor: asyncio.Task[None], stop: asyncio.Event) -> None:
        """Wait until the listeners and all connections are closed."""
        await asyncio.shield(acceptor)
        await self._acceptor.connections.wait_until_empty()
        stop.set()

    async def _drain(self, acceptor: asyncio.Task[None], finishing: asyncio.Task[None]) -> None:
        """Wait for the connections, and close the remaining ones after `process.drain_timeout`."""
        try:
            async with asyncio.timeout(self._drain_timeout):
                await finishing
        except TimeoutError:
            logger.info("drain_timed_out", connections=self._acceptor.connections.open)
            acceptor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await acceptor
        await self._frontend.stop()

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
            if self._acceptor.connections.has_load_dropped() and can_trim:
                libc.malloc_trim(0)
            # A successor starts with an empty DNS cache. If DNS fails, this cache serves for up to a day.
            if self._acceptor.connections.has_outlived_load and await self._locator.can_be_refilled():
                self._notify(LoadDropped())
