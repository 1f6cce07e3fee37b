"""One process's work, and the composition root: everything is built here from the configuration."""

import asyncio
import contextlib
import ctypes
import mmap
import time
from collections.abc import Sequence

from kkdcpd.config import Config, SystemFiles
from kkdcpd.frontends.door import Door, Listener
from kkdcpd.frontends.https import HttpsFrontend
from kkdcpd.guard.guard import Guard
from kkdcpd.guard.shared_table import SharedTable
from kkdcpd.locate.locator import build_locator
from kkdcpd.pipeline import Pipeline
from kkdcpd.upstream.driver import Upstream
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.ways_out import WaysOut

__all__ = ["Worker"]

STOP_SECONDS = 25.0
"""What is in flight ends by itself within `upstream.reply_timeout`: this is a little more by default."""

MEMORY_SECONDS = 5.0
"""How soon after a crowd its memory is given back."""

M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 65536
"""Blocks from this size on have pages of their own, which go back when they are freed (mallopt(3)).

Left to itself, glibc raises its threshold when a TLS connection of uvloop's frees its buffer of 256 KiB; from
then on such buffers are cut out of the heap, and what is small between them keeps all of it.
"""


class Worker:
    """Serves requests that come in by the listeners. Make it in a running event loop."""

    def __init__(
        self,
        config: Config,
        listeners: Sequence[Listener],
        system: SystemFiles,
        guard_memory: mmap.mmap,
    ) -> None:
        upstream = config.upstream
        health = HealthTable(
            probe_interval=upstream.probe_interval, probe_interval_maximum=upstream.probe_interval_maximum
        )
        ways_out = WaysOut(upstream)
        self._prober = Prober(upstream, ways_out, health)
        self._locator = build_locator(config, system)
        pipeline = Pipeline(
            guard=Guard(config, SharedTable(guard_memory), time.monotonic),
            locator=self._locator,
            upstream=Upstream(upstream, ways_out, health, self._prober),
        )
        self._frontend = HttpsFrontend(config, pipeline)
        self._door = Door(
            listeners,
            config.connections,
            handshake_timeout=config.http.handshake_timeout,
            make_connection=self._frontend.connection,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what is in flight."""
        async with self._locator, asyncio.TaskGroup() as tasks:
            prober = tasks.create_task(self._prober.run(), name="prober")
            memory = tasks.create_task(self._give_memory_back(), name="memory")
            door = tasks.create_task(self._door.keep(), name="door")
            await stop.wait()
            door.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await door
            self._door.close()
            await self._frontend.stop(STOP_SECONDS)
            prober.cancel()
            memory.cancel()

    async def _give_memory_back(self) -> None:
        """Give the system what a crowd of connections took, once they are gone: 30 ms for 200 MiB."""
        libc = ctypes.CDLL(None)
        if not hasattr(libc, "malloc_trim"):  # musl, which needs none of this
            return
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        while True:
            await asyncio.sleep(MEMORY_SECONDS)
            if self._door.places.is_crowd_gone():
                libc.malloc_trim(0)
