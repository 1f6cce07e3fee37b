"""The daemon with real DNS faults: a firewall that drops one record type, an unusual resolv.conf."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.daemon import Daemon
from lab.dns import KnotServer
from lab.namespace import NetworkNamespace
from lab.program import environment, run
from tests.support.fake_dns import FakeDns
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.messages import as_rep, as_req, envelope

DNS_ADDRESS = "127.0.0.54"
STALL_SECONDS = 1.5
ODD_RESOLV_CONF = (
    b"domain a..b\nsearch ..,\noptions edns0 timeout:x rotate\nnameserver dns.example.com\n"
    b"nameserver 127.0.0.1#5353\nnameserver 192.0.2.1,\n\0\xff\nnameserver 127.0.0.54\n"
    b"nameserver fe80::1%none\n"
)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkNamespace]:
    with NetworkNamespace(tmp_path) as network:
        yield network


def _seconds(daemon: Daemon, realm: str) -> float:
    """Send an AS-REQ, and return the seconds until its response."""
    body = envelope(as_req(realm=realm, sname=(2, ("krbtgt", realm))), realm)
    head = f"POST /KdcProxy HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    started = time.perf_counter()
    with socket.create_connection(("127.0.0.1", daemon.ports[0]), 20) as sock:
        sock.sendall(head.encode() + body)
        assert b" 200 " in sock.recv(65536)
    return time.perf_counter() - started


def test_firewall_that_drops_one_record_type_holds_up_no_request(
    network: NetworkNamespace, tmp_path: Path
) -> None:
    zone = "_kerberos._tcp SRV 0 100 {port} kdc\n_kerberos._udp SRV 0 100 {port} kdc\nkdc A 127.0.9.10"
    with (
        FakeKdcThread(tcp=reply(as_rep()), host="127.0.9.10") as kdc,
        KnotServer(tmp_path / "knot", {"z.test": zone.format(port=kdc.port)}, ttl=3600) as knot,
    ):
        # In the query for _kerberos.z.test the type follows 8 + 12 + 18 bytes of UDP, header and name.
        network.filter("input", f"udp dport {knot.port} @th,304,16 256 counter drop")
        config = f"""
[[listen]]
address = "127.0.0.1:0"
tls = false
[locate]
nameservers = ["{knot.endpoint}"]
allowed_networks = ["127.0.0.0/8"]
allowed_ports = [{kdc.port}]
minimum_ttl = 1
negative_ttl = 1
[realms."Z.TEST"]
discovery = "dns"
"""
        with Daemon(tmp_path / "daemon", config) as daemon:
            taken = [_seconds(daemon, "Z.TEST") for _ in range(3)]
            time.sleep(1.2)  # the negative cache entries have expired
            taken += [_seconds(daemon, "Z.TEST") for _ in range(3)]
        assert max(taken) < STALL_SECONDS, taken
        assert "URI" not in knot.queries()
        assert knot.queries()["SRV"] >= 2


@pytest.mark.usefixtures("network")
def test_resolv_conf_with_invalid_lines_does_not_stop_look_ups(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_bytes(ODD_RESOLV_CONF)
    python = tmp_path / "python"
    inside = f'mount --bind {tmp_path}/resolv.conf /etc/resolv.conf && exec {sys.executable} "$@"'
    python.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{inside}' sh \"$@\"\n")
    python.chmod(0o755)
    with (
        FakeKdcThread(tcp=reply(as_rep())) as kdc,
        FakeDns("kdc.d.test 60 A 127.0.0.1", address=DNS_ADDRESS, port=53),
    ):
        config = f"""
[[listen]]
address = "127.0.0.1:0"
tls = false
[process]
control = "{tmp_path}/control"
[realms."ADDRESS.TEST"]
kdc = ["tcp://127.0.0.1:{kdc.port}"]
[realms."D.TEST"]
kdc = ["tcp://kdc.d.test:{kdc.port}"]
"""
        with Daemon(tmp_path / "daemon", config, python=str(python)) as daemon:
            for realm in ("ADDRESS.TEST", "D.TEST"):
                assert _seconds(daemon, realm) < STALL_SECONDS
            warned = [
                line
                for line in daemon.lines
                if " config_warning " in line and "/etc/resolv.conf line" in line
            ]
            assert len(warned) == 3
            command = (str(python), "-m", "kkdcpd", "--config", str(daemon.config))
            variables = environment(tmp_path) | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
            run(*command, "reload", environment=variables).expect_ok()
            check = run(*command, "check", environment=variables).expect_ok()
            assert '/etc/resolv.conf line 4: nameserver "dns.example.com" is ignored' in check.output
            located = run(*command, "locate", "D.TEST", environment=variables).expect_ok()
            assert "Traceback" not in located.output
            assert _seconds(daemon, "D.TEST") < STALL_SECONDS
