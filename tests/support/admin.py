"""Runs the admin process, in the test's event loop or forked as the parent process forks it."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvloop

from kkdcpd.admin import AdminProcess
from kkdcpd.config import DatedItem, SystemFiles, read_config
from kkdcpd.frontends.http.acceptor import Listener
from kkdcpd.metrics.memory import Metrics
from kkdcpd.process_messages import ServiceStatus

__all__ = ["PLAIN", "STATUS", "forked_admin", "running_admin"]

PLAIN = '[[listen]]\naddress = "127.0.0.1:0"\ntls = false\n'

STATUS = ServiceStatus(generation=1, workers_ready=2, workers_wanted=2, started_at=1800000000.0)

SECONDS_TO_STOP = 10.0


@contextlib.asynccontextmanager
async def running_admin(
    settings: str,
    listener: Listener,
    metrics: Metrics,
    *,
    dated: tuple[DatedItem, ...] = (),
    stop: asyncio.Event | None = None,
) -> AsyncIterator[AdminProcess]:
    """Run the admin process in the running event loop, until `stop` is set or the context ends."""
    config = read_config(settings, source=Path("/nowhere/config.toml"))
    stop = stop or asyncio.Event()
    admin = AdminProcess(config, [listener], SystemFiles(), metrics, STATUS, dated=dated)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(admin.run(stop), name="admin")
        try:
            yield admin
        finally:
            stop.set()


@contextlib.contextmanager
def forked_admin(settings: str, metrics: Metrics, sock: socket.socket) -> Iterator[int]:
    """Run the admin process in a child process on a listening socket, and yield the child's id."""
    child = os.fork()
    if not child:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run_until_sigterm(settings, metrics, sock))
        finally:
            os._exit(0)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGTERM)
        _wait(child)


async def _run_until_sigterm(settings: str, metrics: Metrics, sock: socket.socket) -> None:
    sock.setblocking(False)
    async with running_admin(settings, Listener(socket=sock, url="test:"), metrics):
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()


def _wait(child: int) -> None:
    deadline = time.monotonic() + SECONDS_TO_STOP
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError("the admin process didn't end on SIGTERM")
        time.sleep(0.01)
