"""The exchange driver: carries out what protocol.exchange asks for, and decides nothing itself."""

import asyncio
from collections import Counter

from kkdcpd.config import UpstreamConfig
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol.exchange import Abandon, Command, Connect, Exchange, ExchangeLimits, Report, Send
from kkdcpd.upstream.attempt import AttemptEvents, WayOut
from kkdcpd.upstream.choice import Choice
from kkdcpd.upstream.health import HealthTable, ProbeTarget
from kkdcpd.upstream.hedging import HedgeTokens
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.values import (
    Attempt,
    FailureReason,
    KdcEndpoint,
    KdcReply,
    KdcService,
    ProxyRequest,
    Route,
)

__all__ = ["Upstream"]


class Upstream:
    """Brings requests to KDCs."""

    def __init__(
        self,
        config: UpstreamConfig,
        ways_out: WaysOut,
        health: HealthTable,
        prober: Prober,
        counters: Counters,
    ) -> None:
        self.counters = counters
        self._ways_out = ways_out
        self._health = health
        self._prober = prober
        self._max_in_flight = config.max_in_flight_per_kdc
        self._choice = Choice(health)
        self._hedges = HedgeTokens(config.hedge_ratio, counters.hedged)
        self._in_flight: Counter[KdcEndpoint] = Counter()
        self._limits = ExchangeLimits(
            connect_timeout=config.connect_timeout,
            reach_timeout=config.reach_timeout,
            reply_timeout=config.reply_timeout,
            stagger=config.stagger,
            hedge_delay=config.hedge_delay,
        )

    async def exchange(self, request: ProxyRequest, route: Route) -> KdcReply:
        """Bring the request to one of the route's candidates and return its reply.

        Raises:
            NoKdcReachedError: no KDC took the message.
            NoKdcReplyError: one did, but gave no usable reply in time.
        """
        self._hedges.request_begins()
        loop = asyncio.get_running_loop()
        now = loop.time()
        candidates = self._choice.order(route, request.affinity)
        exchange = Exchange(request, candidates, limits=self._limits, hedges=self._hedges, now=now)
        return await _Conversation(self, exchange, request, route.kerberos_realm, loop).run()

    def way_out(self, attempt: Attempt, events: AttemptEvents) -> WayOut | None:
        """Open a way to the attempt's endpoint, unless too many requests are with it already."""
        endpoint = attempt.endpoint
        if self._in_flight[endpoint] >= self._max_in_flight:
            return None
        self._in_flight[endpoint] += 1
        self.counters.kdc_tried(endpoint)
        return self._ways_out.open(attempt, events)

    def release(self, endpoint: KdcEndpoint) -> None:
        """Count one request less with the endpoint."""
        self._in_flight[endpoint] -= 1
        if not self._in_flight[endpoint]:
            del self._in_flight[endpoint]

    def report(self, target: ProbeTarget, failure: FailureReason | None, now: float) -> None:
        """Tell the health table what a request met."""
        self._health.report(target, failure, now)
        if failure:
            self._prober.wake()


class _Conversation:
    """One exchange under way. Its attempts tell it their events; its future ends with the exchange."""

    def __init__(
        self,
        upstream: Upstream,
        exchange: Exchange,
        request: ProxyRequest,
        kerberos_realm: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._upstream = upstream
        # Never what the message says: a stranger could have us probe for what no KDC answers.
        self._probe_realm = None if request.service is KdcService.KPASSWD else kerberos_realm
        self._exchange = exchange
        self._request = request
        self._loop = loop
        self._done: asyncio.Future[KdcReply] = self._loop.create_future()
        self._ways: dict[Attempt, WayOut] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_stepping = False

    async def run(self) -> KdcReply:
        """Carry the exchange to its end; whatever ends it, every socket is closed."""
        try:
            self._step()
            return await self._done
        finally:
            if self._timer:
                self._timer.cancel()
            for attempt in list(self._ways):
                self._close(attempt)
            self._count()

    def connected(self, attempt: Attempt) -> None:
        self._exchange.connected(attempt, self._loop.time())
        self._step()

    def received(self, attempt: Attempt, payload: bytes) -> None:
        self._close(attempt)
        self._exchange.received(attempt, payload, self._loop.time())
        self._step()

    def failed(self, attempt: Attempt, reason: FailureReason) -> None:
        self._close(attempt)
        self._exchange.failed(attempt, reason, self._loop.time())
        self._step()

    def _step(self) -> None:
        """Carry out what is due; what a command makes happen at once is due in the same step."""
        if self._is_stepping or self._done.done():
            return
        self._is_stepping = True
        try:
            while commands := self._exchange.due(self._loop.time()):
                for command in commands:
                    self._obey(command)
        finally:
            self._is_stepping = False
        if self._exchange.reply:
            self._done.set_result(self._exchange.reply)
        elif self._exchange.error:
            self._done.set_exception(self._exchange.error)
        else:
            self._set_timer()

    def _obey(self, command: Command) -> None:
        match command:
            case Connect(attempt):
                self._connect(attempt)
            case Send(attempt):
                self._ways[attempt].send(self._request)
            case Abandon(attempt):
                self._close(attempt)
            case Report(endpoint, failure):
                target = ProbeTarget(endpoint=endpoint, realm=self._probe_realm)
                self._upstream.report(target, failure, self._loop.time())

    def _count(self) -> None:
        """Count what became of the attempts. What isn't counted was closed unused, or the client has left."""
        counters, failures, reply = self._upstream.counters, self._exchange.failures, self._exchange.reply
        for failure in failures:
            counters.kdc_failed(failure)
        # Of KDCs that all are unavailable, one's reply is relayed: it stands among the failures already.
        if reply and reply.endpoint not in {
            failure.endpoint for failure in failures if failure.reason is FailureReason.SERVICE_UNAVAILABLE
        }:
            counters.kdc_replied(reply.endpoint)

    def _connect(self, attempt: Attempt) -> None:
        way = self._upstream.way_out(attempt, self)
        if way is None:
            self._exchange.failed(attempt, FailureReason.BUSY, self._loop.time())
            return
        self._ways[attempt] = way
        way.start()

    def _close(self, attempt: Attempt) -> None:
        way = self._ways.pop(attempt, None)
        if way:
            way.close()
            self._upstream.release(attempt.endpoint)

    def _set_timer(self) -> None:
        """Wake in time. A timer that is too early is left alone: it costs less than another."""
        wakes_at = self._exchange.wakes_at
        if self._timer:
            if self._timer.when() <= wakes_at and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(wakes_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._step()
