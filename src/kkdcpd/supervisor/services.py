"""What a child of each role does from its fork to its end, with what it was forked with."""

from kkdcpd.metrics.memory import Metrics
from kkdcpd.process_messages import ServiceStatus
from kkdcpd.shared_memory.memory import SharedMemory
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import serve_with_channel
from kkdcpd.supervisor.generation import Generation
from kkdcpd.worker import Worker

__all__ = ["serve_admin", "serve_clients"]


async def serve_clients(generation: Generation, memory: SharedMemory, row: int, channel: Channel) -> None:
    """Be a worker, until the channel ends and all is done."""
    config, system = generation.config, generation.system
    worker = Worker(config, generation.listeners, system, memory, row, tell=channel.send)
    await serve_with_channel(worker, channel)


async def serve_admin(
    generation: Generation, memory: SharedMemory, status: ServiceStatus, channel: Channel
) -> None:
    """Tell metrics and health, until the channel ends; `status` is how the service is for now."""
    # Nobody else needs it, and it is large.
    from kkdcpd.admin import AdminProcess  # noqa: PLC0415

    admin = AdminProcess(
        generation.config,
        generation.admin_listeners,
        generation.system,
        Metrics(memory.metrics),
        status,
        dated=generation.loaded.dated,
    )
    await serve_with_channel(admin, channel)
