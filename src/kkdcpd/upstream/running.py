"""Runs one exchange: carries out the commands of `protocol.exchange`, and reports events to it.

The exchange decides everything. This module has the sockets, the alarm, the slots and the counters.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.counters import Counters
from kkdcpd.process_messages import ProbeTarget
from kkdcpd.protocol.exchange import Abandon, Connect, Exchange, Report, Send
from kkdcpd.protocol.resending import NO_FACTS
from kkdcpd.upstream.alarms import Alarms
from kkdcpd.upstream.health import HealthTable
from kkdcpd.upstream.load import Slots
from kkdcpd.upstream.prober import Prober
from kkdcpd.upstream.sockets import WayOut
from kkdcpd.upstream.ways_out import WaysOut
from kkdcpd.values import (
    Attempt,
    AttemptFailure,
    FailureFacts,
    FailureReason,
    KdcReply,
    KdcService,
    ProxyRequest,
    Route,
)

__all__ = ["OpenAttempt", "RunningExchange", "SharedState"]

MAX_IDLE_ENDPOINTS = 1024
"""The most endpoints without a taken slot whose slots are kept. Beyond this number all are dropped."""


@dataclass(slots=True, eq=False)
class OpenAttempt:
    """An attempt with its way out and the slot that it takes."""

    attempt: Attempt
    way_out: WayOut
    running: "RunningExchange"
    slots: "Slots[OpenAttempt]"
    networks: Sequence[str]
    started_at: float


class SharedState:
    """The state that all running exchanges of a process share."""

    def __init__(
        self,
        ways_out: WaysOut,
        health: HealthTable,
        prober: Prober,
        counters: Counters,
        *,
        max_in_flight: int,
        usual_seconds: float,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.alarms = Alarms()
        self.ways_out = ways_out
        self.health = health
        self.counters = counters
        self._prober = prober
        self._max_in_flight = max_in_flight
        self._usual_seconds = usual_seconds
        self._slots: dict[KdcEndpoint, Slots[OpenAttempt]] = {}

    def slots_of(self, endpoint: KdcEndpoint) -> Slots[OpenAttempt]:
        """Return the slots for requests in flight at the endpoint."""
        slots = self._slots.get(endpoint)
        if slots is None:
            if len(self._slots) >= MAX_IDLE_ENDPOINTS:
                self._slots = {other: busy for other, busy in self._slots.items() if busy.taken}
            slots = self._slots[endpoint] = Slots(self._max_in_flight)
        return slots

    def passed_over_before(self, endpoint: KdcEndpoint, realm: str | None) -> float:
        """Return the time before which a request must have started to be passed over by the endpoint.

        A password server of UDP alone has no probe that changes no password, so it counts as fast.
        """
        now = self.loop.time()
        if realm is None and endpoint.transport is Transport.UDP:
            return now - self._usual_seconds
        return self.health.facts.passed_over_before(endpoint, now, self._usual_seconds)

    def report(self, report: Report, realm: str | None) -> None:
        """Report a request's result to the health table."""
        target = ProbeTarget(endpoint=report.endpoint, realm=realm)
        self.health.report(target, report.failure, self.loop.time(), retry_after=report.retry_after)
        if report.failure:
            self._prober.wake()


