"""The child processes of the parent: forked, listened to, killed if they hang, and reaped.

A child's health notice about an endpoint is passed on to the other children.
"""

import contextlib
import os
import selectors
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial

from kkdcpd.frozen import frozen
from kkdcpd.log.events import EventLogger
from kkdcpd.process_messages import HealthNotice, LoadDropped, Message
from kkdcpd.shared_memory.rows import Rows
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child, fork_child
from kkdcpd.upstream.endpoint_table import EndpointTable
from kkdcpd.values import KdcState

__all__ = ["ChildExit", "Children", "HangLimits", "handle_events"]

logger = EventLogger(__name__)


@frozen
class HangLimits:
    """Seconds until a silent child gets SIGABRT, and from then until SIGKILL.

    Each step of a child takes milliseconds, and the child sends a message every second.
    """

    silent: float = 20.0
    abort: float = 5.0


@dataclass(frozen=True, slots=True)
class ChildExit:
    """The end of a child: `code` is its exit code, or below zero the number of a signal."""

    child: Child
    code: int

    @property
    def reason(self) -> str:
        """The end in words."""
        if self.code >= 0:
            return f"exit code {self.code}"
        return f"signal {signal.Signals(-self.code).name}"


class Children:
    """The children of all generations."""

    def __init__(
        self, selector: selectors.BaseSelector, rows: Rows, hang_limits: HangLimits | None = None
    ) -> None:
        self._selector = selector
        self._rows = rows
        self._hang_limits = hang_limits or HangLimits()
        self._children: dict[int, Child] = {}
        self._aborted: dict[int, float] = {}
        self._hangs_checked_at = time.monotonic()
        self._health: EndpointTable[HealthNotice] = EndpointTable()

    @property
    def is_empty(self) -> bool:
        """Whether all children have been reaped."""
        return not self._children

    def has_room_for(self, count: int) -> bool:
        """Whether `count` more children may run."""
        return self._rows.free >= count

    def send(self, message: Message) -> None:
        """Send a message to all children."""
        for child in self._children.values():
            child.channel.send(message)

    def fork(
        self,
        name: str,
        close_inherited: Callable[[], None],
        work: Callable[[Channel, int], Coroutine[None, None, None]],
    ) -> Child:
        """Fork a child that does `work` with its channel and its row of the shared memory.

        The child first calls `close_inherited`, which closes descriptors that only the parent needs.

        Raises:
            OSError: the system or the shared memory has no room for another process.
        """
        row = self._rows.take()
        try:
            child = fork_child(
                name, row, partial(self._close_inherited, close_inherited), lambda channel: work(channel, row)
            )
        except OSError:
            self._rows.give_back(row)
            raise
        self._children[child.pid] = child
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._receive(child))
        for notice in self._health.values():
            child.channel.send(notice)
        return child

    def reap(self) -> Iterator[ChildExit]:
        """Reap exited children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            # In a container, PID 1 also inherits orphans of other programs.
            child = self._children.pop(pid, None)
            if child:
                self._release(child)
                yield ChildExit(child, os.waitstatus_to_exitcode(status))

    def kill_hung(self, now: float) -> None:
        """Abort silent children, which makes them log where they hang. Then kill children that do not end."""
        was_paused = now - self._hangs_checked_at > self._hang_limits.silent / 2
        self._hangs_checked_at = now
        for pid, child in self._children.items():
            if was_paused:
                # The host or the parent process was stopped, and no message could be received.
                child.last_message_at = now
            if pid in self._aborted:
                if now - self._aborted[pid] > self._hang_limits.abort:
                    child.kill()
            elif now - child.last_message_at > self._hang_limits.silent:
                seconds = round(now - child.last_message_at)
                logger.error("worker_hung", process=child.name, pid=pid, seconds=seconds)
                self._aborted[pid] = now
                child.kill(signal.SIGABRT)

    def kill_all(self) -> None:
        """Kill all children at once."""
        for child in self._children.values():
            child.kill()

    def _release(self, child: Child) -> None:
        self._aborted.pop(child.pid, None)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)
        child.channel.close()
        self._rows.give_back(child.row)

    def _receive(self, child: Child) -> None:
        for message in child.channel.receive():
            child.last_message_at = time.monotonic()
            self._handle(child, message)
        if not child.channel.is_open:
            # SIGCHLD reports the exit. Until then the closed channel would be readable all the time.
            self._selector.unregister(child.channel)

    def _handle(self, child: Child, message: Message) -> None:
        child.is_ready = True
        if isinstance(message, LoadDropped):
            child.load_dropped_at = child.last_message_at
        elif isinstance(message, HealthNotice):
            self._remember(message)
            for other in self._children.values():
                if other is not child:
                    other.channel.send(message)

    def _remember(self, notice: HealthNotice) -> None:
        """Keep the notice for children that are forked later."""
        endpoint = notice.target.endpoint
        self._health.pop(endpoint)
        if notice.state is not KdcState.HEALTHY and self._health.has_room(endpoint):
            self._health.add(endpoint, notice)

    def _close_inherited(self, close_inherited: Callable[[], None]) -> None:
        """Close the other children's channels in a child: an open copy would hide the end of the channel."""
        for child in self._children.values():
            child.channel.close()
        close_inherited()


def handle_events(selector: selectors.BaseSelector, seconds: float) -> None:
    """Wait for at most `seconds`. Call the `data` of each descriptor that is ready.

    A callback may unregister a descriptor that was ready too; then its callback is not called.
    """
    for key, _events in selector.select(seconds):
        if selector.get_map().get(key.fd) is key:
            key.data()
