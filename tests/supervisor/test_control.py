"""The control socket, with clients in threads of their own."""

import contextlib
import selectors
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from kkdcpd.errors import ConfigProblem
from kkdcpd.supervisor.children import handle_events
from kkdcpd.supervisor.control import MAX_CLIENTS, ControlSocket, ReloadClient, ReloadOutcome, request_reload
from tests.support.waiting import wait_until

GOOD = ReloadOutcome(is_done=True, generation=2)
BAD = ReloadOutcome(
    is_done=False,
    generation=1,
    problems=(
        ConfigProblem(key="realms", problem="are «none»", remedy="add [realms]"),
        ConfigProblem(key="tls.key", problem="no such file", remedy="correct the path"),
    ),
)


class Parent:
    def __init__(self, path: Path) -> None:
        self.selector = selectors.DefaultSelector()
        self.clients: list[ReloadClient] = []
        self.control = ControlSocket(path, self.selector, self.clients.append)
        self.threads = ThreadPoolExecutor(MAX_CLIENTS + 2)
        self.path = path

    def ask(self) -> Future[ReloadOutcome]:
        return self.threads.submit(request_reload, self.path, timeout=5.0)

    def wait_for_clients(self, count: int) -> None:
        def are_there() -> bool:
            handle_events(self.selector, 0.05)
            return len(self.clients) >= count

        wait_until(are_there)


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    parent = Parent(tmp_path / "folder" / "control.sock")
    yield parent
    parent.threads.shutdown()
    parent.selector.close()


@pytest.mark.parametrize("outcome", [GOOD, BAD])
def test_client_gets_the_outcome(parent: Parent, outcome: ReloadOutcome) -> None:
    answer = parent.ask()
    parent.wait_for_clients(1)
    parent.clients[0].answer(outcome)
    assert answer.result(5.0) == outcome
    parent.control.close()


def test_many_may_ask_at_a_time(parent: Parent) -> None:
    answers = [parent.ask() for _ in range(MAX_CLIENTS)]
    parent.wait_for_clients(MAX_CLIENTS)
    for client in parent.clients:
        client.answer(GOOD)
    assert [answer.result(5.0) for answer in answers] == [GOOD] * MAX_CLIENTS
    parent.control.close()


def test_answer_to_a_client_that_has_left_is_dropped(parent: Parent) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(parent.path))
        client.send(b"reload\n")
        parent.wait_for_clients(1)
    parent.clients[0].answer(GOOD)
    parent.control.close()


@pytest.mark.parametrize("words", [b"", b"shutdown\n", b"relo"])
def test_unknown_request_closes_the_connection(parent: Parent, words: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        client.connect(str(parent.path))
        client.send(words)
        client.shutdown(socket.SHUT_WR)
        for _ in range(2):
            handle_events(parent.selector, 0.5)
        # The parent closes with unread bytes, so the client gets a reset.
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert parent.clients == []
    parent.control.close()


def test_silent_client_gives_way_to_others(parent: Parent) -> None:
    silent = [socket.socket(socket.AF_UNIX) for _ in range(MAX_CLIENTS + 3)]
    for sock in silent:
        sock.connect(str(parent.path))
        handle_events(parent.selector, 0.5)
    answer = parent.ask()
    parent.wait_for_clients(1)
    parent.clients[0].answer(GOOD)
    assert answer.result(5.0) == GOOD
    for sock in silent:
        sock.close()
    parent.control.close()


def test_only_our_user_may_connect(parent: Parent) -> None:
    assert stat.S_IMODE(parent.path.stat().st_mode) == 0o600
    parent.control.close()


def test_close_removes_the_file_and_closes_silent_connections(parent: Parent) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5.0)
        client.connect(str(parent.path))
        handle_events(parent.selector, 0.5)
        parent.control.close()
        assert client.recv(1) == b""
    assert not parent.path.exists()
    assert not list(parent.selector.get_map())


def test_file_of_a_killed_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with selectors.DefaultSelector() as selector:
        ControlSocket(path, selector, lambda _client: None).close()


def test_socket_of_another_process_stays(parent: Parent) -> None:
    with selectors.DefaultSelector() as selector, pytest.raises(OSError, match="in use"):
        ControlSocket(parent.path, selector, lambda _client: None)
    answer = parent.ask()
    parent.wait_for_clients(1)
    parent.clients[0].answer(GOOD)
    assert answer.result(5.0) == GOOD
    parent.control.close()


def test_missing_socket_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        request_reload(tmp_path / "none.sock", timeout=1.0)


def test_missing_answer_is_an_os_error(parent: Parent) -> None:
    with pytest.raises(TimeoutError):
        request_reload(parent.path, timeout=0.1)
    parent.control.close()


def test_closed_connection_is_an_os_error(parent: Parent) -> None:
    answer = parent.ask()
    parent.wait_for_clients(1)
    parent.clients[0].socket.close()
    with pytest.raises(ConnectionResetError):
        answer.result(5.0)
    parent.control.close()
