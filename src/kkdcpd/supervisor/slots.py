"""Slots for processes: one slot has one child, and a successor when that child dies or has grown large."""

from dataclasses import dataclass

from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.roles import WORKER, Role

__all__ = ["Slot"]

RESTART_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Backoff before a dead child is replaced, by the number of its deaths in quick succession."""

LONG_LIFE_SECONDS = 60.0
"""After this life time, a fault of each start did not cause the death. The backoff begins anew."""

MINIMUM_LIFE_SECONDS = 10.0
"""A worker process serves at least for this time before it is recycled, because each start costs CPU time."""

LOAD_DROPPED_SECONDS = 1.0
"""Validity of a LoadDropped message. The worker process repeats it until its load grows again."""


@dataclass(slots=True, kw_only=True)
class Slot:
    """A slot for one child of a role.

    To recycle a child, a `successor` starts beside it. When the successor serves, the child is `retired`: it
    finishes its connections. A slot has one retired child at a time, so that a load that comes and goes does
    not multiply processes.
    """

    name: str
    role: Role = WORKER
    child: Child | None = None
    successor: Child | None = None
    retired: Child | None = None
    deaths: int = 0
    start_at: float = 0.0

    def needs_child(self, now: float) -> bool:
        """Whether to fork another child: the first, a replacement or a successor."""
        if self.successor or now < self.start_at:
            return False
        return not self.child or (not self.retired and _is_due_for_recycling(self.child, now))

    def add(self, child: Child) -> None:
        """Add a forked child, as the successor if the slot has a child."""
        if self.child:
            self.successor = child
        else:
            self.child = child

    def retire(self) -> None:
        """Let the successor replace the child, which is retired."""
        self.retired, self.child, self.successor = self.child, self.successor, None

    @property
    def children(self) -> list[Child]:
        """All running children of the slot."""
        return [child for child in (self.child, self.successor, self.retired) if child]

    def remove(self, child: Child, now: float) -> None:
        """Remove an exited child, and set the time at which a replacement may start."""
        if child is self.retired:
            self.retired = None
            return
        if child is self.successor:
            self.successor = None
        else:
            self.child, self.successor = self.successor, None
        has_lived_long = now - child.started_at >= LONG_LIFE_SECONDS
        self.deaths = 0 if has_lived_long else self.deaths
        self.start_at = now + RESTART_SECONDS[min(self.deaths, len(RESTART_SECONDS) - 1)]
        self.deaths += 1


def _is_due_for_recycling(child: Child, now: float) -> bool:
    return (
        now - child.load_dropped_at < LOAD_DROPPED_SECONDS and now - child.started_at >= MINIMUM_LIFE_SECONDS
    )
