"""The start of the service, the exit of the parent process, and the order of reloads, with a real daemon."""

import signal
from pathlib import Path

from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST, parse_line
from tests.supervisor.daemons import Start, wait_until_refused
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient
from tests.support.waiting import wait_until


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
    """Whether a process runs. Where no process reaps orphans, they stay as zombies."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_ready_line_has_version_addresses_and_realms(start: Start) -> None:
    daemon = start("127.0.0.1:0", "[::1]:0")
    ready = next(line for line in map(parse_line, daemon.lines) if line["event"] == "ready")
    assert ready["listen"] == f"http://127.0.0.1:{daemon.ports[0]},http://[::1]:{daemon.ports[1]}"
    assert ready["realms"] == "EXAMPLE.COM"
    assert ready["version"]


def test_warnings_of_the_configuration_are_logged(start: Start) -> None:
    first = parse_line(start("127.0.0.1:0").lines[0])
    assert (first["level"], first["event"], first["key"]) == (
        "warning",
        "config_warning",
        'realms."EXAMPLE.COM".kpasswd',
    )


def test_reload_that_is_asked_for_while_one_is_under_way_follows_it(start: Start) -> None:
    daemon = start("127.0.0.1:0")
    for count in (1, 2):
        daemon.send_signal(signal.SIGHUP)
        if count == 1:
            wait_until(lambda: len(daemon.workers) > 2)
    daemon.wait_for_lines(lambda line: " reloaded " in line, count=2)


def test_change_of_a_reload_under_way_is_not_missed(start: Start, kdc: FakeKdcThread) -> None:
    """The file has the change of the second reload only after the first reload has read the file."""
    daemon = start("127.0.0.1:0")
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: len(daemon.workers) > 2)
    text = daemon.config.read_text()
    daemon.config.write_text(f'{text}\n[realms."SECOND.TEST"]\nkdc = ["tcp://127.0.0.1:{kdc.port}"]\n')
    daemon.send_signal(signal.SIGHUP)
    lines = daemon.wait_for_lines(lambda line: " reloaded " in line, count=2)
    assert parse_line(lines[-1])["realms"] == "EXAMPLE.COM,SECOND.TEST"
