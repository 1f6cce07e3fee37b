"""Forks a child process, and connects its event loop to the channel to the parent process."""

import asyncio
import contextlib
import errno
import faulthandler
import logging
import math
import os
import resource
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import uvloop

from kkdcpd.log.events import EventLogger
from kkdcpd.process_messages import Alive, HealthNotice, Retire, ServiceStatus
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.limits import MORE_DESCRIPTORS

__all__ = ["ALIVE_SECONDS", "Child", "Service", "fork_child", "lacks_descriptors", "serve_with_channel"]

logger = EventLogger(__name__)

ALIVE_SECONDS = 1.0
"""Interval of the messages that show that the event loop of a child runs."""

EXIT_BUG = 70
"""EX_SOFTWARE of sysexits.h."""

PARENT_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that only the parent handles. Ctrl-C also reaches the children, which wait for the parent."""


@dataclass(slots=True, kw_only=True)
class Child:
    """A child process in the view of its parent. `row` is its row of the shared memory."""

    name: str
    pid: int
    channel: Channel
    row: int
    started_at: float = field(default_factory=time.monotonic)
    last_message_at: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    load_dropped_at: float = -math.inf

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal. The child is not reaped yet, so no other process can have its pid."""
        os.kill(self.pid, number)


class Service(Protocol):
    """The work of a child process."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish what is in flight."""
        ...

    def handle(self, message: HealthNotice | Retire | ServiceStatus) -> None:
        """Handle a message from the parent, or ignore a message that does not concern this process."""
        ...


def fork_child(
    name: str,
    row: int,
    close_inherited: Callable[[], None],
    work: Callable[[Channel], Coroutine[None, None, None]],
) -> Child:
    """Fork. The child calls `close_inherited`, does the work and exits.

    Raises:
        OSError: the system has no room for another process.
    """
    ours, theirs = Channel.pair()
    try:
        pid = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if not pid:
        _be_child(name, ours, theirs, close_inherited, work)
    theirs.close()
    return Child(name=name, pid=pid, channel=ours, row=row)


def _be_child(
    name: str,
    ours: Channel,
    theirs: Channel,
    close_inherited: Callable[[], None],
    work: Callable[[Channel], Coroutine[None, None, None]],
) -> NoReturn:
    """Do the work of the child, and exit. An error must never return into the code of the parent."""
    code = EXIT_BUG
    try:
        signal.set_wakeup_fd(-1)
        for number in PARENT_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # The parent sends SIGABRT to a child that hangs. Then the traceback shows where.
        faulthandler.enable()
        ours.close()
        close_inherited()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work(theirs))
        code = 0
    except BaseException as error:
        if lacks_descriptors(error):
            logger.error(  # noqa: TRY400 - the traceback of a library would not help
                "out_of_file_descriptors", process=name, limit=_descriptor_limit(), remedy=MORE_DESCRIPTORS
            )
        else:
            logger.exception("bug_in_child")
    finally:
        logging.shutdown()
        os._exit(code)


def lacks_descriptors(error: BaseException | None) -> bool:
    """Whether a lack of file descriptors caused the error.

    uvloop and asyncio replace the OSError by a RuntimeError without text when they close after it.
    """
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return True
    return lacks_descriptors(error.__cause__ or error.__context__)


def _descriptor_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def serve_with_channel(service: Service, channel: Channel) -> None:
    """Run a service until the channel ends. Pass it the messages, and send `Alive` to the parent."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def receive() -> None:
        for message in channel.receive():
            if isinstance(message, HealthNotice | Retire | ServiceStatus):
                service.handle(message)
        if not channel.is_open:
            loop.remove_reader(channel.fileno())
            stop.set()

    loop.add_reader(channel.fileno(), receive)
    async with asyncio.TaskGroup() as tasks:
        # The service takes its first step before the first `Alive`, which means that it serves.
        serving = tasks.create_task(service.run(stop), name="serve")
        alive = tasks.create_task(_send_signs_of_life(channel), name="alive")
        await serving
        alive.cancel()
    with contextlib.suppress(OSError):
        loop.remove_reader(channel.fileno())
    channel.close()


async def _send_signs_of_life(channel: Channel) -> None:
    while True:
        channel.send(Alive())
        await asyncio.sleep(ALIVE_SECONDS)
