"""Real KDCs behind networks that filter, lose or swallow packets."""

import resource
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kkdcpd.endpoints import KDC_TRANSPORTS, Transport
from lab.namespace import NetworkNamespace
from lab.realm import MitRealm, Principal
from tests.interop.conftest import PASSWORD, REALM, SERVICE, FrontMaker, Site
from tests.support import messages
from tests.support.http_client import post

FIRST_AS_REQ = messages.as_req(realm=REALM, cname=(1, ("alice",)), padata=[(149, b""), (150, b"")])
PROOF = messages.as_req(realm=REALM, cname=(1, ("alice",)), padata=[(2, b"\x30\x00"), (149, b"")])
UDP_ALONE = frozenset({Transport.UDP})
# Short timeouts, so that a test takes seconds only.
IMPATIENT = """
    [upstream]
    reach_timeout = 2
    reply_timeout = 30
    probe_interval = 0.5
    probe_interval_maximum = 1
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkNamespace]:
    with NetworkNamespace(tmp_path) as network:
        yield network


@pytest.fixture
def realm(network: NetworkNamespace, tmp_path: Path) -> Iterator[MitRealm]:
    """A realm in the network namespace, which can drop its packets."""
    del network
    principals = [
        Principal(name="alice", password=PASSWORD, options=("+requires_preauth",)),
        Principal(name=SERVICE),
    ]
    with MitRealm(tmp_path / "realm", name=REALM, principals=principals) as realm:
        yield realm


def log_in(site: Site) -> None:
    client = site.clients()
    client.kinit("alice", PASSWORD).expect_ok()
    client.kvno(SERVICE).expect_ok()


@pytest.mark.parametrize("verdict", ["drop", "reject with tcp reset"])
def test_tcp_that_is_known_to_be_down_is_not_waited_for_and_used_again_once_it_works(
    verdict: str, network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    site = make_front(realm, *realm.kdc.endpoints, sections=IMPATIENT)
    network.filter("input", f"tcp dport {realm.kdc.port} {verdict}")
    log_in(site)
    site.daemon.wait_for_line(lambda line: "kdc_unhealthy" in line and "state=down" in line)
    before = site.mark()
    log_in(site)
    exchanges = site.wait_for_exchanges(3, after=before)
    # One attempt: the request did not wait for a connect.
    assert {(line["transport"], line["attempts"]) for line in exchanges} == {("udp", "1")}
    network.unfilter()
    site.daemon.wait_for_line(lambda line: "kdc_recovered" in line, after=before)
    before = site.mark()
    log_in(site)
    assert {line["transport"] for line in site.wait_for_exchanges(3, after=before)} == {"tcp"}


def test_tcp_that_accepts_and_stays_silent_gives_way_to_udp(
    network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    site = make_front(realm, *realm.kdc.endpoints, sections=IMPATIENT)
    network.filter("output", f"tcp sport {realm.kdc.port} tcp flags & psh == psh drop")
    assert site.ask(FIRST_AS_REQ).status == 200
    site.daemon.wait_for_line(lambda line: "kdc_unhealthy" in line and "state=down" in line)
    log_in(site)


def test_udp_that_is_filtered_gives_way_to_tcp(
    network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    (kdc,) = realm.kdc.endpoints
    site = make_front(realm, f"udp://{kdc}", f"tcp://{kdc}", sections=IMPATIENT)
    network.filter("input", f"udp dport {realm.kdc.port} drop")
    assert site.ask(FIRST_AS_REQ).status == 200
    log_in(site)


def test_filtered_tcp_of_one_kdc_does_not_prevent_tcp_to_another(
    network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    first, second = realm.kdc, realm.start_kdc()
    site = make_front(realm, *first.endpoints, *second.endpoints)
    network.filter("input", f"tcp dport {first.port} drop")
    log_in(site)
    exchanges = site.wait_for_exchanges(3)
    assert {line["transport"] for line in exchanges} == {"tcp"}


def test_one_packet_in_five_that_is_lost_costs_seconds_and_no_request(
    network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    site = make_front(realm, f"udp://{realm.kdc.endpoints[0]}")
    tickets = site.clients()
    tickets.kinit("alice", PASSWORD).expect_ok()
    for hook, port in (("input", "dport"), ("output", "sport")):
        network.filter(hook, f"udp {port} {realm.kdc.port} numgen inc mod 5 0 drop")
    started = time.monotonic()
    for _ in range(6):
        assert site.ask(FIRST_AS_REQ).status == 200
    tickets.kvno(SERVICE).expect_ok()
    # As many attempts as requests: all copies were sent from one socket.
    assert {line["attempts"] for line in site.wait_for_exchanges(9)} == {"1"}
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("endpoint", ["{}", "udp://{}", "tcp://{}"])
def test_message_that_the_kdc_drops_is_answered_in_time(
    endpoint: str, realm: MitRealm, make_front: FrontMaker
) -> None:
    """MIT's KDC closes the connection after the message, and answers no datagram."""
    dropped = messages.as_req(realm=REALM, cname=(1, ("alice",)), nonce=0xFFFFFFFF)
    site = make_front(
        realm, endpoint.format(realm.kdc.endpoints[0]), sections="[upstream]\nreply_timeout = 6"
    )
    assert site.ask(dropped).status == 503
    (line,) = site.wait_for_exchanges(1)
    assert line["attempts"] == "1"
    assert line["detail"].endswith("reply_timeout" if endpoint.startswith("udp") else "closed")
    # This does not make the KDC suspect.
    assert not any("state=down" in line for line in site.daemon.lines)


