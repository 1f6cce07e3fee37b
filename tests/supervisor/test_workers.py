"""Limits and state of all workers together: across reloads, and after the death of a worker.

A test selects the worker that accepts a connection: it stops the other worker for this time.
"""

import asyncio
import contextlib
import datetime
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.frontends.http.connection_limits import LARGE_LOAD
from lab.authority import Authority
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD
from tests.supervisor.house import House, run_house
from tests.supervisor.load import Load
from tests.support import fake_kdc
from tests.support.fake_kdc import FakeKdcThread, reply, silent
from tests.support.http_client import HttpClient, post
from tests.support.messages import as_req, envelope, krb_error
from tests.support.waiting import wait_until

SHORT_WHILE = 0.05

SESSIONS = {ssl.TLSVersion.TLSv1_3: 1000, ssl.TLSVersion.TLSv1_2: 200}
ROUNDS = 10
"""So often the workers change their parts: none may be stopped for long."""

CHEAP_REQUEST = post(b"", method="OPTIONS")
"""A request that is refused without a KDC. Its response follows the session tickets of TLS 1.3."""

GUESSES = 10
"""Of guard.failures, by default."""

WRONG_PASSWORD = krb_error(24)
PROBE_INTERVAL = 0.2


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a worker, which may have finished by now."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def is_running(pid: int) -> bool:
    """Whether a process is neither stopped nor at its end."""
    try:
        return not re.search(r"\) [TZ] ", Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextlib.contextmanager
def only(house: House, worker: int) -> Iterator[None]:
    """Let only this worker accept connections within the context."""
    others = [pid for pid in house.daemon.workers if pid != worker]
    for pid in others:
        send(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: not any(map(is_running, others)))
        yield
    finally:
        for pid in others:
            send(pid, signal.SIGCONT)
        # Time to say that they live.
        time.sleep(SHORT_WHILE)


def connect_to(house: House, worker: int) -> HttpClient:
    """Connect to this worker, the only one that can do the TLS handshake."""
    with only(house, worker):
        return house.connect()


def statuses(house: House, *workers: int, request: bytes = GOOD_REQUEST) -> list[int]:
    """Ask each of these workers by a connection of its own."""
    found = []
    for worker in workers:
        with connect_to(house, worker) as client:
            found.append(client.ask(request).status)
    return found


def replace(house: House, worker: int) -> int:
    """Kill a worker with -9, and return its successor."""
    before = set(house.daemon.workers)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: bool(set(house.daemon.workers) - before))
    (successor,) = set(house.daemon.workers) - before
    return successor


def reload(house: House) -> tuple[int, ...]:
    """Reload, and return the new workers. The former workers finish their requests."""
    before = set(house.daemon.workers)
    house.reload().expect_ok()
    return tuple(sorted(set(house.daemon.workers) - before))


# -- TLS sessions --------------------------------------------------------------------------------------------


def connected(house: House, host: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", house.daemon.ports[0]), 10.0, (host, 0))
    # The request shall not wait for the acknowledgement of the handshake's end.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def handshake(
    house: House, trust: ssl.SSLContext, number: int, session: ssl.SSLSession | None
) -> tuple[ssl.SSLSession, bool]:
    """Connect from an address of its own; return the session to go on with, and whether it was resumed."""
    host = f"127.3.{number // 250}.{number % 250 + 1}"
    with (
        connected(house, host) as plain,
        trust.wrap_socket(plain, server_hostname="localhost", session=session) as tls,
    ):
        tls.sendall(CHEAP_REQUEST)
        assert tls.recv(65536).startswith(b"HTTP/1.1 405 ")
        assert tls.session
        return tls.session, bool(tls.session_reused)


LIFETIME = datetime.timedelta(seconds=5)


