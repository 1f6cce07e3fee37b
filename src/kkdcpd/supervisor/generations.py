"""Keeps the generations that have processes: one may start and one may serve; others drain or are killed."""

from collections.abc import Iterator

from kkdcpd.log.events import EventLogger
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.generation import Generation, Phase
from kkdcpd.supervisor.slots import Slot

__all__ = ["GRACE_SECONDS", "Generations"]

logger = EventLogger(__name__)

GRACE_SECONDS = 5.0
"""Time that a process gets beyond `process.drain_timeout` before it is killed."""


class Generations:
    """All generations of the service."""

    def __init__(self) -> None:
        self.starting: Generation | None = None
        self.serving: Generation | None = None
        self.is_stopping = False
        self._ending: list[Generation] = []
        self._last_number = 0

    def __iter__(self) -> Iterator[Generation]:
        return filter(None, (self.starting, self.serving, *self._ending))

    @property
    def last_number(self) -> int:
        """The number of the generation that started last."""
        return self._last_number

    def slot_of(self, child: Child) -> tuple[Generation, Slot] | None:
        """Return the generation and the slot of a child."""
        for generation in self:
            for slot in generation.slots:
                if any(child is other for other in slot.children):
                    return generation, slot
        return None

    def begin(self, generation: Generation) -> None:
        """Let a generation start."""
        self._last_number = generation.number
        self.starting = generation

    def take_over(self) -> Generation | None:
        """Let the generation that has started serve. Drain and return the generation before it."""
        assert self.starting
        before, self.serving, self.starting = self.serving, self.starting, None
        self.serving.enter(Phase.SERVING)
        if before:
            self._drain(before)
        return before

    def abandon(self) -> None:
        """Kill the processes of the generation that starts."""
        generation, self.starting = self.starting, None
        if generation and generation.children:
            generation.enter(Phase.FAILED)
            _kill(generation)
            self._ending.append(generation)

    def stop(self) -> None:
        """Drain all generations."""
        self.is_stopping = True
        for generation in filter(None, (self.starting, self.serving)):
            self._drain(generation)
        self.starting = self.serving = None

    def continue_drain(self, generation: Generation) -> None:
        """End the last roles of a draining generation, and forget it, as far as its processes have exited."""
        if generation not in self._ending:
            return
        if not generation.children_that_end(last=False):
            for child in generation.children_that_end(last=True):
                child.channel.end()
        if not generation.children:
            self._ending.remove(generation)
            if generation.phase is Phase.DRAINING and not self.is_stopping:
                logger.info("drained", generation=generation.number)

    def kill_overdue(self, now: float) -> None:
        """Kill the processes that have not ended in time."""
        for generation in self._ending:
            if now - generation.phase_since > generation.config.process.drain_timeout + GRACE_SECONDS:
                _kill(generation)

    def _drain(self, generation: Generation) -> None:
        """Let the processes finish their requests. Only at the end of the service the last roles wait."""
        generation.enter(Phase.DRAINING)
        waiting = generation.children_that_end(last=True) if self.is_stopping else []
        for child in generation.children:
            if child not in waiting:
                child.channel.end()
        if generation.children:
            self._ending.append(generation)
            self.continue_drain(generation)


def _kill(generation: Generation) -> None:
    for child in generation.children:
        child.kill()