@pytest.mark.parametrize("fault", ["accepts and is silent", "is swallowed after the connect"])
@pytest.mark.parametrize("transport", KDC_TRANSPORTS)
def test_only_kdc_that_is_dead_costs_the_time_to_reach_one(
    transport: Transport, fault: str, network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    site = make_front(realm, f"{transport.value}://{realm.kdc.endpoints[0]}", sections=IMPATIENT)
    assert site.ask(PROOF).status == 200
    if fault == "accepts and is silent":
        realm.kdc.program.send_signal(signal.SIGSTOP)
    else:
        network.drop_replies(realm.kdc.port)
    started = time.monotonic()
    assert site.ask(PROOF).status == 503
    assert time.monotonic() - started < 10
    (line,) = [line for line in site.wait_for_exchanges(2) if line["outcome"] == "no_kdc_reply"]
    assert line["detail"].endswith("silent")
    realm.kdc.program.send_signal(signal.SIGCONT)
    network.unfilter()
    site.daemon.wait_for_line(lambda line: "kdc_recovered" in line)
    log_in(site)


def test_all_workers_give_up_a_dead_kdc_in_time(
    network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    """News from another worker neither decides about a worker's own message nor prevents it."""
    (kdc,) = realm.kdc.endpoints
    site = make_front(realm, f"tcp://{kdc}", sections=IMPATIENT + "\n[process]\nworkers = 3\ncontrol = ''")
    network.count("probes", f"tcp dport {realm.kdc.port} tcp flags syn")
    with ExitStack() as at_the_end:
        realm.kdc.program.send_signal(signal.SIGSTOP)
        at_the_end.callback(realm.kdc.program.send_signal, signal.SIGCONT)
        started = time.monotonic()
        clients = [at_the_end.enter_context(site.connect()) for _ in range(12)]
        for client in clients:
            client.send(post(messages.envelope(PROOF, REALM)))
        assert {client.response().status for client in clients} == {503}
        assert time.monotonic() - started < 10
        # Beside the 12 messages each worker has sent some probes.
        assert network.counted("probes") <= 12 + 3 * 16


def assert_that_this_host_is_blamed(site: Site, error: str, advice: str) -> None:
    line = site.daemon.wait_for_line(lambda line: " local_error " in line)
    assert f"error={error}" in line
    assert advice in line
    assert not any("kdc_unhealthy" in line for line in site.daemon.lines)


ONE_WORKER = "[process]\nworkers = 1\ncontrol = ''"


def test_firewall_of_this_host_is_no_fault_of_the_kdc(
    network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    site = make_front(realm, f"udp://{realm.kdc.endpoints[0]}", sections=ONE_WORKER)
    network.filter("output", f"udp dport {realm.kdc.port} drop")
    # The KDC's TCP is another endpoint of the same KDC.
    assert site.ask(PROOF).status == 200
    assert_that_this_host_is_blamed(site, "EPERM", "firewall")


def test_want_of_ports_is_no_fault_of_the_kdc(
    network: NetworkNamespace, realm: MitRealm, make_front: FrontMaker
) -> None:
    site = make_front(realm, f"udp://{realm.kdc.endpoints[0]}", sections=ONE_WORKER)
    with socket.socket(type=socket.SOCK_DGRAM) as holder, site.connect() as client:
        holder.bind(("", 20000))
        network.limit_ports(20000, 20000)
        assert client.ask(post(messages.envelope(PROOF, REALM))).status == 200
    assert_that_this_host_is_blamed(site, "EAGAIN", "net.ipv4.ip_local_port_range")


def test_want_of_descriptors_is_no_fault_of_the_kdc(realm: MitRealm, make_front: FrontMaker) -> None:
    site = make_front(realm, sections=ONE_WORKER)
    worker = min(site.daemon.workers)
    with site.connect() as client:
        request = post(messages.envelope(PROOF, REALM))
        assert client.ask(request).status == 200
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        taken = {int(entry.name) for entry in Path(f"/proc/{worker}/fd").iterdir()}
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (min(set(range(1000)) - taken), before[1]))
        assert client.ask(request).status == 503
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        assert client.ask(request).status == 200
    assert_that_this_host_is_blamed(site, "EMFILE", "LimitNOFILE")
