"""A child process: how it is forked and told apart, and what its event loop does beside its work."""

import asyncio
import contextlib
import faulthandler
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import uvloop

from kkdcpd.log.events import EventLogger
from kkdcpd.process_messages import Alive, HealthNotice, Retire, ServiceStatus
from kkdcpd.supervisor.channel import Channel

__all__ = ["ALIVE_SECONDS", "Child", "Service", "fork_child", "serve_with_channel"]

logger = EventLogger(__name__)

ALIVE_SECONDS = 1.0
"""How often a child says that its event loop runs."""

EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h."""

OURS_ALONE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What is sent to the whole group, as by Ctrl-C, the parent acts upon; children end when it tells them."""


@dataclass(slots=True, kw_only=True)
class Child:
    """A process of ours, as the parent sees it. `row` is its own in the shared memories."""

    name: str
    pid: int
    channel: Channel
    row: int
    started_at: float = field(default_factory=time.monotonic)
    heard_at: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    load_dropped_at: float = -math.inf

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal. It isn't reaped yet, so that its pid is nobody else's."""
        os.kill(self.pid, number)


class Service(Protocol):
    """What a child does."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what is in flight."""
        ...

    def heard(self, news: HealthNotice | Retire | ServiceStatus) -> None:
        """Take in what another process found out or wants, if it concerns this one."""
        ...


def fork_child(
    name: str, row: int, forget: Callable[[], None], work: Callable[[Channel], Coroutine[None, None, None]]
) -> Child:
    """Fork; in the child, `forget` the parent's own things, do the work and exit.

    Raises:
        OSError: there is no room for another process.
    """
    ours, theirs = Channel.pair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if not pid:
        _be_child(ours, theirs, forget, work)
    theirs.close()
    return Child(name=name, pid=pid, channel=ours, row=row)


def _be_child(
    ours: Channel,
    theirs: Channel,
    forget: Callable[[], None],
    work: Callable[[Channel], Coroutine[None, None, None]],
) -> NoReturn:
    """Never return into the parent's code, whatever happens."""
    code = EXIT_BUG
    try:
        signal.set_wakeup_fd(-1)
        for number in OURS_ALONE:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The parent aborts who hangs: then this tells where.
        faulthandler.enable()
        ours.close()
        forget()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(theirs))
        code = 0
    except BaseException:
        logger.exception("bug_in_child")
    finally:
        logging.shutdown()
        os._exit(code)


async def serve_with_channel(service: Service, channel: Channel) -> None:
    """Run a service until the channel ends; pass on what comes by it, and say that we live."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def receive() -> None:
        for message in channel.receive():
            if isinstance(message, HealthNotice | Retire | ServiceStatus):
                service.heard(message)
        if not channel.is_open:
            loop.remove_reader(channel.fileno())
            stop.set()

    loop.add_reader(channel.fileno(), receive)
    async with asyncio.TaskGroup() as tasks:
        # It takes its first step first: who says that it is alive has got so far.
        serving = tasks.create_task(service.run(stop), name="serve")
        alive = tasks.create_task(_say_alive(channel), name="alive")
        await serving
        alive.cancel()
    with contextlib.suppress(OSError):
        loop.remove_reader(channel.fileno())
    channel.close()


async def _say_alive(channel: Channel) -> None:
    while True:
        channel.send(Alive())
        await asyncio.sleep(ALIVE_SECONDS)
