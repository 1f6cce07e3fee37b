"""One process's work, and the composition root: everything is built here from the configuration."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence

from kkdcpd.config import Config, SystemFiles
from kkdcpd.frontends.door import Door, Listener
from kkdcpd.frontends.https import HttpsFrontend
from kkdcpd.locate.locator import build_locator
from kkdcpd.pipeline import Pipeline
from kkdcpd.upstream.driver import Upstream
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.ways_out import WaysOut

__all__ = ["Worker"]

STOP_SECONDS = 25.0
"""What is in flight ends by itself within `upstream.reply_timeout`: this is a little more by default."""


class Worker:
    """Serves requests that come in by the listeners. Make it in a running event loop."""

    def __init__(
        self,
        config: Config,
        listeners: Sequence[Listener],
        tls_context: ssl.SSLContext | None,
        system: SystemFiles,
    ) -> None:
        upstream = config.upstream
        health = HealthTable(
            probe_interval=upstream.probe_interval, probe_interval_maximum=upstream.probe_interval_maximum
        )
        ways_out = WaysOut(upstream)
        self._prober = Prober(upstream, ways_out, health)
        self._locator = build_locator(config, system)
        pipeline = Pipeline(
            locator=self._locator, upstream=Upstream(upstream, ways_out, health, self._prober)
        )
        self._frontend = HttpsFrontend(config.http, pipeline)
        self._door = Door(
            listeners,
            tls_context=tls_context,
            handshake_timeout=config.http.handshake_timeout,
            make_connection=self._frontend.connection,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what is in flight."""
        async with self._locator, asyncio.TaskGroup() as tasks:
            prober = tasks.create_task(self._prober.run(), name="prober")
            door = tasks.create_task(self._door.keep(), name="door")
            await stop.wait()
            door.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await door
            self._door.close()
            await self._frontend.stop(STOP_SECONDS)
            prober.cancel()