@pytest.mark.parametrize("version", SESSIONS)
def test_session_with_an_expired_client_certificate_is_refused(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    staff = Authority(tmp_path / "staff")
    with run_house(tmp_path / "house") as house:
        asking = house.text.replace(
            "[tls]", f'client_certificates = "required"\n[tls]\nclient_ca = "{staff.certificate}"'
        )
        house.write(asking)
        house.reload().expect_ok()
        files = staff.issue_client("CN=ann", lifetime=LIFETIME)
        end = time.monotonic() + LIFETIME.total_seconds()
        house.trust.minimum_version = house.trust.maximum_version = version
        house.trust.load_cert_chain(files.certificate, files.key)
        session, _ = handshake(house, house.trust, 1, None)
        session, is_resumed = handshake(house, house.trust, 1, session)
        assert is_resumed
        time.sleep(max(end + 1 - time.monotonic(), 0))
        with pytest.raises((OSError, AssertionError)):
            handshake(house, house.trust, 1, session)


@pytest.mark.parametrize("version", SESSIONS)
def test_tls_sessions_resume_at_the_other_worker(tmp_path: Path, version: ssl.TLSVersion) -> None:
    resumed = 0
    with run_house(tmp_path) as house:
        house.trust.minimum_version = house.trust.maximum_version = version
        first, second = house.daemon.workers
        in_a_round = SESSIONS[version] // ROUNDS
        for start in range(0, SESSIONS[version], in_a_round):
            numbers = range(start, start + in_a_round)
            with only(house, first):
                sessions = [handshake(house, house.trust, number, None)[0] for number in numbers]
            with only(house, second):
                for number, session in zip(numbers, sessions, strict=True):
                    resumed += handshake(house, house.trust, number, session)[1]
            first, second = second, first
            time.sleep(SHORT_WHILE)
        # No process was killed for a long stop.
        assert set(house.daemon.workers) == {first, second}
    assert resumed >= 0.95 * SESSIONS[version]


# -- A load peak ---------------------------------------------------------------------------------------------


def come_and_go(house: House, count: int) -> None:
    """Connect this number of clients, and disconnect when all are connected."""
    with contextlib.ExitStack() as clients:
        for number in range(count):
            clients.enter_context(connected(house, f"127.4.{number // 250}.{number % 250 + 1}"))
        # The next connection is accepted after these connections.
        assert house.ask().status == 200


def is_closed_by_response(client: HttpClient) -> bool:
    """Send a request, and return whether the response closes the connection."""
    response = client.ask(GOOD_REQUEST)
    assert response.body == GOOD_REPLY
    return response.headers.get("connection") == "close"


def test_worker_is_recycled_after_a_load_peak_and_no_request_is_lost(tmp_path: Path) -> None:
    """A retired worker has no deadline: no order to end was given."""
    with run_house(tmp_path, workers=1, process="drain_timeout = 0") as house:
        (former,) = house.daemon.workers
        with Load(house.daemon.ports[0], house.trust, retries=False, keeping=4, single=4) as load:
            with house.connect() as idle:
                assert idle.ask(GOOD_REQUEST).body == GOOD_REPLY
                come_and_go(house, LARGE_LOAD)
                renewed = house.wait_for_event("worker_recycled")
                assert len(house.daemon.workers) == 2
                wait_until(lambda: is_closed_by_response(idle))
            wait_until(lambda: former not in house.daemon.workers)
            tally = load.end()
        assert tally.lost == []
        assert (renewed["process"], renewed["pid"]) == ("worker 1", str(former))
        assert len(house.daemon.workers) == 1
        assert house.ask().status == 200
        assert not house.lines("worker_died", "drained", "drain_timed_out", "bug_in_child", "bug_in_request")


def test_reload_waits_for_a_former_worker_too(tmp_path: Path) -> None:
    with run_house(tmp_path, workers=1) as house:
        (former,) = house.daemon.workers
        with house.connect() as idle:
            assert idle.ask(GOOD_REQUEST).body == GOOD_REPLY
            come_and_go(house, LARGE_LOAD)
            house.wait_for_event("worker_recycled")
            house.reload().expect_ok()
            wait_until(lambda: len(house.daemon.workers) == 2)
            assert not house.lines("drained")
            assert idle.ask(GOOD_REQUEST).body == GOOD_REPLY
        house.wait_for_event("drained")
        assert former not in house.daemon.workers
        assert not house.lines("worker_died", "drain_timed_out")


def test_successor_that_dies_before_it_serves_is_followed_by_another(tmp_path: Path) -> None:
    with run_house(tmp_path, workers=1) as house:
        (former,) = house.daemon.workers
        come_and_go(house, LARGE_LOAD)
        wait_until(lambda: len(house.daemon.workers) == 2)
        (successor,) = set(house.daemon.workers) - {former}
        os.kill(successor, signal.SIGKILL)
        assert house.wait_for_event("worker_died")["pid"] == str(successor)
        assert house.ask().status == 200
        assert house.wait_for_event("worker_recycled")["pid"] == str(former)
        assert house.ask().status == 200


# -- The guard -----------------------------------------------------------------------------------------------

BURST = 40

RATES = f"""
    [guard.rates]
    client_rate = 0.1
    client_burst = {BURST}
"""


def test_rates_hold_over_workers_reloads_and_deaths(tmp_path: Path) -> None:
    with run_house(tmp_path, sections=RATES) as house:
        first, second = house.daemon.workers
        with connect_to(house, first) as one, connect_to(house, second) as other:
            for _ in range(BURST // 2):
                assert [client.ask(GOOD_REQUEST).status for client in (one, other)] == [200, 200]
        assert statuses(house, first, second) == [429, 429]
        first, second = reload(house)
        assert statuses(house, first, second) == [429, 429]
        assert statuses(house, replace(house, first), second) == [429, 429]


def test_failures_of_all_workers_block_at_all_workers_and_after_reloads_and_deaths(tmp_path: Path) -> None:
    with run_house(tmp_path) as house:
        house.kdc.play(tcp=reply(WRONG_PASSWORD))
        first, second = house.daemon.workers
        with connect_to(house, first) as one, connect_to(house, second) as other:
            for _ in range(GUESSES // 2):
                assert [client.ask(GOOD_REQUEST).status for client in (one, other)] == [200, 200]
        assert statuses(house, first, second) == [403, 403]
        first, second = reload(house)
        assert statuses(house, first, second) == [403, 403]
        assert statuses(house, replace(house, first), second) == [403, 403]
        assert len(house.lines("client_blocked")) == 1
        assert len(house.kdc.messages) == GUESSES


def is_let_in(house: House, worker: int) -> bool:
    with only(house, worker), contextlib.suppress(OSError, EOFError), house.connect() as client:
        return client.ask(CHEAP_REQUEST).status == 405
    return False


def test_caps_on_connections_hold_over_workers_reloads_and_deaths(tmp_path: Path) -> None:
    with (
        run_house(tmp_path, sections="[connections]\nper_client = 4", process="drain_timeout = 2") as house,
        contextlib.ExitStack() as clients,
    ):
        # Only connections whose requests are being answered make no room for others.
        house.kdc.play(tcp=silent())
        first, second = house.daemon.workers
        for worker in (first, first, second, second):
            clients.enter_context(connect_to(house, worker)).send(GOOD_REQUEST)
        house.kdc.wait_for_messages(4)
        assert not is_let_in(house, first)
        assert not is_let_in(house, second)
        # Exactly the slots of the killed worker are free again.
        successor = replace(house, first)
        for _ in range(2):
            clients.enter_context(connect_to(house, successor)).send(GOOD_REQUEST)
        house.kdc.wait_for_messages(6)
        assert not is_let_in(house, second)
        # Those of workers that drain count, too.
        house.reload().expect_ok()
        newest = max(house.daemon.workers)
        assert not is_let_in(house, newest)
        wait_until(lambda: len(house.daemon.workers) == 2)
        wait_until(lambda: is_let_in(house, newest))


def test_concurrency_holds_over_workers_reloads_and_deaths(tmp_path: Path) -> None:
    sections = """
        [guard.rates]
        client_concurrency = 4
        [upstream]
        reply_timeout = 15
    """
    with run_house(tmp_path, sections=sections) as house, contextlib.ExitStack() as clients:
        may_answer = asyncio.Event()
        house.kdc.play(tcp=reply(REPLY_PAYLOAD, when=may_answer))
        first, second = house.daemon.workers
        for worker in (first, first, second, second):
            clients.enter_context(connect_to(house, worker)).send(GOOD_REQUEST)
        house.kdc.wait_for_messages(4)
        assert statuses(house, first, second, request=GOOD_REQUEST) == [429, 429]
        successor = replace(house, first)
        waiting = [clients.enter_context(connect_to(house, successor)) for _ in range(2)]
        for client in waiting:
            client.send(GOOD_REQUEST)
        house.kdc.wait_for_messages(6)
        assert reload(house)
        assert house.ask(GOOD_REQUEST).status == 429
        house.kdc.set(may_answer)
        assert [client.response().body for client in waiting] == [GOOD_REPLY, GOOD_REPLY]
        wait_until(lambda: house.ask(GOOD_REQUEST).status == 200)


# -- Health --------------------------------------------------------------------------------------------------

HEDGE_SECONDS = 1.0

UPSTREAM = f"""
    [upstream]
    hedge_delay = {HEDGE_SECONDS}
    hedge_ratio = 1
    probe_interval = {PROBE_INTERVAL}
    probe_interval_maximum = {2 * PROBE_INTERVAL}
"""


def request_of(user: str) -> bytes:
    return post(envelope(as_req(cname=(1, (user,)))))


def seconds_of(house: House, client: HttpClient, request: bytes) -> float:
    """Return the duration of a request by the log."""
    response = client.ask(request)
    assert response.body == GOOD_REPLY
    line = house.daemon.wait_for_line(lambda line: response.request_id in line)
    return float(line.partition(" ms=")[2].split()[0]) / 1000


def find_user_of(client: HttpClient, kdc: FakeKdcThread) -> str:
    """Send requests of many users until one of them uses this KDC first."""
    for number in range(64):
        before = len(kdc.messages)
        client.ask(request_of(f"user{number}"))
        if len(kdc.messages) > before:
            return f"user{number}"
    pytest.fail("no request reaches it")


def test_failure_and_recovery_that_one_worker_finds_reach_all_workers(tmp_path: Path) -> None:
    with FakeKdcThread(tcp=reply(REPLY_PAYLOAD)) as other:

        def realms(kdc: FakeKdcThread) -> str:
            kdcs = f'["tcp://127.0.0.1:{kdc.port}", "tcp://127.0.0.1:{other.port}"]'
            return f'[realms."EXAMPLE.COM"]\nkdc = {kdcs}\n'

        with run_house(tmp_path, sections=UPSTREAM, realms=realms) as house:
            first, second = house.daemon.workers
            with connect_to(house, first) as finder, connect_to(house, second) as hearer:
                request = request_of(find_user_of(finder, house.kdc))
                house.kdc.play(tcp=fake_kdc.silent())
                assert seconds_of(house, finder, request) > HEDGE_SECONDS
                assert seconds_of(house, hearer, request) < HEDGE_SECONDS / 2
                house.wait_for_event("kdc_unhealthy")
                first, second = reload(house)
            for worker in (first, second):
                with connect_to(house, worker) as client:
                    assert seconds_of(house, client, request) < HEDGE_SECONDS / 2
            states = [line["state"] for line in house.lines("kdc_unhealthy")]
            assert len(states) == len(set(states))
            house.kdc.play(tcp=reply(REPLY_PAYLOAD))
            house.wait_for_event("kdc_recovered")
            for worker in (first, second):
                with connect_to(house, worker) as client:
                    before = len(house.kdc.messages)
                    client.ask(request)
                    assert len(house.kdc.messages) > before
            assert len(house.lines("kdc_recovered")) == 1


def test_endpoint_that_is_not_configured_any_more_is_not_probed(tmp_path: Path) -> None:
    with FakeKdcThread(tcp=reply(REPLY_PAYLOAD)) as other:

        def realms(kdc: FakeKdcThread) -> str:
            kdcs = f'["tcp://127.0.0.1:{kdc.port}", "tcp://127.0.0.1:{other.port}"]'
            return f'[realms."EXAMPLE.COM"]\nkdc = {kdcs}\n'

        with run_house(tmp_path, sections=UPSTREAM, realms=realms) as house:
            house.kdc.play(tcp=fake_kdc.silent())
            with house.connect() as client:
                find_user_of(client, house.kdc)
            house.wait_for_event("kdc_unhealthy")
            house.write(house.text.replace(f'"tcp://127.0.0.1:{house.kdc.port}", ', ""))
            house.reload().expect_ok()
            wait_until(lambda: len(house.daemon.workers) == 2)
            before = house.kdc.connections
            assert house.ask().status == 200
            with pytest.raises(TimeoutError):
                wait_until(lambda: house.kdc.connections > before, timeout=20 * PROBE_INTERVAL)
