"""Brings requests to KDCs: chooses the order of candidates, and runs an exchange for each request."""

from collections.abc import Callable

from kkdcpd.config import UpstreamConfig
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol.exchange import Exchange, ExchangeLimits
from kkdcpd.protocol.ip_addresses import limited_networks
from kkdcpd.upstream.choice import Choice
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.load import HedgeTokens
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.running import RunningExchange, SharedState
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.values import KdcReply, ProxyRequest, Route

__all__ = ["Upstream"]


class Upstream:
    """The way out of the house. Make it in a running event loop."""

    def __init__(
        self,
        config: UpstreamConfig,
        ways_out: WaysOut,
        health: HealthTable,
        prober: Prober,
        counters: Counters,
    ) -> None:
        self.shared = SharedState(
            ways_out,
            health,
            prober,
            counters,
            max_in_flight=config.max_in_flight_per_kdc,
            usual_seconds=config.hedge_delay,
        )
        self._choice = Choice(health)
        self._hedges = HedgeTokens(config.hedge_ratio, counters.hedged)
        self._limits = ExchangeLimits(
            connect_timeout=config.connect_timeout,
            reach_timeout=config.reach_timeout,
            reply_timeout=config.reply_timeout,
            stagger=config.stagger,
            hedge_delay=config.hedge_delay,
        )

    async def exchange(
        self,
        request: ProxyRequest,
        route: Route,
        *,
        network: str = "",
        host: int | None = None,
        on_sent: Callable[[], object] | None = None,
    ) -> KdcReply:
        """Bring the request to one of the route's candidates and return its reply.

        `network` is the client's: networks share slots and ports fairly. `host` is the mark of the host to
        prefer while it is healthy. `on_sent` is called before a KDC gets the message.

        Raises:
            NoKdcReachedError: no KDC took the message.
            NoKdcReplyError: a KDC took it, but gave no usable reply in time.
        """
        self._hedges.request_begins()
        candidates = self._choice.order(route, request.affinity, host)
        exchange = Exchange(
            request,
            candidates,
            limits=self._limits,
            hedges=self._hedges,
            health=self.shared.health,
            facts=self.shared.health.facts,
            now=self.shared.loop.time(),
        )
        running = RunningExchange(
            self.shared, exchange, request, route, limited_networks(network), on_sent=on_sent
        )
        try:
            running.step()
            return await running.done
        finally:
            running.end()
