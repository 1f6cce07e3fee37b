"""Processes that cannot start, for lack of file descriptors, with a real daemon."""

import contextlib
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.supervisor.limits import MINIMUM_DESCRIPTORS
from lab.program import Completed, Program, run
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, parse_line
from tests.supervisor.daemons import Start, config
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient
from tests.support.waiting import wait_until


@contextlib.contextmanager
def limited(kdc: FakeKdcThread, directory: Path, limit: str) -> Iterator[tuple[Program, int]]:
    """Run a daemon with `ulimit LIMIT`, and give its port."""
    path = directory / "limited.toml"
    path.write_text(config(kdc, "127.0.0.1:0"))
    command = f'ulimit {limit} && exec "{sys.executable}" -m kkdcpd --config "{path}"'
    with Program("kkdcpd", "sh", "-c", command, environment=os.environ) as program:
        ready = parse_line(program.wait_for_line(lambda line: " ready " in line))
        yield program, int(ready["listen"].rpartition(":")[2])


def test_soft_limit_of_descriptors_is_raised_to_the_hard_limit(kdc: FakeKdcThread, tmp_path: Path) -> None:
    with limited(kdc, tmp_path, "-Sn 64") as (program, _port):
        soft, hard = resource.prlimit(program.pid, resource.RLIMIT_NOFILE)
        assert soft == hard > 64


def test_clients_never_use_up_the_descriptors_for_kdcs(kdc: FakeKdcThread, tmp_path: Path) -> None:
    with limited(kdc, tmp_path, "-n 200") as (program, port), contextlib.ExitStack() as stack:
        (line,) = (
            line for line in map(parse_line, program.lines) if line.get("key") == "connections.maximum"
        )
        room = int(line["remedy"].split()[-3])
        assert (line["level"], room) == ("warning", 51)
        for _ in range(200):
            stack.enter_context(HttpClient(port))
        program.wait_for_line(lambda line: "reason=connections.maximum" in line)
        client = stack.enter_context(HttpClient(port))
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
        assert not any(re.search("accept.failed", line) for line in program.lines)


FREE_DESCRIPTORS = 10
"""Enough for the parent with one address. The event loop of a worker process does not get all it needs."""

NO_DESCRIPTORS = 6
"""Too few for the channel to a child."""

OCCUPY = """
import os, resource, sys
held = [os.dup(0) for _ in range(200)]
for descriptor in held:
    os.set_inheritable(descriptor, True)
limit = held[-1] + 1 + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
os.execv(sys.executable, [sys.executable, "-m", "kkdcpd", "--config", sys.argv[2]])
"""
"""Starts kkdcpd with many inherited descriptors, so that few are free although the limit is high."""


def run_with_free_descriptors(kdc: FakeKdcThread, tmp_path: Path, free: int) -> Completed:
    path = tmp_path / "config.toml"
    path.write_text(config(kdc, "127.0.0.1:0"))
    return run(sys.executable, "-c", OCCUPY, str(free), str(path), environment=os.environ)


@pytest.mark.parametrize("free", range(FREE_DESCRIPTORS, FREE_DESCRIPTORS + 3))
def test_worker_without_free_descriptors_logs_the_limit_and_its_remedy(
    kdc: FakeKdcThread, tmp_path: Path, free: int
) -> None:
    done = run_with_free_descriptors(kdc, tmp_path, free)
    assert done.exit_code == 4
    assert re.search(r"error: can't start: worker \d ended by exit code 70; ", done.output)
    assert " error out_of_file_descriptors " in done.output
    assert "LimitNOFILE=" in done.output
    assert "Traceback" not in done.output
    assert done.output.count("worker_died") == 1


def test_process_that_cannot_fork_is_exit_code_4_and_a_line_that_helps(
    kdc: FakeKdcThread, tmp_path: Path
) -> None:
    done = run_with_free_descriptors(kdc, tmp_path, NO_DESCRIPTORS)
    assert done.exit_code == 4
    assert "error: can't start: [Errno 24] Too many open files; allow more processes" in done.output


@pytest.mark.parametrize("limit", [14, 64, MINIMUM_DESCRIPTORS - 1])
def test_limit_that_is_too_low_is_exit_code_4_and_names_the_limit_to_raise(
    kdc: FakeKdcThread, tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config(kdc, "127.0.0.1:0"))
    command = f'ulimit -n {limit} && exec "{sys.executable}" -m kkdcpd --config "{path}"'
    done = run("sh", "-c", command, environment=os.environ)
    assert done.exit_code == 4
    assert done.output.splitlines()[-1] == (
        f"error: can't start: a process may have only {limit} file descriptors; raise the limit to at least "
        f"{MINIMUM_DESCRIPTORS} (ulimit -n; systemd: LimitNOFILE=)"
    )


def test_lowest_limit_of_descriptors_serves(kdc: FakeKdcThread, tmp_path: Path) -> None:
    with limited(kdc, tmp_path, f"-n {MINIMUM_DESCRIPTORS}") as (_program, port), HttpClient(port) as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


@pytest.mark.parametrize("limit", [14, 64])
def test_reload_with_too_few_descriptors_changes_nothing(start: Start, limit: int) -> None:
    daemon = start("127.0.0.1:0")
    workers = daemon.workers
    # The kernel lets only root raise the limit again.
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (limit, limit))
    for count in (1, 2):
        daemon.send_signal(signal.SIGHUP)
        lines = daemon.wait_for_lines(lambda line: " reload_failed " in line, count=count)
        assert f"only {limit} file descriptors" in parse_line(lines[-1])["problem"]
        assert "LimitNOFILE=" in parse_line(lines[-1])["remedy"]
        wait_until(lambda: daemon.workers == workers)
        with HttpClient(daemon.ports[0]) as client:
            assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


@pytest.mark.parametrize("free", [0, 4])
def test_reload_whose_workers_cannot_start_changes_nothing(
    kdc: FakeKdcThread, tmp_path: Path, free: int
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(config(kdc, "127.0.0.1:0"))
    arguments = (sys.executable, "-c", OCCUPY, "100", str(path))
    with Program("kkdcpd", *arguments, environment=os.environ) as program:
        ready = parse_line(program.wait_for_line(lambda line: " ready " in line))
        limit = max(int(path.name) for path in Path(f"/proc/{program.pid}/fd").iterdir()) + 1 + free
        resource.prlimit(program.pid, resource.RLIMIT_NOFILE, (limit, limit))
        program.send_signal(signal.SIGHUP)
        failed = parse_line(program.wait_for_line(lambda line: " reload_failed " in line))
        assert re.search(r"ended by exit code 70|Too many open files", failed["problem"])
        assert failed["remedy"]
        with HttpClient(int(ready["listen"].rpartition(":")[2])) as client:
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
