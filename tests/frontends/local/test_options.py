"""Addresses that only programs of this host can reach, and their names."""

import socket
from pathlib import Path

import pytest

from kkdcpd.errors import ConfigError
from kkdcpd.frontends.local.options import LocalListener, LocalOptions, check_reach
from tests.frontends.local.running import bound


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_address_that_other_hosts_can_reach_needs_an_option(host: str, kind: socket.SocketKind) -> None:
    with bound((host, 0), kind) as sock:
        listener = LocalListener(socket=sock)
        with pytest.raises(ConfigError, match=r"other hosts can reach (udp|tcp)://.*beyond_loopback"):
            check_reach(listener, LocalOptions())
        check_reach(listener, LocalOptions(beyond_loopback=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1"])
def test_loopback_needs_no_option(host: str) -> None:
    with bound((host, 0), socket.SOCK_DGRAM) as sock:
        check_reach(LocalListener(socket=sock), LocalOptions())


def test_unix_socket_needs_no_option(tmp_path: Path) -> None:
    with bound(str(tmp_path / "kdc.sock"), socket.SOCK_STREAM) as sock:
        listener = LocalListener(socket=sock)
        check_reach(listener, LocalOptions())
        assert str(listener) == f"unix:{tmp_path}/kdc.sock"


def test_text_of_a_listener_has_its_transport_and_address() -> None:
    with bound(("::1", 0), socket.SOCK_DGRAM) as sock:
        assert str(LocalListener(socket=sock)) == f"udp://[::1]:{sock.getsockname()[1]}"