class RunningExchange:
    """One exchange under way. Its attempts report their events here; `done` is its end.

    A client that leaves cancels `done`. Events between this moment and `end` have no effect.
    """

    def __init__(
        self,
        shared: SharedState,
        exchange: Exchange,
        request: ProxyRequest,
        route: Route,
        networks: Sequence[str],
        *,
        on_sent: Callable[[], object] | None = None,
    ) -> None:
        self._on_sent = on_sent
        self.done: asyncio.Future[KdcReply] = shared.loop.create_future()
        self._shared = shared
        self._exchange = exchange
        self._request = request
        self._networks = networks
        # Never the realm of the message: a client could cause probes that no KDC answers.
        self._probe_realm = None if request.service is KdcService.KPASSWD else route.kerberos_realm
        self._loop = shared.loop
        self._open: dict[int, OpenAttempt] = {}
        self._alarm: int | None = None
        self._alarm_at = math.inf
        self._has_news = False
        self._is_stepping = False

    # --- events

    def connected(self, attempt: Attempt) -> None:
        """Handle the event that the attempt can send."""
        if attempt.number in self._open and not self.done.done():
            self._exchange.connected(attempt, self._loop.time())
            self.step()

    def received(self, attempt: Attempt, payload: bytes) -> None:
        """Handle the reply of the attempt."""
        opened = self._open.pop(attempt.number, None)
        if opened:
            opened.slots.remove_answered(opened)
            if not self.done.done():
                self._exchange.received(attempt, payload, self._loop.time())
                self.step()

    def failed(self, attempt: Attempt, reason: FailureReason, facts: FailureFacts = NO_FACTS) -> None:
        """Handle the end of the attempt without a reply."""
        opened = self._open.pop(attempt.number, None)
        if opened:
            opened.slots.remove(opened)
            self._note_failure(attempt, reason, facts)

    def displace(self, attempt: Attempt) -> None:
        """Give the attempt's slot to a request of a smaller network."""
        self._close(attempt.number)
        self._loop.call_soon(self._note_failure, attempt, FailureReason.DISPLACED)

    def _note_failure(self, attempt: Attempt, reason: FailureReason, facts: FailureFacts = NO_FACTS) -> None:
        if not self.done.done():
            self._exchange.failed(attempt, reason, self._loop.time(), facts)
            self.step()

    def step(self) -> None:
        """Continue after an event or at a deadline. A command's own events belong to the same step."""
        self._has_news = True
        if self._is_stepping or self.done.done():
            return
        self._is_stepping = True
        try:
            self._carry_out_due_commands()
        except Exception as error:  # noqa: BLE001 - a bug, which would otherwise leave the client waiting
            self.done.set_exception(error)
            return
        finally:
            self._is_stepping = False
        if self._exchange.reply:
            self.done.set_result(self._exchange.reply)
        elif self._exchange.error:
            self.done.set_exception(self._exchange.error)
        elif self._exchange.wakes_at < self._alarm_at:
            self._set_alarm()

    def end(self) -> None:
        """Close every socket after any end of the exchange, and count the results of its attempts.

        Attempts that are not counted were closed unused, or the client has left.
        """
        if self._alarm is not None:
            self._shared.alarms.cancel(self._alarm)
        for number in [*self._open]:
            self._close(number)
        counters, failures, reply = self._shared.counters, self._exchange.failures, self._exchange.reply
        for failure in failures:
            counters.kdc_failed(failure)
        # If all KDCs are unavailable, the reply of one KDC is relayed. It is counted as a failure already.
        if reply and not (failures and reply.endpoint in _unavailable(failures)):
            counters.kdc_replied(reply.endpoint)

    # --- commands

    def _carry_out_due_commands(self) -> None:
        while self._has_news:
            self._has_news = False
            now = self._loop.time()
            for command in self._exchange.due(now):
                match command:
                    case Connect():
                        self._connect(command.attempt, now)
                    case Send():
                        # An event of the same step may have ended the attempt.
                        if command.attempt.number in self._open:
                            if self._on_sent:
                                self._on_sent()
                            self._open[command.attempt.number].way_out.send(self._request)
                    case Abandon():
                        self._close(command.attempt.number)
                    # While all endpoints are healthy, the health table has nothing to change.
                    case Report() if command.failure or self._shared.health.has_unhealthy:
                        self._shared.report(command, self._probe_realm)

    def _connect(self, attempt: Attempt, now: float) -> None:
        shared, endpoint = self._shared, attempt.endpoint
        slots = shared.slots_of(endpoint)
        # Without a port the attempt fails when it starts. Then it takes no slot from another request.
        if slots.is_full and self._has_port(endpoint) and not self._make_room(slots, endpoint):
            self._exchange.failed(attempt, FailureReason.BUSY, now)
            self._has_news = True
            return
        shared.counters.kdc_tried(endpoint)
        way_out = shared.ways_out.open(
            attempt, self, networks=self._networks, may_repeat=self._exchange.is_repeatable
        )
        opened = OpenAttempt(attempt, way_out, self, slots, self._networks, now)
        self._open[attempt.number] = opened
        slots.add(opened)
        way_out.start()

    def _has_port(self, endpoint: KdcEndpoint) -> bool:
        return self._shared.ways_out.has_port(endpoint, self._networks)

    def _make_room(self, slots: Slots[OpenAttempt], endpoint: KdcEndpoint) -> bool:
        passed_over_before = self._shared.passed_over_before(endpoint, self._probe_realm)
        displaced = slots.yields_to(self._networks, passed_over_before=passed_over_before)
        if displaced:
            displaced.running.displace(displaced.attempt)
        return displaced is not None

    def _close(self, number: int) -> None:
        """Close an attempt that the exchange does not need; an attempt that has ended is closed already."""
        opened = self._open.pop(number, None)
        if opened:
            opened.slots.remove(opened)
            opened.way_out.close()

    def _set_alarm(self) -> None:
        """Wake in time. An alarm that is too early stays: an early wake-up costs less than a new alarm."""
        if self._alarm is not None:
            self._shared.alarms.cancel(self._alarm)
        self._alarm_at = self._exchange.wakes_at
        self._alarm = self._shared.alarms.set(self._alarm_at, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._alarm_at = math.inf
        self.step()


def _unavailable(failures: Sequence[AttemptFailure]) -> set[KdcEndpoint]:
    return {failure.endpoint for failure in failures if failure.reason is FailureReason.SERVICE_UNAVAILABLE}
