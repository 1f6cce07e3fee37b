"""The table of process roles: each role has listeners, a number of processes, and work to do.

To add a role, write its `serve` function and add a Role to ROLES.
"""

from collections.abc import Callable, Coroutine, Sequence

from kkdcpd.config import Config, DatedItem, ListenConfig, SystemFiles
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.frozen import frozen
from kkdcpd.metrics.memory import Metrics
from kkdcpd.process_messages import ServiceStatus
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import serve_with_channel
from kkdcpd.supervisor.limits import count_cpus
from kkdcpd.worker import Worker

__all__ = ["ADMIN", "ROLES", "WORKER", "Resources", "Role", "last_addresses", "listen_addresses"]


@frozen
class Resources:
    """Resources that a child process inherits from its parent. `status` is the service's at the fork."""

    config: Config
    system: SystemFiles
    dated: Sequence[DatedItem]
    listeners: Sequence[Listener]
    memory: SharedMemory
    row: int
    status: ServiceStatus


@frozen
class Role:
    """A role of child processes. The functions depend on the configuration alone.

    When the service stops, a role that `ends_last` ends after all processes of other roles have exited.
    """

    name: str
    addresses: Callable[[Config], Sequence[ListenConfig]]
    process_names: Callable[[Config], Sequence[str]]
    serve: Callable[[Resources, Channel], Coroutine[None, None, None]]
    ends_last: bool = False


def _worker_addresses(config: Config) -> Sequence[ListenConfig]:
    return config.listen


def _worker_names(config: Config) -> Sequence[str]:
    return [f"worker {number}" for number in range(1, (config.process.workers or count_cpus()) + 1)]


async def _serve_clients(resources: Resources, channel: Channel) -> None:
    worker = Worker(
        resources.config,
        resources.listeners,
        resources.system,
        resources.memory,
        resources.row,
        notify=channel.send,
    )
    await serve_with_channel(worker, channel)


def _admin_addresses(config: Config) -> Sequence[ListenConfig]:
    admin = config.admin
    if admin.address is None:
        return []
    return [ListenConfig(section="[admin]", address=admin.address, tls=False, unix_mode=admin.unix_mode)]


def _admin_names(config: Config) -> Sequence[str]:
    return ["admin"] if config.admin.address else []


async def _serve_admin(resources: Resources, channel: Channel) -> None:
    # The module is large, and no other process needs it.
    from kkdcpd.admin import AdminProcess  # noqa: PLC0415

    admin = AdminProcess(
        resources.config,
        resources.listeners,
        resources.system,
        Metrics(resources.memory.metrics),
        resources.status,
        dated=resources.dated,
    )
    await serve_with_channel(admin, channel)


WORKER = Role(name="worker", addresses=_worker_addresses, process_names=_worker_names, serve=_serve_clients)
"""Serves clients."""

ADMIN = Role(
    name="admin", addresses=_admin_addresses, process_names=_admin_names, serve=_serve_admin, ends_last=True
)
"""Serves metrics and health. It ends last so that `/readyz` reports the drain."""

ROLES = (WORKER, ADMIN)


def listen_addresses(config: Config) -> list[ListenConfig]:
    """Return the addresses of all roles, in the order of ROLES."""
    return [address for role in ROLES for address in role.addresses(config)]


def last_addresses(config: Config) -> list[ListenConfig]:
    """Return the addresses of the roles that end last. They stay open while the service drains."""
    return [address for role in ROLES if role.ends_last for address in role.addresses(config)]
