"""Sockets, their readiness over both event loops, and their errors."""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.upstream.sockets import READABLE, WRITABLE, Readiness, failure_of, open_socket
from kkdcpd.values import FailureReason

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    with ExitStack() as stack:
        pairs = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(3)]
        for sock in (sock for pair in pairs for sock in pair):
            sock.setblocking(False)
            stack.enter_context(sock)
        yield pairs


async def pause() -> None:
    for _ in range(5):
        await asyncio.sleep(0.01)


async def test_call_comes_once_when_the_socket_is_ready(pairs: list[Pair]) -> None:
    readiness, calls = Readiness(), []
    (sock, peer), *_ = pairs
    readiness.call_once(sock, READABLE, lambda: calls.append("read"))
    await pause()
    assert calls == []
    peer.send(b"a")
    await pause()
    assert calls == ["read"]
    peer.send(b"b")
    await pause()
    assert calls == ["read"]


async def test_new_callback_replaces_the_earlier_callback(pairs: list[Pair]) -> None:
    readiness, calls = Readiness(), []
    (sock, _peer), *_ = pairs
    readiness.call_once(sock, READABLE, lambda: calls.append("read"))
    readiness.call_once(sock, READABLE | WRITABLE, lambda: calls.append("either"))
    await pause()
    assert calls == ["either"]


async def test_closed_socket_has_no_callback_even_if_it_was_ready(pairs: list[Pair]) -> None:
    readiness, calls = Readiness(), []
    (sock, peer), *_ = pairs
    readiness.call_once(sock, READABLE, lambda: calls.append("read"))
    peer.send(b"a")
    readiness.close_socket(sock)
    await pause()
    assert calls == []


async def test_new_socket_is_not_called_for_a_closed_socket_of_the_same_descriptor(pairs: list[Pair]) -> None:
    """Both are ready at once. The first callback closes the other socket and opens one with its number."""
    readiness, calls = Readiness(), []
    (first, _), (second, _), (third, _) = pairs

    def replace(mine: socket.socket, other: socket.socket) -> None:
        calls.append("first")
        descriptor = other.fileno()
        readiness.close_socket(other)
        newer = third.dup()
        newer.setblocking(False)
        assert newer.fileno() == descriptor
        newers.append(newer)
        readiness.call_once(newer, READABLE, lambda: calls.append("newer"))
        readiness.close_socket(mine)

    newers: list[socket.socket] = []
    readiness.call_once(first, WRITABLE, lambda: replace(first, second))
    readiness.call_once(second, WRITABLE, lambda: replace(second, first))
    await pause()
    assert calls == ["first"]
    readiness.close_socket(newers[0])


async def test_error_in_one_callback_does_not_stop_the_next_callback(pairs: list[Pair]) -> None:
    noted: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: noted.append(context))
    readiness, calls = Readiness(), []

    def fail() -> None:
        calls.append("failing")
        raise RuntimeError("a bug")

    for sock, _peer in pairs:
        readiness.call_once(sock, WRITABLE, fail)
    await pause()
    assert calls == ["failing"] * 3
    assert [str(context["exception"]) for context in noted] == ["a bug"] * 3


V4 = KdcEndpoint(name="a", address="127.0.0.1", port=88, transport=Transport.TCP)
V6 = KdcEndpoint(name="b", address="::1", port=88, transport=Transport.TCP)


LOCAL_ERRORS = (
    errno.EADDRNOTAVAIL,
    errno.EADDRINUSE,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EACCES,
    errno.EPERM,
)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ECONNREFUSED, FailureReason.REFUSED),
        (errno.ECONNRESET, FailureReason.RESET),
        (errno.EPIPE, FailureReason.RESET),
        (errno.EHOSTUNREACH, FailureReason.UNREACHABLE),
        (errno.ENETUNREACH, FailureReason.UNREACHABLE),
        *((code, FailureReason.LOCAL_ERROR) for code in LOCAL_ERRORS),
        (errno.EMSGSIZE, FailureReason.MESSAGE_TOO_BIG),
    ],
)
def test_every_error_has_a_reason(code: int, reason: FailureReason) -> None:
    assert failure_of(OSError(code, os.strerror(code))) is reason


def test_source_address_is_of_the_endpoints_family() -> None:
    sources = {socket.AF_INET: "127.0.0.9"}
    with open_socket(V4, socket.SOCK_STREAM, sources) as sock:
        assert sock.getsockname()[0] == "127.0.0.9"
    with open_socket(V6, socket.SOCK_STREAM, sources) as sock:
        assert sock.getsockname()[0] == "::"


def test_source_address_of_another_host_is_an_error_and_leaves_no_socket() -> None:
    with pytest.raises(OSError, match="Cannot assign"):
        open_socket(V4, socket.SOCK_STREAM, {socket.AF_INET: "192.0.2.1"})


@pytest.mark.parametrize("endpoint", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_port_of_a_source_address_is_chosen_when_the_peer_is_known(
    endpoint: KdcEndpoint, kind: socket.SocketKind
) -> None:
    """Then different peers may have the same port, and ports last longer."""
    sources = {socket.AF_INET: "127.0.0.9", socket.AF_INET6: "::1"}
    with open_socket(endpoint, kind, sources) as sock:
        assert sock.getsockname()[:2] == (sources[sock.family], 0)
