"""A generation: one reading of the configuration, and the processes that serve by it.

Nothing of it changes while it lives. A reload makes the next one, and lets this one finish.
"""

import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from socket import socket
from typing import Self

from kkdcpd.config import ClientCertificates, Config, ListenConfig, LoadedConfig, SystemFiles
from kkdcpd.endpoints import format_host_port
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.frozen import Word
from kkdcpd.socket_address import host_with_zone
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.files import FileWatch, tls_files
from kkdcpd.supervisor.limits import count_cpus
from kkdcpd.tls import build_server_context

__all__ = ["Generation", "Phase", "Role", "Slot", "admin_places", "places"]

RESTART_SECONDS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""How long after its end a worker is replaced, by how often it has ended in quick succession."""

LONG_LIFE_SECONDS = 60.0
"""Who has lived for so long hasn't ended for a reason that is there at every start."""


RENEWAL_SECONDS = 10.0
"""So long a worker lives at least, whatever crowds come and go: each renewal costs a start."""

NEWS_SECONDS = 1.0
"""So long it counts that a worker's crowd is gone; it says so again, unless there is another one."""


class Phase(Word):
    """STARTING until all its workers are ready; DRAINING when it may only finish what it has begun.

    FAILED when it doesn't get ready, and is killed.
    """

    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    FAILED = "failed"


class Role(Word):
    """What a child does: WORKER serves clients, ADMIN tells metrics and health."""

    WORKER = "worker"
    ADMIN = "admin"


@dataclass(slots=True, kw_only=True)
class Slot:
    """A child's place, which a successor takes when it dies, or once it serves if the child is to be renewed.

    `former` is who had the place before a renewal, and finishes. There is one at a time, so that crowds that
    come and go don't multiply workers.
    """

    name: str
    role: Role = Role.WORKER
    child: Child | None = None
    successor: Child | None = None
    former: Child | None = None
    deaths: int = 0
    start_at: float = 0.0

    def is_due(self, now: float) -> bool:
        """Whether another child is wanted."""
        if self.successor or now < self.start_at:
            return False
        return not self.child or (not self.former and self._is_to_be_renewed(self.child, now))

    def _is_to_be_renewed(self, child: Child, now: float) -> bool:
        return now - child.load_dropped_at < NEWS_SECONDS and now - child.started_at >= RENEWAL_SECONDS

    def take(self, child: Child) -> None:
        """Have the place taken, or a successor for who has it."""
        if self.child:
            self.successor = child
        else:
            self.child = child

    def change(self) -> None:
        """Let the successor have the place."""
        self.former, self.child, self.successor = self.child, self.successor, None

    @property
    def children(self) -> list[Child]:
        """Whoever lives, in whatever part."""
        return [child for child in (self.child, self.successor, self.former) if child]

    def child_died(self, child: Child, now: float) -> None:
        """Plan for a successor, unless there is one."""
        if child is self.former:
            self.former = None
            return
        if child is self.successor:
            self.successor = None
        else:
            self.child, self.successor = self.successor, None
        has_lived_long = now - child.started_at >= LONG_LIFE_SECONDS
        self.deaths = 0 if has_lived_long else self.deaths
        self.start_at = now + RESTART_SECONDS[min(self.deaths, len(RESTART_SECONDS) - 1)]
        self.deaths += 1


@dataclass(slots=True, kw_only=True)
class Generation:
    """What its processes are forked with, and which there are."""

    number: int
    loaded: LoadedConfig
    config: Config
    system: SystemFiles
    listeners: Sequence[Listener]
    admin_listeners: Sequence[Listener]
    slots: Sequence[Slot]
    files: FileWatch
    phase: Phase = Phase.STARTING
    phase_since: float = field(default_factory=time.monotonic)

    @classmethod
    def make(
        cls, number: int, loaded: LoadedConfig, config: Config, sockets: Sequence[Sequence[socket]]
    ) -> Self:
        """Make one of a configuration that was read, with the sockets of each of its `places`."""
        # Before they are read: who changes one meanwhile is noticed later.
        files = FileWatch(tls_files(config.tls))
        contexts = _tls_contexts(config)
        listeners = [
            [_listener(listen, contexts, sock) for sock in opened]
            for listen, opened in zip(places(config), sockets, strict=True)
        ]
        count = len(config.listen)
        workers = range(config.process.workers or count_cpus())
        slots = [Slot(name=f"worker {place + 1}") for place in workers]
        if listeners[count:]:
            slots.append(Slot(name="admin", role=Role.ADMIN))
        return cls(
            number=number,
            loaded=loaded,
            config=config,
            system=SystemFiles.read(),
            listeners=[listener for opened in listeners[:count] for listener in opened],
            admin_listeners=[listener for opened in listeners[count:] for listener in opened],
            slots=slots,
            files=files,
        )

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.phase_since = time.monotonic()

    @property
    def children(self) -> list[Child]:
        """Its processes that live."""
        return [child for slot in self.slots for child in slot.children]

    @property
    def workers(self) -> list[Slot]:
        """The places of those that serve clients."""
        return [slot for slot in self.slots if slot.role is Role.WORKER]

    @property
    def admins(self) -> list[Child]:
        """Those that tell metrics and health: one or none."""
        return [slot.child for slot in self.slots if slot.role is Role.ADMIN and slot.child]

    @property
    def is_ready(self) -> bool:
        """Whether every one of its processes serves."""
        return all(slot.child and slot.child.is_ready for slot in self.slots)


def places(config: Config) -> list[ListenConfig]:
    """Name all addresses to listen on: each [[listen]], then that of [admin], if there is one."""
    return [*config.listen, *admin_places(config)]


def admin_places(config: Config) -> list[ListenConfig]:
    """Name the address of [admin], if there is one."""
    admin = config.admin
    if admin.address is None:
        return []
    return [ListenConfig(section="[admin]", address=admin.address, tls=False, unix_mode=admin.unix_mode)]


def _tls_contexts(config: Config) -> Mapping[ClientCertificates, ssl.SSLContext]:
    """Make one context for all listeners that are alike: a client resumes its TLS session at any of them.

    They are made before the fork, and so at any worker too.
    """
    if not config.tls:
        return {}
    kinds = {listen.client_certificates for listen in config.listen if listen.tls}
    return {kind: build_server_context(config.tls, client_certificates=kind) for kind in kinds}


def _listener(
    listen: ListenConfig, contexts: Mapping[ClientCertificates, ssl.SSLContext], sock: socket
) -> Listener:
    return Listener(
        socket=sock,
        url=_url(listen, sock),
        tls_context=contexts[listen.client_certificates] if listen.tls else None,
        proxy_protocol=listen.proxy_protocol,
    )


def _url(listen: ListenConfig, sock: socket) -> str:
    scheme = "https" if listen.tls else "http"
    name = sock.getsockname()
    if isinstance(name, str):
        return f"{scheme}+unix:{name}"
    return f"{scheme}://{format_host_port(host_with_zone(name), name[1])}"
