"""Reloads, deaths and the end, under a steady load of real clients: no request is lost."""

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.ports import free_port
from tests.frontends.site import GOOD_REQUEST
from tests.supervisor.house import House, run_house
from tests.supervisor.load import Load
from tests.support.http_client import HttpClient
from tests.support.waiting import wait_until

CERTIFICATE_SECONDS = 20.0
"""As long as a new certificate may go unnoticed, and some more on a busy machine."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with run_house(tmp_path) as running:
        yield running


def second_listener(house: House, port: int) -> str:
    return f'[[listen]]\naddress = "127.0.0.1:{port}"\n{house.text}'


def reload_by_each_way(house: House, port: int) -> None:
    """Five reloads: three that go well, with an address more and without it, and two that can't."""
    house.write(second_listener(house, port))
    assert house.hang_up()["event"] == "reloaded"
    house.write(f"{house.text}\n[nonsense")
    assert house.hang_up()["event"] == "reload_failed"
    house.write(house.text)
    house.reload().expect_ok()
    house.write(house.text.replace(str(house.pair.certificate), "/nowhere/server.pem"))
    assert house.reload().exit_code == 78
    house.write(house.text)
    assert house.hang_up()["event"] == "reloaded"


def test_invalid_file_is_logged_too(house: House) -> None:
    house.write(house.text.replace("kdc =", "kcd ="))
    done = house.reload()
    assert done.exit_code == 78
    assert "did you mean kdc?" in done.output
    assert "nothing has changed: generation 1 serves on" in done.output
    assert "did you mean kdc?" in house.wait_for_event("reload_failed")["remedy"]


def renew_certificate(house: House) -> None:
    """Overwrite the certificate with another one."""
    renewed = house.authority.issue("127.0.0.1", "localhost", file_name="renewed")
    shutil.copy(renewed.certificate, house.pair.certificate)
    shutil.copy(renewed.key, house.pair.key)


def test_twenty_reloads_and_the_end_lose_no_request(house: House) -> None:
    port = free_port(["127.0.0.1"])
    first_trust = house.trust
    with (
        Load(house.daemon.ports[0], first_trust) as load,
        Load(port, first_trust, keeping=3, single=3, may_be_refused=True) as beside,
    ):
        for _ in range(3):
            reload_by_each_way(house, port)
        after = len(house.daemon.lines)
        renew_certificate(house)
        house.daemon.wait_for_line(
            lambda line: " reloaded " in line, after=after, timeout=CERTIFICATE_SECONDS
        )
        assert house.lines("certificate_changed")
        for _ in range(4):
            assert house.hang_up()["event"] == "reloaded"
        assert load.tally.answered > 500
        load.may_be_refused = True
        house.daemon.send_signal(signal.SIGTERM)
        assert house.daemon.wait() == 0
        beside_tally, tally = beside.end(), load.end()
    assert (tally.lost, beside_tally.lost) == ([], [])
    assert beside_tally.answered
    assert len(tally.certificates) == 2
    assert len(house.lines("reloaded")) == 3 * 3 + 5
    assert len(house.lines("reload_failed")) == 3 * 2
    assert not house.lines("drain_timed_out", "worker_died", "worker_hung", "bug_in_child", "bug_in_request")


def test_killed_worker_costs_what_it_had_in_flight_and_is_replaced(house: House) -> None:
    clients, kills = 12, 3
    with Load(house.daemon.ports[0], house.trust, retries=True, keeping=clients, single=clients) as load:
        for number in range(kills):
            answered = load.tally.answered
            wait_until(lambda least=answered + 100: load.tally.answered > least)  # type: ignore[misc]
            victim = house.daemon.workers[0]
            os.kill(victim, signal.SIGKILL)
            house.daemon.wait_for_lines(lambda line: " worker_died " in line, count=number + 1)
            wait_until(lambda gone=victim: len(set(house.daemon.workers) - {gone}) == 2)  # type: ignore[misc]
        tally = load.end()
    assert tally.lost == []
    assert tally.retried <= kills * 2 * clients
    died = house.lines("worker_died")
    assert [line["reason"] for line in died] == ["signal SIGKILL"] * kills


def own_descriptors(house: House) -> int:
    """Return the number of open descriptors of the parent."""
    return sum(1 for _ in Path(f"/proc/{house.daemon.pid}/fd").iterdir())


