"""The parent's children, as real processes."""

import asyncio
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from kkdcpd.process_messages import HealthNotice, ProbeTarget, Retire, ServiceStatus
from kkdcpd.shared_memory.rows import Rows
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child, serve_with_channel
from kkdcpd.supervisor.events import take_turn
from kkdcpd.supervisor.family import Death, Family, Patience
from kkdcpd.values import FailureReason, KdcEndpoint, KdcState, Transport
from tests.support.waiting import wait_until

ROWS = 4
PATIENCE = Patience(hung=3.0, abort=0.5)


def trouble(name: str, state: KdcState) -> HealthNotice:
    endpoint = KdcEndpoint(name=name, address="192.0.2.1", port=88, transport=Transport.TCP)
    return HealthNotice(
        target=ProbeTarget(endpoint=endpoint, realm="R"), state=state, reason=FailureReason.REFUSED
    )


FOUND = trouble("dc1", KdcState.DOWN)


class Finder:
    """Finds out one thing at its start, and tells as another one's trouble whatever it hears."""

    def __init__(self, channel: Channel, found: HealthNotice | None) -> None:
        self._channel = channel
        self._found = found

    async def run(self, stop: asyncio.Event) -> None:
        if self._found:
            self._channel.send(self._found)
        await stop.wait()

    def heard(self, news: HealthNotice | Retire | ServiceStatus) -> None:
        assert isinstance(news, HealthNotice)
        name = news.target.endpoint.name
        if name.count("heard") < 2:
            self._channel.send(trouble(f"heard of {name}", news.state))


class Home:
    """A family, and the selector that it is heard by."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.cleared: list[int] = []
        self.rows = Rows([self.cleared.append], ROWS)
        self.family = Family(self.selector, self.rows, PATIENCE)
        self.children: list[Child] = []
        self.deaths: list[Death] = []

    def fork(self, found: HealthNotice | None = None) -> Child:
        async def work(channel: Channel, _row: int) -> None:
            await serve_with_channel(Finder(channel, found), channel)

        child = self.family.fork(f"worker {len(self.children) + 1}", self.selector.close, work)
        self.children.append(child)
        return child

    def wait_until(self, check: Callable[[], bool]) -> None:
        def is_so() -> bool:
            take_turn(self.selector, 0.05)
            self.deaths += self.family.reap()
            return check()

        wait_until(is_so)

    @property
    def known(self) -> set[str]:
        return {notice.target.endpoint.name for notice in self.family._health.values()}


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home()
    yield home
    home.family.kill_all()
    home.wait_until(lambda: home.family.is_empty)
    home.selector.close()


def test_child_is_ready_when_it_says_that_it_lives(home: Home) -> None:
    child = home.fork()
    assert not child.is_ready
    home.wait_until(lambda: child.is_ready)


def test_what_one_finds_out_the_others_hear_and_itself_does_not(home: Home) -> None:
    home.fork()
    home.fork()
    home.wait_until(lambda: all(child.is_ready for child in home.children))
    home.fork(FOUND)
    # One heard of it, and said so; the other heard that, too.
    home.wait_until(lambda: {"heard of dc1", "heard of heard of dc1"} <= home.known)


def test_child_that_is_born_later_hears_what_is_known(home: Home) -> None:
    home.fork(FOUND)
    home.wait_until(lambda: home.known == {"dc1"})
    home.fork()
    home.wait_until(lambda: "heard of dc1" in home.known)


def test_what_is_well_again_is_known_no_more(home: Home) -> None:
    home.fork(FOUND)
    home.wait_until(lambda: home.known == {"dc1"})
    home.fork(trouble("dc1", KdcState.HEALTHY))
    home.wait_until(lambda: "dc1" not in home.known)


def test_death_is_told_with_its_reason_and_its_row_is_free_again(home: Home) -> None:
    first, second = home.fork(), home.fork()
    assert (first.row, second.row) == (0, 1)
    home.wait_until(lambda: second.is_ready)
    first.kill()
    second.channel.end()
    home.wait_until(lambda: home.family.is_empty)
    assert {death.child.name: death.words for death in home.deaths} == {
        "worker 1": "signal SIGKILL",
        "worker 2": "exit code 0",
    }
    assert sorted(home.cleared) == [0, 1]
    assert home.rows.free == ROWS
    assert home.selector.get_map() is not None
    assert not list(home.selector.get_map())


def test_no_more_children_than_there_are_rows(home: Home) -> None:
    for _ in range(ROWS):
        home.fork()
    assert home.family.has_room_for(0)
    assert not home.family.has_room_for(1)
    with pytest.raises(OSError, match="too many"):
        home.fork()
    home.children[0].kill()
    home.wait_until(lambda: home.family.has_room_for(1))
    home.fork()


def test_end_of_one_child_is_not_kept_from_it_by_a_brother(home: Home) -> None:
    """Who inherited the parent's end of another one's channel would keep it open."""
    first, _second = home.fork(), home.fork()
    first.channel.end()
    home.wait_until(lambda: [death.child for death in home.deaths] == [first])


def test_foreign_orphan_is_reaped_and_nothing_is_told(home: Home) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert list(home.family.reap()) == []
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_child_that_says_nothing_is_aborted_then_killed(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    stopped, sound = home.fork(), home.fork()
    home.wait_until(lambda: stopped.is_ready and sound.is_ready)
    stopped.kill(signal.SIGSTOP)

    def is_dead() -> bool:
        home.family.end_hung(time.monotonic())
        return bool(home.deaths)

    home.wait_until(is_dead)
    assert [(death.child, death.words) for death in home.deaths] == [(stopped, "signal SIGKILL")]
    (line,) = (record for record in caplog.records if record.message == "worker_hung")
    assert line.fields["pid"] == stopped.pid  # type: ignore[attr-defined]


def test_nobody_is_taken_to_hang_when_we_were_not_there_to_hear(home: Home) -> None:
    """A virtual machine that was paused, or a frozen cgroup."""
    child = home.fork()
    home.wait_until(lambda: child.is_ready)
    now = time.monotonic()
    home.family.end_hung(now)
    home.family.end_hung(now + 10 * PATIENCE.hung)
    home.family.end_hung(now + 10 * PATIENCE.hung + 0.1)
    time.sleep(0.1)
    assert list(home.family.reap()) == []
