"""Starts the processes of a generation, replaces dead ones, and recycles worker processes that have grown."""

import gc
from collections.abc import Callable, Coroutine
from functools import partial

from kkdcpd.config import LoadedConfig
from kkdcpd.log.events import EventLogger
from kkdcpd.process_messages import Retire, ServiceStatus
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.children import Children
from kkdcpd.supervisor.generation import Generation
from kkdcpd.supervisor.limits import fit_to_descriptors
from kkdcpd.supervisor.roles import Resources, listen_addresses
from kkdcpd.supervisor.slots import Slot
from kkdcpd.supervisor.sockets import Sockets
from kkdcpd.supervisor.status import log_warnings

__all__ = ["Launcher"]

logger = EventLogger(__name__)

FORK_RETRY_SECONDS = 5.0
"""Pause after a failed fork."""

YOUNG_OBJECTS = 10_000
"""The new objects after which Python's garbage collector looks for cycles: some MiB at most. Python's own
number is 700."""


class Launcher:
    """Makes generations and forks their processes.

    `status` returns the state of the service, `close_inherited` closes in a child the descriptors that only
    the parent needs.
    """

    def __init__(
        self,
        sockets: Sockets,
        memory: SharedMemory,
        children: Children,
        *,
        status: Callable[[], ServiceStatus],
        close_inherited: Callable[[], None],
    ) -> None:
        self._sockets = sockets
        self._memory = memory
        self._children = children
        self._status = status
        self._close_inherited = close_inherited

    def prepare(self, number: int, loaded: LoadedConfig) -> Generation:
        """Open the addresses of the configuration, and make a generation without processes.

        Raises:
            ListenError: an address cannot be opened.
            StartError: the limit of file descriptors is too low.
            OSError: a file can no longer be read, or too many processes still drain.
        """
        log_warnings(loaded.warnings)
        config, problems = fit_to_descriptors(loaded.config)
        log_warnings(problems)
        sockets = self._sockets.open(listen_addresses(config))
        generation = Generation.make(number, loaded, config, sockets)
        log_warnings(generation.system.warnings(config))
        if not self._children.has_room_for(len(generation.slots)):
            raise OSError("too many worker processes of earlier generations still finish their requests")
        return generation

    def fork_all(self, generation: Generation) -> None:
        """Fork the processes of a generation.

        Raises:
            OSError: the system has no room for another process.
        """
        _keep_memory_shared()
        for slot in generation.slots:
            slot.add(self._fork(generation, slot))

    def replace(self, generation: Generation, now: float) -> None:
        """Replace dead processes, and recycle worker processes whose load has dropped."""
        for slot in generation.slots:
            if slot.successor and slot.successor.is_ready:
                _retire(slot, now)
            elif slot.needs_child(now):
                try:
                    slot.add(self._fork(generation, slot))
                except OSError as error:
                    logger.error("fork_failed", reason=str(error))  # noqa: TRY400
                    slot.start_at = now + FORK_RETRY_SECONDS

    def _fork(self, generation: Generation, slot: Slot) -> Child:
        def serve(channel: Channel, row: int) -> Coroutine[None, None, None]:
            resources = Resources(
                config=generation.config,
                system=generation.system,
                dated=generation.loaded.dated,
                listeners=generation.listeners[slot.role.name],
                memory=self._memory,
                row=row,
                status=self._status(),
            )
            return slot.role.serve(resources, channel)

        return self._children.fork(slot.name, partial(self._close_unused, generation, slot), serve)

    def _close_unused(self, generation: Generation, slot: Slot) -> None:
        self._close_inherited()
        kept = generation.listeners[slot.role.name]
        self._sockets.detach(kept=[listener.socket for listener in kept])


def _retire(slot: Slot, now: float) -> None:
    """Let the successor replace the child, which then finishes its connections without a deadline."""
    assert slot.child
    if not slot.child.channel.send(Retire()):
        return
    lived = round(now - slot.child.started_at, 1)
    logger.info("worker_recycled", process=slot.name, pid=slot.child.pid, lived=lived)
    slot.retire()


def _keep_memory_shared() -> None:
    """Exclude existing objects from garbage collection, which would write to their pages and so copy them.

    A request leaves no cycles, so the collector finds nothing: let it run rarely.
    """
    gc.set_threshold(YOUNG_OBJECTS)
    gc.unfreeze()
    gc.collect()
    gc.freeze()
