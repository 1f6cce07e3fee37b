"""The life of the process: how it starts, what it holds meanwhile, how it ends."""

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.daemon import Daemon, is_exchange
from lab.program import Completed, Program, run
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD, parse_line
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.http_client import HttpClient
from tests.support.messages import as_req
from tests.support.waiting import wait_until

SECONDS_TO_STOP = 5.0
"""Less than any of the timeouts that could end a process by itself."""


@pytest.fixture
def may_answer() -> asyncio.Event:
    """Set when the KDC may answer: from the start, unless a test clears it."""
    event = asyncio.Event()
    event.set()
    return event


@pytest.fixture
def kdc(may_answer: asyncio.Event) -> Iterator[FakeKdcThread]:
    with FakeKdcThread(tcp=reply(REPLY_PAYLOAD, when=may_answer)) as running:
        yield running


def config(kdc: FakeKdcThread, *addresses: str, extra: str = "", process: str = "drain_timeout = 2\n") -> str:
    listeners = "".join(
        f'[[listen]]\naddress = "{address}"\ntls = false\nplain_http_anywhere = true\n{extra}\n'
        for address in addresses
    )
    realm = f'[realms."EXAMPLE.COM"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\n'
    return f'{listeners}{realm}[admin]\naddress = ""\n[process]\ncontrol = ""\n{process}'


Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path, kdc: FakeKdcThread) -> Iterator[Start]:
    """Start daemons, each in a folder of its own."""
    with contextlib.ExitStack() as stack:

        def start(*addresses: str, **settings: str) -> Daemon:
            folder = tmp_path / f"daemon-{len(list(tmp_path.glob('daemon-*')))}"
            return stack.enter_context(Daemon(folder, config(kdc, *addresses, **settings)))

        yield start


@pytest.fixture
def fail_to_start(tmp_path: Path, kdc: FakeKdcThread) -> Callable[..., Completed]:
    """Run a daemon that ends by itself."""

    def fail(*addresses: str) -> Completed:
        path = tmp_path / "failing.toml"
        path.write_text(config(kdc, *addresses))
        return run(sys.executable, "-m", "kkdcpd", "--config", str(path), environment=os.environ)

    return fail


