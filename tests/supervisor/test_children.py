"""The children of a parent, as real processes."""

import asyncio
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.process_messages import HealthNotice, ProbeTarget, Retire, ServiceStatus
from kkdcpd.shared_memory.rows import Rows
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child, serve_with_channel
from kkdcpd.supervisor.children import ChildExit, Children, HangLimits, handle_events
from kkdcpd.values import FailureReason, KdcState
from tests.support.waiting import wait_until

ROWS = 4
HANG_LIMITS = HangLimits(silent=3.0, abort=0.5)


def notice_of(name: str, state: KdcState) -> HealthNotice:
    endpoint = KdcEndpoint(name=name, address="192.0.2.1", port=88, transport=Transport.TCP)
    return HealthNotice(
        target=ProbeTarget(endpoint=endpoint, realm="R"), state=state, reason=FailureReason.REFUSED
    )


FOUND = notice_of("dc1", KdcState.DOWN)


class Notifier:
    """Sends one notice at its start, and sends a notice about each notice that it receives."""

    def __init__(self, channel: Channel, found: HealthNotice | None) -> None:
        self._channel = channel
        self._found = found

    async def run(self, stop: asyncio.Event) -> None:
        if self._found:
            self._channel.send(self._found)
        await stop.wait()

    def handle(self, message: HealthNotice | Retire | ServiceStatus) -> None:
        assert isinstance(message, HealthNotice)
        name = message.target.endpoint.name
        if name.count("received") < 2:
            self._channel.send(notice_of(f"received {name}", message.state))


class Parent:
    """The children of a test, and the selector that receives their messages."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.cleared: list[int] = []
        self.rows = Rows([self.cleared.append], ROWS)
        self.forked = Children(self.selector, self.rows, HANG_LIMITS)
        self.children: list[Child] = []
        self.exits: list[ChildExit] = []

    def fork(self, found: HealthNotice | None = None) -> Child:
        async def work(channel: Channel, _row: int) -> None:
            await serve_with_channel(Notifier(channel, found), channel)

        child = self.forked.fork(f"worker {len(self.children) + 1}", self.selector.close, work)
        self.children.append(child)
        return child

    def wait_until(self, check: Callable[[], bool]) -> None:
        def is_so() -> bool:
            handle_events(self.selector, 0.05)
            self.exits += self.forked.reap()
            return check()

        wait_until(is_so)

    @property
    def known(self) -> set[str]:
        return {notice.target.endpoint.name for notice in self.forked._health.values()}


@pytest.fixture
def parent() -> Iterator[Parent]:
    parent = Parent()
    yield parent
    parent.forked.kill_all()
    parent.wait_until(lambda: parent.forked.is_empty)
    parent.selector.close()


def test_child_is_ready_after_its_first_sign_of_life(parent: Parent) -> None:
    child = parent.fork()
    assert not child.is_ready
    parent.wait_until(lambda: child.is_ready)


def test_health_notice_reaches_all_children_but_its_sender(parent: Parent) -> None:
    parent.fork()
    parent.fork()
    parent.wait_until(lambda: all(child.is_ready for child in parent.children))
    parent.fork(FOUND)
    # The first child received the notice and sent a notice about it, which the second child received, too.
    parent.wait_until(lambda: {"received dc1", "received received dc1"} <= parent.known)


def test_later_child_receives_the_known_notices(parent: Parent) -> None:
    parent.fork(FOUND)
    parent.wait_until(lambda: parent.known == {"dc1"})
    parent.fork()
    parent.wait_until(lambda: "received dc1" in parent.known)


def test_notice_of_a_healthy_endpoint_is_forgotten(parent: Parent) -> None:
    parent.fork(FOUND)
    parent.wait_until(lambda: parent.known == {"dc1"})
    parent.fork(notice_of("dc1", KdcState.HEALTHY))
    parent.wait_until(lambda: "dc1" not in parent.known)


def test_exit_has_its_reason_and_frees_the_row(parent: Parent) -> None:
    first, second = parent.fork(), parent.fork()
    assert (first.row, second.row) == (0, 1)
    parent.wait_until(lambda: second.is_ready)
    first.kill()
    second.channel.end()
    parent.wait_until(lambda: parent.forked.is_empty)
    assert {child_exit.child.name: child_exit.reason for child_exit in parent.exits} == {
        "worker 1": "signal SIGKILL",
        "worker 2": "exit code 0",
    }
    assert sorted(parent.cleared) == [0, 1]
    assert parent.rows.free == ROWS
    assert parent.selector.get_map() is not None
    assert not list(parent.selector.get_map())


def test_no_more_children_than_there_are_rows(parent: Parent) -> None:
    for _ in range(ROWS):
        parent.fork()
    assert parent.forked.has_room_for(0)
    assert not parent.forked.has_room_for(1)
    with pytest.raises(OSError, match="too many"):
        parent.fork()
    parent.children[0].kill()
    parent.wait_until(lambda: parent.forked.has_room_for(1))
    parent.fork()


def test_other_children_do_not_hide_the_end_of_a_channel(parent: Parent) -> None:
    """A child that inherited the parent's end of another channel would keep this channel open."""
    first, _second = parent.fork(), parent.fork()
    first.channel.end()
    parent.wait_until(lambda: [child_exit.child for child_exit in parent.exits] == [first])


