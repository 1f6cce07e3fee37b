"""Link-local addresses of KDCs, listeners and sources, on an interface of a network namespace."""

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.daemon import Daemon
from lab.namespace import NetworkNamespace
from lab.program import run
from lab.realm import MitRealm, Principal
from tests.frontends.site import parse_line
from tests.interop.conftest import PASSWORD, REALM, FrontMaker

INTERFACE = "kh"
KDC, SOURCE = "fe80::77", "fe80::66"


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkNamespace]:
    with NetworkNamespace(tmp_path) as network:
        # Without an IPv4 address glibc finds no 127.0.0.1 for localhost (AI_ADDRCONFIG).
        network.add_interface(INTERFACE, f"{KDC}/64", f"{SOURCE}/64", "192.0.2.1/24")
        yield network


@pytest.fixture
def realm(network: NetworkNamespace, tmp_path: Path) -> Iterator[MitRealm]:
    """A realm with a KDC that listens on every address."""
    del network  # the realm's servers start in this namespace
    alice = Principal(name="alice", password=PASSWORD, options=("+requires_preauth",))
    with MitRealm(tmp_path / "realm", name=REALM, principals=[alice], addresses=["::"]) as realm:
        yield realm


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("is_numeric", [False, True])
def test_kdc_with_a_link_local_address_gets_requests_from_a_link_local_address(
    transport: str, realm: MitRealm, make_front: FrontMaker, *, is_numeric: bool
) -> None:
    zone = str(socket.if_nametoindex(INTERFACE)) if is_numeric else INTERFACE
    sections = f'[upstream]\nsource_addresses = ["{SOURCE}%{zone}"]\n'
    site = make_front(realm, f"{transport}://[{KDC}%{zone}]:{realm.kdc.port}", sections=sections)
    site.clients().kinit("alice", PASSWORD).expect_ok()
    exchanges = site.wait_for_exchanges(2)
    assert {line["outcome"] for line in exchanges} == {"answered"}
    assert f"{KDC}%{zone}" in exchanges[0]["kdc"]
    assert any(SOURCE in line for line in realm.kdc.program.lines if "AS_REQ" in line)


def test_listener_with_a_link_local_address_is_connected_to(
    network: NetworkNamespace, tmp_path: Path
) -> None:
    del network
    config = f"""
        [[listen]]
        address = "[{KDC}%{INTERFACE}]:0"
        tls = false
        plain_http_anywhere = true
        [realms."EXAMPLE.COM"]
        kdc = ["192.0.2.1"]
    """
    with Daemon(tmp_path / "daemon", config) as daemon:
        (port,) = daemon.ports
        address = KDC, port, 0, socket.if_nametoindex(INTERFACE)
        with socket.socket(socket.AF_INET6) as sock:
            sock.settimeout(10)
            sock.connect(address)
            sock.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.0 404 ")
        line = parse_line(daemon.wait_for_line(lambda line: "path_not_found" in line))
        assert line["client"] == KDC
        ready = parse_line(daemon.wait_for_line(lambda line: " ready " in line))
        assert ready["listen"] == f"http://[{KDC}%{INTERFACE}]:{port}"


def test_check_names_an_interface_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        """
            [[listen]]
            address = "127.0.0.1:0"
            tls = false
            [locate]
            nameservers = ["fe80::1%gone1"]
            [upstream]
            source_addresses = ["fe80::1%gone2"]
            [realms."EXAMPLE.COM"]
            kdc = ["[fe80::77%gone3]"]
            kpasswd = ["[fe80::77%lo]"]
        """
    )
    checked = run(
        *(sys.executable, "-m", "kkdcpd", "check", "--config", str(path)), environment=os.environ
    ).expect_ok()
    for setting, zone in (
        ("locate.nameservers", "gone1"),
        ("upstream.source_addresses", "gone2"),
        ('realms."EXAMPLE.COM".kdc', "gone3"),
    ):
        assert f"warning: {setting}: " in checked.output
        assert f"is on the network interface {zone}, which this host does not have" in checked.output
    assert "network interface lo," not in checked.output
