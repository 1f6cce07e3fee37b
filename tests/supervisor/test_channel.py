"""The channel between the parent process and a child process, over real sockets."""

import os

from kkdcpd.process_messages import Alive, Message
from kkdcpd.supervisor.channel import Channel
from tests.test_process_messages import NOTICES


def test_messages_keep_their_order_and_their_bounds() -> None:
    ours, theirs = Channel.pair()
    messages: list[Message] = [*NOTICES, Alive(), *NOTICES]
    for message in messages:
        ours.send(message)
    assert list(theirs.receive()) == messages
    for end in (ours, theirs):
        end.close()


def test_messages_beyond_the_buffer_are_lost_and_sending_never_blocks() -> None:
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


def test_end_reaches_the_other_side_whose_messages_are_still_received() -> None:
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


def test_death_of_the_other_process_ends_the_channel() -> None:
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


def test_closed_end_neither_sends_nor_receives() -> None:
    ours, theirs = Channel.pair()
    ours.close()
    assert not ours.send(Alive())
    assert list(ours.receive()) == []
    theirs.close()