def test_orphan_of_another_program_is_reaped_without_an_event(parent: Parent) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert list(parent.forked.reap()) == []
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_silent_child_is_aborted_and_then_killed(parent: Parent, caplog: pytest.LogCaptureFixture) -> None:
    stopped, sound = parent.fork(), parent.fork()
    parent.wait_until(lambda: stopped.is_ready and sound.is_ready)
    stopped.kill(signal.SIGSTOP)

    def is_dead() -> bool:
        parent.forked.kill_hung(time.monotonic())
        return bool(parent.exits)

    parent.wait_until(is_dead)
    assert [(each.child, each.reason) for each in parent.exits] == [(stopped, "signal SIGKILL")]
    (line,) = (record for record in caplog.records if record.message == "worker_hung")
    assert line.fields["pid"] == stopped.pid  # type: ignore[attr-defined]


def test_pause_of_the_parent_is_not_taken_for_hanging_children(parent: Parent) -> None:
    """A virtual machine that was paused, or a frozen cgroup, causes the pause."""
    child = parent.fork()
    parent.wait_until(lambda: child.is_ready)
    now = time.monotonic()
    parent.forked.kill_hung(now)
    parent.forked.kill_hung(now + 10 * HANG_LIMITS.silent)
    parent.forked.kill_hung(now + 10 * HANG_LIMITS.silent + 0.1)
    time.sleep(0.1)
    assert list(parent.forked.reap()) == []


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(2)]
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_callback_of_a_ready_descriptor_is_called(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    called: list[int] = []
    with selectors.DefaultSelector() as selector:
        for number, (ours, _theirs) in enumerate(pairs):
            selector.register(ours, selectors.EVENT_READ, lambda number=number: called.append(number))
        handle_events(selector, 0.0)
        assert called == []
        pairs[1][1].send(b"x")
        handle_events(selector, 5.0)
    assert called == [1]


def test_callback_unregistered_in_the_same_round_is_not_called(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """The signal may report the exit of a child before the end of its channel is handled."""
    called: list[int] = []
    with selectors.DefaultSelector() as selector:

        def end_the_other(number: int) -> None:
            called.append(number)
            other = pairs[1 - number][0]
            selector.unregister(other)
            other.close()

        for number, (ours, theirs) in enumerate(pairs):
            selector.register(ours, selectors.EVENT_READ, lambda number=number: end_the_other(number))
            theirs.send(b"x")
        handle_events(selector, 5.0)
    assert len(called) == 1


def test_new_descriptor_with_the_same_number_is_not_called(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    called: list[str] = []
    with selectors.DefaultSelector() as selector:
        new_sockets: list[socket.socket] = []

        def replace_the_other(number: int) -> None:
            called.append("first")
            other = pairs[1 - number][0]
            descriptor = other.fileno()
            selector.unregister(other)
            other.close()
            new_sockets.extend(socket.socketpair())
            assert descriptor in {sock.fileno() for sock in new_sockets}
            for sock in new_sockets:
                selector.register(sock, selectors.EVENT_READ, lambda: called.append("new"))

        for number, (ours, theirs) in enumerate(pairs):
            selector.register(ours, selectors.EVENT_READ, lambda number=number: replace_the_other(number))
            theirs.send(b"x")
        handle_events(selector, 5.0)
        for sock in new_sockets:
            sock.close()
    assert called == ["first"]
