"""One process's work, and the composition root: everything is built here from the configuration."""

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
"""How soon after a crowd its memory is given back."""

M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 65536
"""Blocks from this size on have pages of their own, which go back when they are freed (mallopt(3)).

Left to itself, glibc raises its threshold when a TLS connection of uvloop's frees its buffer of 256 KiB; from
then on such buffers are cut out of the heap, and what is small between them keeps all of it.
"""


class Worker:
    """Serves requests that come in by the listeners. Make it in a running event loop.

    `row` is this process's own in the shared memory. `tell` passes on to other processes what it finds out.
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
            self._let_nobody_in()
        elif isinstance(message, HealthNotice):
            self._health.apply_notice(message, asyncio.get_running_loop().time())
            self._prober.wake()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what has begun, for as long as `process.drain_timeout`.

        A worker that is retired finishes for as long as its connections take, and then sets `stop` itself.
        """
        async with self._locator, asyncio.TaskGroup() as tasks:
            prober = tasks.create_task(self._prober.run(), name="prober")
            memory = tasks.create_task(self._give_memory_back(), name="memory")
            room = tasks.create_task(self._acceptor.connections.keep_room(), name="room")
            acceptor = tasks.create_task(self._acceptor.keep(), name="acceptor")
            finishing = tasks.create_task(self._finish(acceptor, stop), name="finish")
            await stop.wait()
            self._let_nobody_in()
            await self._drain(acceptor, finishing)
            for task in (prober, memory, room):
                task.cancel()
        self._ways_out.close()

    def _let_nobody_in(self) -> None:
        """Begin to end: who is here has one request more, so that none is lost on a connection."""
        self._frontend.drain()
        self._acceptor.close()

    async def _finish(self, acceptor: asyncio.Task[None], stop: asyncio.Event) -> None:
        """Wait until nobody can come any more and everybody is gone."""
        await asyncio.shield(acceptor)
        await self._acceptor.connections.wait_until_empty()
        stop.set()

    async def _drain(self, acceptor: asyncio.Task[None], finishing: asyncio.Task[None]) -> None:
        """Let those who are here finish, and close what is left when their time is over."""
        try:
            async with asyncio.timeout(self._drain_timeout):
                await finishing
        except TimeoutError:
            logger.info("drain_timed_out", connections=self._acceptor.connections.open)
            acceptor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await acceptor
        await self._frontend.stop()

    async def _give_memory_back(self) -> None:
        """Give the system what a crowd of connections took, once they are gone: 30 ms for 200 MiB.

        Python's allocator gives back whole arenas of 1 MiB, and in each of a large crowd's arenas something
        small lives on. Only a new process is without them, and so the parent hears of it.
        """
        libc = ctypes.CDLL(None)
        can_trim = hasattr(libc, "malloc_trim")  # musl's can't, and needn't
        if can_trim:
            libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        while True:
            await asyncio.sleep(MEMORY_SECONDS)
            if self._acceptor.connections.has_load_dropped() and can_trim:
                libc.malloc_trim(0)
            # A successor begins without what DNS has told this one, which may serve for a day after it fails.
            if self._acceptor.connections.has_outlived_load and await self._locator.can_be_refilled():
                self._notify(LoadDropped())
