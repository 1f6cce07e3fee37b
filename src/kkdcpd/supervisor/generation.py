"""A generation: one reading of the configuration, and the processes that serve with it.

Its configuration never changes. A reload makes the next generation and drains this one.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Self

from kkdcpd.config import Config, LoadedConfig, SystemFiles
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.frozen import Word
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.files import FileWatch, tls_files
from kkdcpd.supervisor.listeners import make_listeners
from kkdcpd.supervisor.roles import ROLES, WORKER
from kkdcpd.supervisor.slots import Slot

__all__ = ["Generation", "Phase"]


class Phase(Word):
    """STARTING until all processes are ready; then SERVING; DRAINING while the processes finish requests.

    FAILED if a generation does not get ready and is killed.
    """

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True)
class Generation:
    """A generation. `listeners` has the listeners of each role by its name."""

    number: int
    loaded: LoadedConfig
    config: Config
    system: SystemFiles
    listeners: Mapping[str, Sequence[Listener]]
    slots: Sequence[Slot]
    files: FileWatch
    phase: Phase = Phase.STARTING
    phase_since: float = field(default_factory=time.monotonic)

    @classmethod
    def make(
        cls, number: int, loaded: LoadedConfig, config: Config, sockets: Sequence[Sequence[socket]]
    ) -> Self:
        """Make a generation. `sockets` has the sockets of each address of `listen_addresses(config)`."""
        # Watched before they are read, so that a change during the reading is noticed later.
        files = FileWatch(tls_files(config.tls))
        return cls(
            number=number,
            loaded=loaded,
            config=config,
            system=SystemFiles.read(),
            listeners=make_listeners(config, sockets),
            slots=[Slot(name=name, role=role) for role in ROLES for name in role.process_names(config)],
            files=files,
        )

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.phase_since = time.monotonic()

    @property
    def children(self) -> list[Child]:
        """All running processes of the generation."""
        return [child for slot in self.slots for child in slot.children]

    def children_that_end(self, *, last: bool) -> list[Child]:
        """Return the running processes of the roles that end last, or of the other roles."""
        return [child for slot in self.slots if slot.role.ends_last is last for child in slot.children]

    @property
    def workers(self) -> list[Slot]:
        """The slots of the worker processes."""
        return [slot for slot in self.slots if slot.role is WORKER]

    @property
    def is_ready(self) -> bool:
        """Whether each slot has a child that serves."""
        return all(slot.child and slot.child.is_ready for slot in self.slots)
