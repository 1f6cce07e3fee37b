"""`kkdcpd reload` with a real daemon."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.cli import ExitCode, main
from kkdcpd.commands.reload import UnreachableError, reload
from lab.program import run
from tests.supervisor.house import House, run_house


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with run_house(tmp_path_factory.mktemp("reload")) as running:
        yield running


@pytest.fixture
def house(running: House) -> Iterator[House]:
    """A daemon that serves during the test, and gets its valid configuration again after the test."""
    yield running
    assert running.ask().status == 200
    running.write(running.text)


def generation(house: House) -> int:
    return int(house.lines("ready", "reloaded")[-1]["generation"])


def test_reload_reports_the_generation_that_serves(house: House) -> None:
    before = generation(house)
    done = house.reload()
    assert (done.exit_code, done.output) == (0, f"reloaded: generation {before + 1} serves\n")


def test_configuration_that_is_no_toml_is_reported_and_changes_nothing(house: House) -> None:
    before = generation(house)
    house.write(house.text + "\n[nonsense")
    done = house.reload()
    assert done.exit_code == 78
    assert done.output.startswith("error: ")
    assert "Traceback" not in done.output
    assert generation(house) == before


def test_broken_file_of_the_configuration_is_reported_by_the_daemon(house: House) -> None:
    before = generation(house)
    broken = house.daemon.config.with_name("broken.pem")
    broken.write_text("nothing")
    house.write(house.text.replace(str(house.pair.certificate), str(broken)))
    done = house.reload()
    assert done.exit_code == 78
    problem, end = done.output.splitlines()
    assert problem.startswith("error: tls.certificate: ")
    assert end == f"nothing has changed: generation {before} serves on"
    line = house.lines("reload_failed")[-1]
    assert f"error: {line['key']}: {line['problem']}; {line['remedy']}" == problem


def test_address_in_use_is_reported(house: House) -> None:
    before = generation(house)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        house.write(f'[[listen]]\naddress = "127.0.0.1:{port}"\n{house.text}')
        done = house.reload()
    assert done.exit_code == 78
    assert done.output == (
        f"error: can't listen on 127.0.0.1:{port}: Address already in use; "
        "stop the program that uses this address (`ss -ltnp` shows it), or choose another port\n"
        f"nothing has changed: generation {before} serves on\n"
    )


def test_missing_configuration_is_reported(house: House) -> None:
    house.daemon.config.rename(house.daemon.config.with_suffix(".away"))
    done = house.reload()
    house.daemon.config.with_suffix(".away").rename(house.daemon.config)
    assert done.exit_code == 78
    assert "there is no such file" in done.output


def test_without_a_socket_the_advice_is_to_start_it(house: House, tmp_path: Path) -> None:
    house.write(house.text.replace(str(house.control), str(tmp_path / "none.sock")))
    done = house.reload()
    assert done.exit_code == 4
    assert done.output == (
        f"error: no kkdcpd answers on {tmp_path}/none.sock: No such file or directory; start kkdcpd,"
        " or correct process.control if it uses another socket\n"
    )


def test_socket_file_of_an_ended_process_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "old.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    with pytest.raises(UnreachableError, match="Connection refused; a kkdcpd that has ended"):
        reload(path)


def test_file_that_is_no_socket_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(UnreachableError, match="no kkdcpd answers on"):
        reload(path)


def test_user_without_access_gets_the_advice_to_run_it_as_root(house: House) -> None:
    """A process without root's rights requests the reload."""
    code = (
        "import os, pathlib; from kkdcpd.commands.reload import UnreachableError, reload\n"
        "if not os.geteuid(): os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"try: reload(pathlib.Path({str(house.control)!r}))\n"
        "except UnreachableError as error: print(error)"
    )
    output = run(sys.executable, "-c", code, environment=os.environ).output
    assert "Permission denied; run this as root or as the user that kkdcpd runs as" in output
    assert "start" not in output


def _close_first_connection(server: socket.socket) -> None:
    server.accept()[0].close()


def test_closed_control_connection_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "busy.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        closing = threading.Thread(target=_close_first_connection, args=(server,))
        closing.start()
        with pytest.raises(UnreachableError, match="its log has the result of the reload"):
            reload(path)
        closing.join()


def test_without_a_control_socket_there_is_nothing_to_ask() -> None:
    with pytest.raises(UnreachableError, match=r"process\.control is empty"):
        reload(None)


def test_where_the_log_is_json_the_outcome_is_json(house: House) -> None:
    text = house.text + '\n[log]\nformat = "json"\n'
    assert "[log]" not in house.text
    house.write(text)
    done = house.reload()
    assert done.exit_code == 0
    line = json.loads(done.output)
    assert (line["event"], line["level"]) == ("reloaded", "info")
    house.write(text.replace(str(house.pair.certificate), "/nowhere/certificate.pem"))
    done = house.reload()
    assert done.exit_code == 78
    (problem,) = map(json.loads, done.output.splitlines())
    assert (problem["event"], problem["level"]) == ("reload_failed", "error")
    assert "there is no file /nowhere/certificate.pem" in problem["problem"]
    house.write(house.text)
    house.reload().expect_ok()


def test_control_socket_moves_with_the_configuration(house: House, tmp_path: Path) -> None:
    other = tmp_path / "other.sock"
    house.write(house.text.replace(str(house.control), str(other)))
    assert house.hang_up()["event"] == "reloaded"
    assert not house.control.exists()
    house.reload().expect_ok()
    house.write(house.text)
    assert house.hang_up()["event"] == "reloaded"
    house.reload().expect_ok()


def test_missing_configuration_is_exit_code_78(tmp_path: Path) -> None:
    assert main(["reload", "--config", str(tmp_path / "config.toml")]) == ExitCode.CONFIG
