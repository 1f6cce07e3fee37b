"""The admin process: builds everything that serves metrics and health, and runs it.

It is a separate process, so that it responds when all worker processes are busy. It reads the shared memory
of all of them. A reload replaces it like a worker process.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from kkdcpd.config import AdminConfig, Config, DatedItem, SystemFiles
from kkdcpd.frontends.admin import CONNECTIONS, AdminFrontend
from kkdcpd.frontends.http.acceptor import Acceptor, Listener
from kkdcpd.locate.locator import build_locator
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.exposition import Exposition, ServiceFacts
from kkdcpd.metrics.memory import Metrics
from kkdcpd.metrics.reader import MetricsReader
from kkdcpd.process_messages import HealthNotice, Retire, ServiceStatus
from kkdcpd.service import Service
from kkdcpd.shared_memory.areas import make_area
from kkdcpd.shared_memory.network_counts import NetworkCounts, counts_bytes

__all__ = ["AdminProcess"]

HANDSHAKE_SECONDS = 1.0
"""The listeners have no TLS, so the handshake takes no time."""

DRAIN_SECONDS = 1.0
"""The time for the request of a connection that was opened just before the end. Clients are near."""

STOP_SECONDS = 3.0
"""A little more than the slowest response takes."""


class AdminProcess:
    """Serves metrics and health on its listeners. Make it in a running event loop."""

    def __init__(
        self,
        config: Config,
        listeners: Sequence[Listener],
        system: SystemFiles,
        metrics: Metrics,
        status: ServiceStatus,
        *,
        dated: Sequence[DatedItem] = (),
    ) -> None:
        self._facts = ServiceFacts(status=status, dated=dated)
        self._locator = build_locator(config, system)
        reader = MetricsReader(metrics)
        service = Service(config, self._locator, reader, self._facts)
        self._frontend = AdminFrontend(
            Exposition(reader, self._facts), service, takes_names=_takes_names(config.admin)
        )
        self._acceptor = Acceptor(
            listeners,
            CONNECTIONS,
            NetworkCounts(make_area(counts_bytes(1)), 0),
            handshake_timeout=HANDSHAKE_SECONDS,
            counters=Counters.discarding(),
            make_connection=self._frontend.connection,
        )

    def handle(self, message: HealthNotice | Retire | ServiceStatus) -> None:
        """Keep the new state of the service. The health of KDCs is in the metrics."""
        if isinstance(message, ServiceStatus):
            self._facts.status = message

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Then each open connection has a moment for one more request."""
        async with self._locator, asyncio.TaskGroup() as tasks:
            acceptor = tasks.create_task(self._acceptor.keep(), name="admin acceptor")
            await stop.wait()
            self._acceptor.close()
            await acceptor
            self._frontend.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await self._acceptor.connections.wait_until_empty()
            await self._frontend.stop(STOP_SECONDS)


def _takes_names(admin: AdminConfig) -> bool:
    """Whether requests may use any host name: browsers cannot reach the listener, or it is public."""
    return admin.anywhere or admin.address is None or admin.address.unix_path is not None
