"""`kkdcpd reload` and the daemon that it asks."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.cli import ExitCode, main
from kkdcpd.commands.reload import NobodyThereError, reload
from tests.supervisor.house import House, run_house


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with run_house(tmp_path_factory.mktemp("reload")) as running:
        yield running


@pytest.fixture
def house(running: House) -> Iterator[House]:
    """One that has its good configuration again after the test, and serves all the time."""
    yield running
    assert running.ask().status == 200
    running.write(running.text)


def generation(house: House) -> int:
    return int(house.lines("ready", "reloaded")[-1]["generation"])


def test_good_one_says_which_generation_serves(house: House) -> None:
    before = generation(house)
    done = house.reload()
    assert (done.exit_code, done.output) == (0, f"reloaded: generation {before + 1} serves\n")


def test_configuration_that_is_no_toml_is_told_and_changes_nothing(house: House) -> None:
    before = generation(house)
    house.write(house.text + "\n[nonsense")
    done = house.reload()
    assert done.exit_code == 78
    assert done.output.startswith("error: ")
    assert "Traceback" not in done.output
    assert generation(house) == before


def test_broken_file_that_it_names_is_told_by_the_daemon(house: House) -> None:
    before = generation(house)
    broken = house.daemon.config.with_name("broken.pem")
    broken.write_text("nothing")
    house.write(house.text.replace(str(house.pair.certificate), str(broken)))
    done = house.reload()
    assert done.exit_code == 78
    problem, end = done.output.splitlines()
    assert problem.startswith("error: tls.certificate: ")
    assert end == f"nothing has changed: generation {before} serves on"
    assert house.lines("reload_failed")[-1]["problem"] == problem.removeprefix("error: ")


def test_address_in_use_is_told(house: House) -> None:
    before = generation(house)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        house.write(f'[[listen]]\naddress = "127.0.0.1:{port}"\n{house.text}')
        done = house.reload()
    assert done.exit_code == 78
    assert done.output == (
        f"error: can't listen on 127.0.0.1:{port}: Address already in use; stop the program that has it "
        "(`ss -ltnp` names it), or choose another port\n"
        f"nothing has changed: generation {before} serves on\n"
    )


def test_configuration_that_is_not_there_is_told(house: House) -> None:
    house.daemon.config.rename(house.daemon.config.with_suffix(".away"))
    done = house.reload()
    house.daemon.config.with_suffix(".away").rename(house.daemon.config)
    assert done.exit_code == 78
    assert "there is no such file" in done.output


def test_nobody_there_is_exit_code_4(house: House, tmp_path: Path) -> None:
    house.write(house.text.replace(str(house.control), str(tmp_path / "none.sock")))
    done = house.reload()
    assert done.exit_code == 4
    assert done.output == (
        f"error: no kkdcpd answers on {tmp_path}/none.sock: No such file or directory; start it, or correct"
        " process.control, or send SIGHUP to its first process\n"
    )


def test_without_a_control_socket_there_is_nobody_to_ask() -> None:
    with pytest.raises(NobodyThereError, match=r"process\.control is empty"):
        reload(None)


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
