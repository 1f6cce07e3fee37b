"""Messages between the parent and a child, over real sockets."""

import os
from dataclasses import replace

import pytest

from kkdcpd.supervisor.channel import Alive, Channel, Message
from kkdcpd.upstream.health import HealthNotice, ProbeTarget
from kkdcpd.values import (
    FailureReason,
    KdcEndpoint,
    KdcState,
    LoadDropped,
    ReloadResult,
    Retire,
    ServiceStatus,
    Transport,
)

ENDPOINT = KdcEndpoint(name="dc1.example.com", address="2001:db8::1", port=88, transport=Transport.UDP)
NOTICES = [
    HealthNotice(
        target=ProbeTarget(endpoint=ENDPOINT, realm="EXAMPLE.COM"),
        state=KdcState.DOWN,
        reason=FailureReason.REFUSED,
        probe_in=1.5,
    ),
    HealthNotice(target=ProbeTarget(endpoint=ENDPOINT, realm=None), state=KdcState.HEALTHY),
]

STATUS = ServiceStatus(
    generation=3, workers_ready=1, workers_wanted=2, started_at=1.5, is_draining=True, last_reload=None
)
STATUSES = [
    STATUS,
    replace(STATUS, last_reload=ReloadResult(at=2.5, is_ok=False, problems=("one", "«two»"))),
]


@pytest.mark.parametrize("message", [Alive(), LoadDropped(), Retire(), *NOTICES, *STATUSES], ids=str)
def test_message_arrives_as_it_was_sent(message: Message) -> None:
    ours, theirs = Channel.pair()
    assert ours.send(message)
    assert list(theirs.receive()) == [message]
    assert theirs.is_open
    for end in (ours, theirs):
        end.close()


def test_messages_keep_their_order_and_their_bounds() -> None:
    ours, theirs = Channel.pair()
    messages: list[Message] = [*NOTICES, Alive(), *NOTICES]
    for message in messages:
        ours.send(message)
    assert list(theirs.receive()) == messages
    for end in (ours, theirs):
        end.close()


def test_what_nobody_reads_is_lost_and_nobody_waits() -> None:
    ours, theirs = Channel.pair()
    sent = 0
    while ours.send(NOTICES[0]):
        sent += 1
    assert not ours.send(Alive())
    assert len(list(theirs.receive())) == sent
    assert ours.send(Alive())
    assert list(theirs.receive()) == [Alive()]
    for end in (ours, theirs):
        end.close()


def test_end_is_told_and_what_the_other_side_says_is_still_heard() -> None:
    ours, theirs = Channel.pair()
    ours.end()
    ours.end()
    assert list(theirs.receive()) == []
    assert not theirs.is_open
    assert theirs.send(Alive())
    assert list(ours.receive()) == [Alive()]
    assert ours.is_open
    theirs.close()
    assert list(ours.receive()) == []
    assert not ours.is_open
    ours.close()


def test_death_of_the_other_process_is_the_end() -> None:
    ours, theirs = Channel.pair()
    pid = os.fork()
    if not pid:
        theirs.send(Alive())
        os._exit(0)
    theirs.close()
    os.waitpid(pid, 0)
    assert list(ours.receive()) == [Alive()]
    assert not ours.is_open
    assert not ours.send(Alive())
    ours.close()


def test_closed_end_says_and_hears_nothing() -> None:
    ours, theirs = Channel.pair()
    ours.close()
    assert not ours.send(Alive())
    assert list(ours.receive()) == []
    theirs.close()
