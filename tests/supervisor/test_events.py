import selectors
import socket
from collections.abc import Iterator

import pytest

from kkdcpd.supervisor.events import take_turn


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    pairs = [socket.socketpair() for _ in range(2)]
    yield pairs
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_whoever_is_ready_is_called(pairs: list[tuple[socket.socket, socket.socket]]) -> None:
    called: list[int] = []
    with selectors.DefaultSelector() as selector:
        for number, (ours, _theirs) in enumerate(pairs):
            selector.register(ours, selectors.EVENT_READ, lambda number=number: called.append(number))
        take_turn(selector, 0.0)
        assert called == []
        pairs[1][1].send(b"x")
        take_turn(selector, 5.0)
    assert called == [1]


def test_whoever_was_unregistered_in_the_same_turn_is_not_called(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """A child's death may be told by the signal before its channel's end: then there is none any more."""
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
        take_turn(selector, 5.0)
    assert len(called) == 1


def test_newcomer_with_the_same_number_is_not_taken_for_it(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    called: list[str] = []
    with selectors.DefaultSelector() as selector:
        newcomers: list[socket.socket] = []

        def replace_the_other(number: int) -> None:
            called.append("first")
            other = pairs[1 - number][0]
            descriptor = other.fileno()
            selector.unregister(other)
            other.close()
            newcomers.extend(socket.socketpair())
            assert descriptor in {sock.fileno() for sock in newcomers}
            for sock in newcomers:
                selector.register(sock, selectors.EVENT_READ, lambda: called.append("newcomer"))

        for number, (ours, theirs) in enumerate(pairs):
            selector.register(ours, selectors.EVENT_READ, lambda number=number: replace_the_other(number))
            theirs.send(b"x")
        take_turn(selector, 5.0)
        for sock in newcomers:
            sock.close()
    assert called == ["first"]
