"""The exchange driver: carries out the commands of protocol.exchange, and decides nothing itself."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from kkdcpd.config import UpstreamConfig
from kkdcpd.metrics.counters import Counters
from kkdcpd.protocol.exchange import Abandon, Connect, Exchange, ExchangeLimits, Report, Send
from kkdcpd.upstream.attempt import WayOut
from kkdcpd.upstream.choice import Choice
from kkdcpd.upstream.health import HealthTable, ProbeTarget
from kkdcpd.upstream.hedging import HedgeTokens
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.shares import Slots
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.values import (
    Attempt,
    AttemptFailure,
    FailureReason,
    KdcEndpoint,
    KdcReply,
    KdcService,
    ProxyRequest,
    Route,
)

__all__ = ["Upstream"]


MAX_IDLE_ENDPOINTS = 1024
"""Endpoints whose slots are kept though none is taken. Beyond that all of these are forgotten."""


@dataclass(slots=True, eq=False)
class _Way:
    """A way out that is open, and the slot that it takes."""

    way_out: WayOut
    conversation: "_Conversation"
    attempt: Attempt
    slots: "Slots[_Way]"


class Upstream:
    """Brings requests to KDCs. For one event loop, that runs."""

    def __init__(
        self,
        config: UpstreamConfig,
        ways_out: WaysOut,
        health: HealthTable,
        prober: Prober,
        counters: Counters,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.counters = counters
        self.ways_out = ways_out
        self.max_in_flight = config.max_in_flight_per_kdc
        self.health = health
        self._prober = prober
        self._choice = Choice(health)
        self._hedges = HedgeTokens(config.hedge_ratio, counters.hedged)
        self._slots: dict[KdcEndpoint, Slots[_Way]] = {}
        self._limits = ExchangeLimits(
            connect_timeout=config.connect_timeout,
            reach_timeout=config.reach_timeout,
            reply_timeout=config.reply_timeout,
            stagger=config.stagger,
            hedge_delay=config.hedge_delay,
        )

    async def exchange(
        self, request: ProxyRequest, route: Route, *, network: str = "", host: int | None = None
    ) -> KdcReply:
        """Bring the request to one of the route's candidates and return its reply.

        `network` is the client's: what is scarce is shared fairly between networks. `host` is the mark of the
        host to prefer while it is healthy.

        Raises:
            NoKdcReachedError: no KDC took the message.
            NoKdcReplyError: one did, but gave no usable reply in time.
        """
        self._hedges.request_begins()
        candidates = self._choice.order(route, request.affinity, host)
        now = self.loop.time()
        exchange = Exchange(
            request, candidates, limits=self._limits, hedges=self._hedges, health=self.health, now=now
        )
        conversation = _Conversation(self, exchange, request, route, network)
        try:
            conversation.step()
            return await conversation.done
        finally:
            conversation.end()

    def slots_of(self, endpoint: KdcEndpoint) -> Slots[_Way]:
        """Return the slots for requests in flight at the endpoint."""
        slots = self._slots.get(endpoint)
        if slots is None:
            if len(self._slots) >= MAX_IDLE_ENDPOINTS:
                self._slots = {other: busy for other, busy in self._slots.items() if busy.taken}
            slots = self._slots[endpoint] = Slots(self.max_in_flight)
        return slots

    def report(self, endpoint: KdcEndpoint, realm: str | None, failure: FailureReason | None) -> None:
        """Tell the health table what a request met."""
        self.health.report(ProbeTarget(endpoint=endpoint, realm=realm), failure, self.loop.time())
        if failure:
            self._prober.wake()


class _Conversation:
    """One exchange under way. Its attempts report their events here; `done` is its end.

    A client that leaves cancels `done`. Events that come between this and `end` have no effect.
    """

    def __init__(
        self, upstream: Upstream, exchange: Exchange, request: ProxyRequest, route: Route, network: str
    ) -> None:
        self.done: asyncio.Future[KdcReply] = upstream.loop.create_future()
        self._upstream = upstream
        self._exchange = exchange
        self._request = request
        self._network = network
        # Never what the message says: a stranger could have us probe for what no KDC answers.
        self._probe_realm = None if request.service is KdcService.KPASSWD else route.kerberos_realm
        self._loop = upstream.loop
        self._ways: dict[int, _Way] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._has_news = False
        self._is_stepping = False

    # --- events

    def connected(self, attempt: Attempt) -> None:
        if attempt.number in self._ways and not self.done.done():
            self._exchange.connected(attempt, self._loop.time())
            self.step()

    def received(self, attempt: Attempt, payload: bytes) -> None:
        way = self._ways.get(attempt.number)
        if way:
            way.slots.note_answer(way)
        if self._take_out(attempt):
            self._exchange.received(attempt, payload, self._loop.time())
            self.step()

    def failed(self, attempt: Attempt, reason: FailureReason) -> None:
        if self._take_out(attempt):
            self._note_failure(attempt, reason)

    def displace(self, attempt: Attempt) -> None:
        """Give the attempt's slot to a request of a smaller network."""
        self._close(attempt.number)
        self._loop.call_soon(self._note_failure, attempt, FailureReason.DISPLACED)

    def _take_out(self, attempt: Attempt) -> bool:
        """Free the slot of an attempt that is over; say whether the exchange goes on."""
        way = self._ways.pop(attempt.number, None)
        if way:
            way.slots.remove(way)
        return way is not None and not self.done.done()

    def _note_failure(self, attempt: Attempt, reason: FailureReason) -> None:
        if not self.done.done():
            self._exchange.failed(attempt, reason, self._loop.time())
            self.step()

    def step(self) -> None:
        """Go on after an event or when it is time; a command's own events belong to the same step."""
        self._has_news = True
        if self._is_stepping or self.done.done():
            return
        self._is_stepping = True
        try:
            self._carry_out_what_is_due()
        except Exception as error:  # noqa: BLE001 - a bug, which would else leave the client waiting for ever
            self.done.set_exception(error)
            return
        finally:
            self._is_stepping = False
        if self._exchange.reply:
            self.done.set_result(self._exchange.reply)
        elif self._exchange.error:
            self.done.set_exception(self._exchange.error)
        elif self._exchange.wakes_at < self._timer_at:
            self._set_timer()

    def end(self) -> None:
        """Close every socket, whatever ended the exchange, and count what became of its attempts.

        What isn't counted was closed unused, or the client has left.
        """
        if self._timer:
            self._timer.cancel()
        for number in [*self._ways]:
            self._close(number)
        counters, failures, reply = self._upstream.counters, self._exchange.failures, self._exchange.reply
        for failure in failures:
            counters.kdc_failed(failure)
        # Of KDCs that all are unavailable, one's reply is relayed: it stands among the failures already.
        if reply and not (failures and reply.endpoint in _unavailable(failures)):
            counters.kdc_replied(reply.endpoint)

    # --- commands

    def _carry_out_what_is_due(self) -> None:
        while self._has_news:
            self._has_news = False
            for command in self._exchange.due(self._loop.time()):
                match command:
                    case Connect():
                        self._connect(command.attempt)
                    case Send():
                        self._send(command.attempt.number)
                    case Abandon():
                        self._close(command.attempt.number)
                    # That one is well is no news while all are.
                    case Report() if command.failure or self._upstream.health.has_troubles:
                        self._upstream.report(command.endpoint, self._probe_realm, command.failure)

    def _connect(self, attempt: Attempt) -> None:
        """Open a way to the attempt's endpoint, if its slots leave one for the client's network."""
        upstream, endpoint = self._upstream, attempt.endpoint
        slots = upstream.slots_of(endpoint)
        if slots.is_full:
            larger = slots.yields_to(self._network)
            if larger is None:
                self._exchange.failed(attempt, FailureReason.BUSY, self._loop.time())
                self._has_news = True
                return
            larger.conversation.displace(larger.attempt)
        upstream.counters.kdc_tried(endpoint)
        way_out = upstream.ways_out.open(attempt, self, network=self._network)
        way = self._ways[attempt.number] = _Way(way_out, self, attempt, slots)
        slots.add(self._network, way)
        way_out.start()

    def _send(self, number: int) -> None:
        # An event of the same step may have ended the attempt.
        if number in self._ways:
            self._ways[number].way_out.send(self._request)

    def _close(self, number: int) -> None:
        """Close a way that the exchange has no use for; one that has told its end is closed already."""
        way = self._ways.pop(number, None)
        if way:
            way.slots.remove(way)
            way.way_out.close()

    def _set_timer(self) -> None:
        """Wake in time. A timer that is too early is left alone: it costs less than another."""
        if self._timer:
            self._timer.cancel()
        self._timer_at = self._exchange.wakes_at
        self._timer = self._loop.call_at(self._timer_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        self.step()


def _unavailable(failures: Sequence[AttemptFailure]) -> set[KdcEndpoint]:
    return {failure.endpoint for failure in failures if failure.reason is FailureReason.SERVICE_UNAVAILABLE}