def test_descriptors_and_processes_do_not_grow(house: House) -> None:
    assert house.ask().status == 200
    descriptors = own_descriptors(house)
    everything = house.daemon.descriptors
    for number in range(20):
        house.write(house.text if number % 3 else f"{house.text}\n[nonsense")
        house.hang_up()
    house.write(house.text)
    house.reload().expect_ok()
    assert house.ask().status == 200
    wait_until(lambda: len(house.daemon.workers) == 2)
    wait_until(lambda: own_descriptors(house) <= descriptors)
    wait_until(lambda: house.daemon.descriptors <= everything)


def test_reload_copes_with_removed_and_replaced_unix_sockets(house: House, tmp_path: Path) -> None:
    folder, away = tmp_path / "sockets", tmp_path / "away"
    theirs = folder / "http.sock"
    folder.mkdir()
    text = house.text.replace("[tls]", f'[[listen]]\naddress = "unix:{folder}/http.sock"\n[tls]', 1)
    house.write(text)
    house.reload().expect_ok()
    folder.rename(away)
    folder.touch()
    house.reload().expect_ok()
    problem = house.wait_for_event("socket_unreachable")["problem"]
    assert problem.endswith("Not a directory; a part of the path is a file: choose another path")
    after = len(house.daemon.lines)
    folder.unlink()
    folder.mkdir()
    theirs.touch(mode=0o600)
    house.reload().expect_ok()
    problem = house.wait_for_event("socket_unreachable", after=after)["problem"]
    assert problem.endswith("File exists; remove the file at this path, or choose another path")
    assert theirs.stat().st_mode & 0o777 == 0o600
    house.control.unlink()
    house.control.mkdir()
    assert house.daemon.stop() == 0
    assert house.control.is_dir()
    assert theirs.exists()


def test_reload_makes_unix_sockets_anew_whose_files_are_gone(house: House, tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    text = house.text.replace("[tls]", f'[[listen]]\naddress = "unix:{path}"\ntls = false\n[tls]', 1)
    house.write(text)
    house.reload().expect_ok()
    for remove in (Path.unlink, replace_by_a_dead_socket, Path.unlink):
        remove(path)
        remove(house.control)
        assert house.hang_up()["event"] == "reloaded"
        with HttpClient(path) as client:
            assert client.ask(GOOD_REQUEST).status == 200
        house.reload().expect_ok()
    # After a failed reload, the next reload does all of its work.
    path.unlink()
    house.write(text.replace("127.0.0.1:0", "192.0.2.1:1"))
    assert house.hang_up()["event"] == "reload_failed"
    house.write(text)
    house.reload().expect_ok()
    with HttpClient(path) as client:
        assert client.ask(GOOD_REQUEST).status == 200
    assert house.lines("socket_unreachable") == []


def replace_by_a_dead_socket(path: Path) -> None:
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (
            "socket in use",
            "stop the program that uses this path (`ss -lxp` shows it), or choose another path",
        ),
        ("file", "remove the file at this path, or choose another path"),
        ("file in its folder's place", "remove the file at this path, or choose another path"),
    ],
)
def test_control_socket_that_cannot_be_made_is_reported_with_its_remedy(
    house: House, tmp_path: Path, kind: str, remedy: str
) -> None:
    control = tmp_path / "elsewhere" / "control.sock"
    if kind == "file in its folder's place":
        control.parent.touch()
    else:
        control.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        if kind == "socket in use":
            other.bind(str(control))
            other.listen()
        elif kind == "file":
            control.touch()
        house.write(house.text.replace(str(house.control), str(control)))
        assert house.hang_up()["event"] == "reloaded"
        (line,) = (line for line in house.lines("config_warning") if line["key"] == "process.control")
    assert line["problem"].startswith(f"{control} can't be listened on: ")
    assert line["remedy"] == f"{remedy}; until then only SIGHUP reloads the configuration"


def test_pipe_in_place_of_a_file_does_not_block_the_reload(house: House) -> None:
    certificate = house.pair.certificate.read_bytes()
    for path in (house.daemon.config, house.pair.certificate):
        path.unlink()
        os.mkfifo(path)
    failed = house.hang_up()
    assert failed["event"] == "reload_failed"
    assert failed["problem"].endswith("can't be read: it is no regular file")
    assert failed["remedy"] == "put a regular file there"
    house.daemon.config.unlink()
    house.write(house.text)
    failed = house.hang_up()
    assert failed["key"] == "tls.certificate"
    assert failed["problem"].endswith("can't be read: it is no regular file")
    assert failed["remedy"] == "put a regular file there"
    assert house.ask().status == 200
    house.pair.certificate.unlink()
    house.pair.certificate.write_bytes(certificate)
    house.reload().expect_ok()