def wait_until_refused(place: int | Path) -> None:
    """Wait until a daemon that ends takes no more connections."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            with contextlib.suppress(ConnectionResetError):
                HttpClient(place).socket.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_process_with_exit_code_0(start: Start, number: signal.Signals) -> None:
    daemon = start("127.0.0.1:0")
    daemon.send_signal(number)
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    assert parse_line(daemon.lines[-1])["event"] == "stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_mid_request_lets_it_finish(
    start: Start, kdc: FakeKdcThread, may_answer: asyncio.Event, number: signal.Signals
) -> None:
    may_answer.clear()
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST)
        kdc.wait_for_messages()
        daemon.send_signal(number)
        wait_until_refused(daemon.ports[0])
        kdc.set(may_answer)
        assert client.response().body == GOOD_REPLY
        assert client.is_closed_in_time()
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    (exchange,) = (parse_line(line) for line in daemon.lines if is_exchange(line))
    assert exchange["outcome"] == "answered"
    assert parse_line(daemon.lines[-1])["event"] == "stopped"


def test_second_request_on_a_connection_is_not_served_while_the_process_ends(
    start: Start, kdc: FakeKdcThread, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST)
        kdc.wait_for_messages()
        daemon.send_signal(signal.SIGTERM)
        wait_until_refused(daemon.ports[0])
        client.send(GOOD_REQUEST)
        kdc.set(may_answer)
        assert client.response().body == GOOD_REPLY
        assert client.is_closed_in_time()
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    # Not counting probes.
    assert kdc.messages.count(as_req()) == 1


def test_idle_connections_are_waited_for_as_long_as_drain_timeout(start: Start) -> None:
    daemon = start("127.0.0.1:0", process="drain_timeout = 3\n")
    with HttpClient(daemon.ports[0]) as used, HttpClient(daemon.ports[0]) as unused:
        used.ask(GOOD_REQUEST)
        daemon.send_signal(signal.SIGTERM)
        wait_until_refused(daemon.ports[0])
        response = used.ask(GOOD_REQUEST)
        assert (response.body, response.headers["connection"]) == (GOOD_REPLY, "close")
        assert used.is_closed_in_time()
        assert unused.is_closed_in_time()
        assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    cut_off = [parse_line(line) for line in daemon.lines if "drain_timed_out" in line]
    assert [line["connections"] for line in cut_off] == ["1"]


def test_half_a_head_is_waited_for(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST[:30])
        daemon.send_signal(signal.SIGTERM)
        wait_until_refused(daemon.ports[0])
        client.send(GOOD_REQUEST[30:])
        assert client.response().body == GOOD_REPLY
        assert client.is_closed_in_time()
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0


def test_second_signal_ends_at_once(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.ask(GOOD_REQUEST)
        daemon.send_signal(signal.SIGTERM)
        daemon.wait_for_line(lambda line: "stopping" in line)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=SECONDS_TO_STOP) == 0


def test_request_in_flight_is_cut_off_after_drain_timeout(
    start: Start, kdc: FakeKdcThread, may_answer: asyncio.Event
) -> None:
    may_answer.clear()
    daemon = start("127.0.0.1:0", process="drain_timeout = 1\n")
    with HttpClient(daemon.ports[0]) as client:
        client.send(GOOD_REQUEST)
        kdc.wait_for_messages()
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(timeout=SECONDS_TO_STOP) == 0
    events = [parse_line(line)["event"] for line in daemon.lines if "kdc_unhealthy" not in line]
    assert events[-4:] == ["stopping", "drain_timed_out", "exchange", "stopped"]


def test_signal_to_the_whole_group_is_one_signal(start: Start) -> None:
    """As Ctrl-C is, or what ends a container."""
    daemon = start("127.0.0.1:0")
    with HttpClient(daemon.ports[0]) as client:
        client.ask(GOOD_REQUEST)
        os.killpg(daemon.pid, signal.SIGINT)
        wait_until_refused(daemon.ports[0])
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
    assert daemon.wait(timeout=SECONDS_TO_STOP) == 0


def test_workers_end_by_themselves_when_the_parent_is_killed(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    workers = daemon.workers
    with HttpClient(daemon.ports[0]) as client:
        client.ask(GOOD_REQUEST)
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        wait_until_refused(daemon.ports[0])
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
    wait_until(lambda: not any(map(is_alive, workers)))


def is_alive(pid: int) -> bool:
    """Whether a process runs: where nobody reaps orphans, they stay as zombies."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ready_line_tells_version_addresses_and_realms(start: Start) -> None:
    daemon = start("127.0.0.1:0", "[::1]:0")
    ready = next(line for line in map(parse_line, daemon.lines) if line["event"] == "ready")
    assert ready["listen"] == f"http://127.0.0.1:{daemon.ports[0]},http://[::1]:{daemon.ports[1]}"
    assert ready["realms"] == "EXAMPLE.COM"
    assert ready["version"]


def test_warnings_of_the_configuration_are_logged(start: Start) -> None:
    first = parse_line(start("127.0.0.1:0").lines[0])
    assert (first["level"], first["event"], first["key"]) == (
        "warning",
        "check",
        'realms."EXAMPLE.COM".kpasswd',
    )


def test_star_listens_on_both_families_with_one_port(start: Start) -> None:
    daemon = start("*:0")
    assert len(daemon.ports) == 2
    assert len(set(daemon.ports)) == 1
    for host in ("127.0.0.1", "::1"):
        with HttpClient(daemon.ports[0], host=host) as client:
            assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
    exchanges = daemon.wait_for_lines(is_exchange, count=2)
    assert [parse_line(line)["client"] for line in exchanges] == ["127.0.0.1", "::1"]


def test_ipv6_address_is_listened_on(start: Start) -> None:
    with HttpClient(start("[::1]:0").ports[0], host="::1") as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


def test_all_of_ipv6_leaves_ipv4_to_others(start: Start) -> None:
    port = start("[::]:0").ports[0]
    with pytest.raises(ConnectionRefusedError):
        HttpClient(port)


