"""TCP listening sockets of a real daemon, and UDP sockets."""

import socket
from collections.abc import Callable

import pytest

from kkdcpd.config import ListenAddress
from kkdcpd.supervisor.inet_sockets import open_datagram
from lab.daemon import is_exchange
from lab.program import Completed
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, parse_line
from tests.supervisor.daemons import Start
from tests.support.http_client import HttpClient


def test_star_listens_on_both_families_with_one_port(start: Start) -> None:
    daemon = start("*:0")
    assert len(daemon.ports) == 2
    assert len(set(daemon.ports)) == 1
    for host in ("127.0.0.1", "::1"):
        with HttpClient(daemon.ports[0], host=host) as client:
            assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
    exchanges = daemon.wait_for_lines(is_exchange, count=2)
    assert [parse_line(line)["client"] for line in exchanges] == ["127.0.0.1", "::1"]


def test_daemon_listens_on_an_ipv6_address(start: Start) -> None:
    with HttpClient(start("[::1]:0").ports[0], host="::1") as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


def test_ipv6_wildcard_leaves_ipv4_to_other_programs(start: Start) -> None:
    port = start("[::]:0").ports[0]
    with pytest.raises(ConnectionRefusedError):
        HttpClient(port)


def test_port_is_free_again_at_once(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    port = daemon.ports[0]
    with HttpClient(port) as client:
        client.ask(GOOD_REQUEST)
        daemon.stop()
    assert start(f"127.0.0.1:{port}").ports == (port,)


def test_address_in_use_is_exit_code_1_and_a_line_that_helps(
    start: Start, fail_to_start: Callable[..., Completed]
) -> None:
    address = f"127.0.0.1:{start('127.0.0.1:0').ports[0]}"
    done = fail_to_start(address)
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == (
        f"error: can't listen on {address}: Address already in use; stop the program that uses this address "
        "(`ss -ltnp` shows it), or choose another port"
    )
    assert "Traceback" not in done.output


def test_address_of_another_host_is_exit_code_1(fail_to_start: Callable[..., Completed]) -> None:
    done = fail_to_start("192.0.2.1:4443")
    assert done.exit_code == 1
    assert "no network interface of this host has this address" in done.output


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagram_socket_has_the_address_and_does_not_block(host: str) -> None:
    with open_datagram(ListenAddress(host=host, port=0)) as sock:
        assert sock.getsockname()[0] == host
        assert sock.type == socket.SOCK_DGRAM
        assert sock.gettimeout() == 0.0
