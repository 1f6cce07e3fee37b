"""Sockets and their errors."""

import errno
import os
import socket

import pytest

from kkdcpd.upstream.attempt import failure_of, open_socket
from kkdcpd.values import FailureReason, KdcEndpoint, Transport

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


def test_source_address_is_that_of_the_endpoints_family() -> None:
    sources = {socket.AF_INET: "127.0.0.9"}
    with open_socket(V4, socket.SOCK_STREAM, sources) as sock:
        assert sock.getsockname()[0] == "127.0.0.9"
    with open_socket(V6, socket.SOCK_STREAM, sources) as sock:
        assert sock.getsockname()[0] == "::"


def test_source_address_that_is_not_ours_is_an_error_and_leaves_no_socket() -> None:
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