def test_port_can_be_had_again_at_once(start: Start) -> None:
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


def test_unix_socket_is_removed_at_the_end(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    daemon = start(f"unix:{path}")
    with HttpClient(path) as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
    assert daemon.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize(("setting", "mode"), [("", 0o660), ('unix_mode = "0600"', 0o600)])
def test_unix_socket_has_the_mode_of_the_configuration(
    start: Start, tmp_path: Path, setting: str, mode: int
) -> None:
    path = tmp_path / "http.sock"
    start(f"unix:{path}", extra=setting)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_unix_socket_that_a_killed_process_left_is_replaced(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    start(f"unix:{path}")
    with HttpClient(path) as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


def test_unix_socket_that_is_listened_on_is_left_alone(
    start: Start, tmp_path: Path, fail_to_start: Callable[..., Completed]
) -> None:
    path = tmp_path / "http.sock"
    start(f"unix:{path}")
    done = fail_to_start(f"unix:{path}")
    assert done.exit_code == 1
    assert f"can't listen on unix:{path}: Address already in use" in done.output
    with HttpClient(path) as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


def fill_queue(client: socket.socket, path: Path) -> bool:
    """Connect, unless as many wait to be accepted as may."""
    client.setblocking(False)
    return client.connect_ex(str(path)) == 0


def test_unix_socket_whose_owner_hangs_is_left_alone(
    tmp_path: Path, fail_to_start: Callable[..., Completed]
) -> None:
    path = tmp_path / "http.sock"
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(socket.socket(socket.AF_UNIX))
        owner.bind(str(path))
        owner.listen(0)
        while fill_queue(stack.enter_context(socket.socket(socket.AF_UNIX)), path):
            pass
        done = fail_to_start(f"unix:{path}")
    assert f"can't listen on unix:{path}: Address already in use" in done.output


def test_file_that_is_no_socket_is_left_alone(
    tmp_path: Path, fail_to_start: Callable[..., Completed]
) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    assert fail_to_start(f"unix:{path}").exit_code == 1
    assert path.read_text() == "precious"


def test_process_that_ends_leaves_its_successor_s_unix_socket(
    start: Start, tmp_path: Path, kdc: FakeKdcThread, may_answer: asyncio.Event
) -> None:
    path = tmp_path / "http.sock"
    may_answer.clear()
    first = start(f"unix:{path}", process="drain_timeout = 60\n")
    with HttpClient(path) as client:
        client.send(GOOD_REQUEST)
        kdc.wait_for_messages()
        first.send_signal(signal.SIGTERM)
        first.wait_for_line(lambda line: "stopping" in line)
        wait_until(lambda: not path.exists())
        start(f"unix:{path}")
        kdc.set(may_answer)
        assert client.response().body == GOOD_REPLY
        assert first.wait(timeout=SECONDS_TO_STOP) == 0
    with HttpClient(path) as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


def test_first_address_is_let_go_when_the_second_cannot_be_had(
    tmp_path: Path, fail_to_start: Callable[..., Completed]
) -> None:
    path = tmp_path / "http.sock"
    assert fail_to_start(f"unix:{path}", "192.0.2.1:4443").exit_code == 1
    assert not path.exists()


@contextlib.contextmanager
def limited(kdc: FakeKdcThread, directory: Path, limit: str) -> Iterator[tuple[Program, int]]:
    """Run a daemon with `ulimit LIMIT`, and give its port."""
    path = directory / "limited.toml"
    path.write_text(config(kdc, "127.0.0.1:0"))
    command = f'ulimit {limit} && exec "{sys.executable}" -m kkdcpd --config "{path}"'
    with Program("kkdcpd", "sh", "-c", command, environment=os.environ) as program:
        ready = parse_line(program.wait_for_line(lambda line: " ready " in line))
        yield program, int(ready["listen"].rpartition(":")[2])


def test_limit_of_descriptors_is_raised_as_far_as_may_be(kdc: FakeKdcThread, tmp_path: Path) -> None:
    with limited(kdc, tmp_path, "-Sn 64") as (program, _port):
        soft, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        assert soft == hard > 64


def test_strangers_never_take_the_descriptors_that_kdcs_are_asked_with(
    kdc: FakeKdcThread, tmp_path: Path
) -> None:
    with limited(kdc, tmp_path, "-n 200") as (program, port), contextlib.ExitStack() as stack:
        (line,) = (
            line for line in map(parse_line, program.lines) if line.get("key") == "connections.maximum"
        )
        room = int(line["remedy"].split()[-3])
        assert (line["level"], room) == ("warning", 55)
        for _ in range(200):
            stack.enter_context(HttpClient(port))
        program.wait_for_line(lambda line: "reason=connections.maximum" in line)
        client = stack.enter_context(HttpClient(port))
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
        assert not any(re.search("accept.failed", line) for line in program.lines)


FEW_DESCRIPTORS = 13
"""Enough for the parent with one address; a worker's event loop has none left for itself."""


def test_worker_that_cannot_start_is_exit_code_4_and_a_line_that_helps(
    kdc: FakeKdcThread, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config(kdc, "127.0.0.1:0"))
    command = f'ulimit -n {FEW_DESCRIPTORS} && exec "{sys.executable}" -m kkdcpd --config "{path}"'
    done = run("sh", "-c", command, environment=os.environ)
    assert done.exit_code == 4
    assert re.search(
        r"error: can't start: worker \d ended by exit code 70; read the log lines before this one for the "
        r"cause",
        done.output,
    )
    assert "OSError (errno 24: Too many open files)" in done.output
    assert done.output.count("worker_died") == 1


def test_process_that_cannot_fork_is_exit_code_4_and_a_line_that_helps(
    kdc: FakeKdcThread, tmp_path: Path
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config(kdc, "127.0.0.1:0"))
    command = f'ulimit -n {FEW_DESCRIPTORS - 4} && exec "{sys.executable}" -m kkdcpd --config "{path}"'
    done = run("sh", "-c", command, environment=os.environ)
    assert done.exit_code == 4
    assert "error: can't start: [Errno 24] Too many open files; allow more processes" in done.output


@pytest.mark.parametrize("descriptors", [FEW_DESCRIPTORS, FEW_DESCRIPTORS - 4])
def test_reload_whose_workers_cannot_start_changes_nothing(start: Start, descriptors: int) -> None:
    daemon = start("127.0.0.1:0")
    workers = daemon.workers
    # As the kernel has it, nobody but root may give that back.
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (descriptors, descriptors))
    for count in (1, 2):
        daemon.send_signal(signal.SIGHUP)
        lines = daemon.wait_for_lines(lambda line: " reload_failed " in line, count=count)
        problem = parse_line(lines[-1])["problem"]
        assert re.search(r"ended by exit code 70|Too many open files", problem)
        wait_until(lambda: daemon.workers == workers)
        with HttpClient(daemon.ports[0]) as client:
            assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


def test_workers_that_cannot_be_replaced_now_are_replaced_later(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (5, limits[1]))
    (victim, *_others) = workers = daemon.workers
    os.kill(victim, signal.SIGKILL)
    daemon.wait_for_line(lambda line: " fork_failed " in line)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: len(set(daemon.workers) - {victim}) == len(workers), timeout=15.0)


def test_reload_that_is_asked_for_while_one_is_under_way_follows_it(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    for count in (1, 2):
        daemon.send_signal(signal.SIGHUP)
        if count == 1:
            wait_until(lambda: len(daemon.workers) > 2)
    daemon.wait_for_lines(lambda line: " reloaded " in line, count=2)


def test_change_of_a_reload_under_way_is_not_missed(start: Start, kdc: FakeKdcThread) -> None:
    """What the second one asks for is in the file only after the first one has read it."""
    daemon = start("127.0.0.1:0")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: len(daemon.workers) > 2)
    text = daemon.config.read_text()
    daemon.config.write_text(f'{text}\n[realms."SECOND.TEST"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\n')
    daemon.send_signal(signal.SIGHUP)
    lines = daemon.wait_for_lines(lambda line: " reloaded " in line, count=2)
    assert parse_line(lines[-1])["realms"] == "EXAMPLE.COM,SECOND.TEST"
