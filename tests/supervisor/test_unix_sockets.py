"""Unix listening sockets of a real daemon."""

import asyncio
import contextlib
import signal
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.program import Completed
from tests.frontends.site import GOOD_REPLY, GOOD_REQUEST
from tests.supervisor.daemons import SECONDS_TO_STOP, Start
from tests.support.fake_kdc import FakeKdcThread
from tests.support.http_client import HttpClient
from tests.support.waiting import wait_until


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


def test_unix_socket_of_a_running_process_stays(
    start: Start, tmp_path: Path, fail_to_start: Callable[..., Completed]
) -> None:
    path = tmp_path / "http.sock"
    start(f"unix:{path}")
    done = fail_to_start(f"unix:{path}")
    assert done.exit_code == 1
    assert f"can't listen on unix:{path}: Address already in use" in done.output
    with HttpClient(path) as client:
        assert client.ask(GOOD_REQUEST).body == GOOD_REPLY


def fill_backlog(client: socket.socket, path: Path) -> bool:
    """Connect, unless as many wait to be accepted as may."""
    client.setblocking(False)
    return client.connect_ex(str(path)) == 0


def test_unix_socket_of_a_process_that_hangs_stays(
    tmp_path: Path, fail_to_start: Callable[..., Completed]
) -> None:
    path = tmp_path / "http.sock"
    with contextlib.ExitStack() as stack:
        owner = stack.enter_context(socket.socket(socket.AF_UNIX))
        owner.bind(str(path))
        owner.listen(0)
        while fill_backlog(stack.enter_context(socket.socket(socket.AF_UNIX)), path):
            pass
        done = fail_to_start(f"unix:{path}")
    assert f"can't listen on unix:{path}: Address already in use" in done.output


def test_file_of_another_kind_stays(tmp_path: Path, fail_to_start: Callable[..., Completed]) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    assert fail_to_start(f"unix:{path}").exit_code == 1
    assert path.read_text() == "precious"


def test_stopping_process_leaves_the_unix_socket_of_its_successor(
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


def test_first_address_is_closed_if_the_second_cannot_be_opened(
    tmp_path: Path, fail_to_start: Callable[..., Completed]
) -> None:
    path = tmp_path / "http.sock"
    assert fail_to_start(f"unix:{path}", "192.0.2.1:4443").exit_code == 1
    assert not path.exists()
