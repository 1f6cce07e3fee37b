"""One process's work, and the composition root: everything is built here from the configuration."""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence

from kkdcpd.config import Config
from kkdcpd.frontends.door import Door, Listener
from kkdcpd.frontends.https import HttpsFrontend
from kkdcpd.locate.hosts import HostResolver
from kkdcpd.locate.static import StaticLocator
from kkdcpd.pipeline import Pipeline
from kkdcpd.upstream.driver import Upstream

__all__ = ["Worker"]

STOP_SECONDS = 25.0
"""What is in flight ends by itself within `upstream.reply_timeout`: this is a little more by default."""


class Worker:
    """Serves requests that come in by the listeners."""

    def __init__(
        self, config: Config, listeners: Sequence[Listener], tls_context: ssl.SSLContext | None
    ) -> None:
        pipeline = Pipeline(
            locator=StaticLocator(config.realms, HostResolver(timeout=config.upstream.reach_timeout)),
            upstream=Upstream(config.upstream),
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
        async with asyncio.TaskGroup() as tasks:
            door = tasks.create_task(self._door.keep(), name="door")
            await stop.wait()
            door.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await door
        self._door.close()
        await self._frontend.stop(STOP_SECONDS)
