"""Real child processes: the fork, the order to end, and their messages."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.process_messages import Alive, HealthNotice, Message, ProbeTarget, Retire, ServiceStatus
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import ALIVE_SECONDS, EXIT_BUG, Child, fork_child, serve_with_channel
from kkdcpd.values import KdcState
from tests.support.waiting import wait_until

NOTICE = HealthNotice(
    target=ProbeTarget(
        endpoint=KdcEndpoint(name="dc1", address="192.0.2.1", port=88, transport=Transport.TCP), realm="R"
    ),
    state=KdcState.HEALTHY,
)

Work = Callable[[Channel], Coroutine[None, None, None]]
Fork = Callable[[Work], Child]


@pytest.fixture
def fork() -> Iterator[Fork]:
    children: list[Child] = []

    def fork(work: Work, close_inherited: Callable[[], None] = lambda: None) -> Child:
        children.append(fork_child("worker 1", 3, close_inherited, work))
        return children[-1]

    yield fork
    for child in children:
        child.channel.close()
        try:
            child.kill()
            os.waitpid(child.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def exit_code(child: Child) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])


def messages_of(child: Child, is_enough: Callable[[list[Message]], bool]) -> list[Message]:
    """Wait for messages, and return them."""
    said: list[Message] = []

    def has_said_enough() -> bool:
        said.extend(child.channel.receive())
        return is_enough(said)

    wait_until(has_said_enough)
    return said


async def nothing(_channel: Channel) -> None:
    pass


async def for_ever(_channel: Channel) -> None:
    await asyncio.Event().wait()


async def a_bug(_channel: Channel) -> None:
    raise LookupError("a bug")


async def leave(_channel: Channel) -> None:
    raise SystemExit(3)


class Recorder:
    """Serves until the order to stop, and sends received messages back."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def run(self, stop: asyncio.Event) -> None:
        await stop.wait()

    def handle(self, message: HealthNotice | Retire | ServiceStatus) -> None:
        self._channel.send(message)


async def record(channel: Channel) -> None:
    await serve_with_channel(Recorder(channel), channel)


@pytest.mark.parametrize(("work", "code"), [(nothing, 0), (a_bug, EXIT_BUG), (leave, EXIT_BUG)])
def test_child_never_returns_into_the_parent_s_code(fork: Fork, work: Work, code: int) -> None:
    assert exit_code(fork(work)) == code


def test_failure_to_close_descriptors_ends_the_child() -> None:
    def fail() -> None:
        raise ValueError("a bug")

    child = fork_child("worker 1", 0, fail, nothing)
    assert exit_code(child) == EXIT_BUG
    child.channel.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_child_ignores_signals_to_the_process_group(fork: Fork, number: signal.Signals) -> None:
    child = fork(record)
    wait_until(lambda: list(child.channel.receive()) == [Alive()])
    child.kill(number)
    time.sleep(0.2)
    assert os.waitpid(child.pid, os.WNOHANG) == (0, 0)
    child.channel.end()
    assert exit_code(child) == 0


def test_end_of_the_channel_ends_it(fork: Fork) -> None:
    child = fork(record)
    child.channel.end()
    assert exit_code(child) == 0


def test_child_ends_when_the_descriptor_of_the_parent_closes(fork: Fork) -> None:
    child = fork(record)
    child.channel.close()
    assert exit_code(child) == 0


def test_child_reports_repeatedly_that_it_is_alive(fork: Fork) -> None:
    child = fork(record)
    started = time.monotonic()
    said = messages_of(child, lambda said: len(said) >= 3)
    assert said == [Alive()] * len(said)
    assert time.monotonic() - started > ALIVE_SECONDS


def test_what_comes_by_the_channel_is_passed_on(fork: Fork) -> None:
    child = fork(record)
    child.channel.send(NOTICE)
    messages_of(child, lambda said: NOTICE in said)


def test_aborted_child_shows_where_it_hangs(fork: Fork, capfd: pytest.CaptureFixture[str]) -> None:
    async def hang_here(_channel: Channel) -> None:
        _channel.send(Alive())
        while True:
            time.sleep(60)  # noqa: ASYNC251 - the test needs a hang

    child = fork(hang_here)
    wait_until(lambda: list(child.channel.receive()) == [Alive()])
    child.kill(signal.SIGABRT)
    assert exit_code(child) == -signal.SIGABRT
    assert "in hang_here" in capfd.readouterr().err


def test_child_has_none_of_the_parent_s_end(fork: Fork) -> None:
    child = fork(for_ever)
    wait_until(lambda: Path(f"/proc/{child.pid}/exe").exists())
    ours = Path(f"/proc/self/fd/{child.channel.fileno()}").readlink()

    def links() -> set[Path]:
        return {link.readlink() for link in Path(f"/proc/{child.pid}/fd").iterdir()}

    wait_until(lambda: ours not in links())
