"""The parent's children: forked, listened to, ended and reaped; what one says for the others is passed on."""

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

__all__ = ["Death", "Family", "Patience"]

logger = EventLogger(__name__)


@frozen
class Patience:
    """How many seconds a child may say nothing, and then has to tell where it hangs.

    What it does at a time takes milliseconds, and it says every second that it lives.
    """

    hung: float = 20.0
    abort: float = 5.0


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended: an exit code, or the number of a signal below zero."""

    child: Child
    code: int

    @property
    def words(self) -> str:
        """Say it in plain words."""
        if self.code >= 0:
            return f"exit code {self.code}"
        return f"signal {signal.Signals(-self.code).name}"


class Family:
    """All children, whatever generation they are of."""

    def __init__(
        self, selector: selectors.BaseSelector, rows: Rows, patience: Patience | None = None
    ) -> None:
        self._selector = selector
        self._rows = rows
        self._patience = patience or Patience()
        self._children: dict[int, Child] = {}
        self._aborted: dict[int, float] = {}
        self._looked_at = time.monotonic()
        self._health: EndpointTable[HealthNotice] = EndpointTable()

    @property
    def is_empty(self) -> bool:
        """Whether nobody is left."""
        return not self._children

    def has_room_for(self, count: int) -> bool:
        """Whether so many more may live at the same time."""
        return self._rows.free >= count

    def fork(
        self,
        name: str,
        forget: Callable[[], None],
        work: Callable[[Channel, int], Coroutine[None, None, None]],
    ) -> Child:
        """Fork a child that does `work` with its channel and its row of the shared memories.

        It begins with `forget`, which closes what is its parent's alone.

        Raises:
            OSError: there is no room for another process.
        """
        row = self._rows.take()
        try:
            child = fork_child(name, row, partial(self._detach, forget), lambda channel: work(channel, row))
        except OSError:
            self._rows.give_back(row)
            raise
        self._children[child.pid] = child
        self._selector.register(child.channel, selectors.EVENT_READ, lambda: self._listen_to(child))
        for notice in self._health.values():
            child.channel.send(notice)
        return child

    def reap(self) -> Iterator[Death]:
        """Bury who has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            # As the first process of a container we inherit others' children too.
            child = self._children.pop(pid, None)
            if child:
                self._bury(child)
                yield Death(child, os.waitstatus_to_exitcode(status))

    def end_hung(self, now: float) -> None:
        """End those that hang: so that they tell where, and else without a word."""
        has_slept = now - self._looked_at > self._patience.hung / 2
        self._looked_at = now
        for pid, child in self._children.items():
            if has_slept:
                # The whole host was stopped, or we were: nobody could be heard.
                child.heard_at = now
            if pid in self._aborted:
                if now - self._aborted[pid] > self._patience.abort:
                    child.kill()
            elif now - child.heard_at > self._patience.hung:
                silent = round(now - child.heard_at)
                logger.error("worker_hung", process=child.name, pid=pid, seconds=silent)
                self._aborted[pid] = now
                child.kill(signal.SIGABRT)

    def kill_all(self) -> None:
        """End everybody at once."""
        for child in self._children.values():
            child.kill()

    def _bury(self, child: Child) -> None:
        self._aborted.pop(child.pid, None)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)
        child.channel.close()
        self._rows.give_back(child.row)

    def _listen_to(self, child: Child) -> None:
        for message in child.channel.receive():
            child.heard_at = time.monotonic()
            self._take_in(child, message)
        if not child.channel.is_open:
            # Its end will be told by a signal; a closed channel would wake us without end until then.
            self._selector.unregister(child.channel)

    def _take_in(self, child: Child, message: Message) -> None:
        child.is_ready = True
        if isinstance(message, LoadDropped):
            child.load_dropped_at = child.heard_at
        elif isinstance(message, HealthNotice):
            self._remember(message)
            for other in self._children.values():
                if other is not child:
                    other.channel.send(message)

    def _remember(self, notice: HealthNotice) -> None:
        endpoint = notice.target.endpoint
        self._health.pop(endpoint)
        if notice.state is not KdcState.HEALTHY and self._health.has_room(endpoint):
            self._health.add(endpoint, notice)

    def _detach(self, forget: Callable[[], None]) -> None:
        """Close the others' channels in a child: who holds one keeps its end from being heard."""
        for child in self._children.values():
            child.channel.close()
        forget()
