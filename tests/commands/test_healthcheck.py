"""`kkdcpd healthcheck`: its exit code, its words, and that it is quick."""

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.cli import ExitCode, main
from kkdcpd.commands.healthcheck import TIMEOUT_SECONDS
from kkdcpd.endpoints import KdcEndpoint, Transport
from kkdcpd.metrics.counters import Counters
from kkdcpd.metrics.memory import Metrics, make_metrics
from kkdcpd.values import KdcState
from lab.namespace import NetworkNamespace
from lab.program import run
from tests.support.admin import PLAIN, forked_admin

REALMS = '[realms."EXAMPLE.COM"]\nkdc = ["tcp://192.0.2.1"]\n'
KDC = KdcEndpoint(name="192.0.2.1", address="192.0.2.1", port=88, transport=Transport.TCP)


@pytest.fixture
def metrics() -> Metrics:
    return make_metrics(1)


@pytest.fixture(params=["127.0.0.1", "*", "0.0.0.0", "[::1]", "[::]", "unix"])
def config(request: pytest.FixtureRequest, tmp_path: Path, metrics: Metrics) -> Iterator[Path]:
    """The configuration of an admin process that runs."""
    with _listen(request.param, tmp_path) as sock:
        name = sock.getsockname()
        address = f"unix:{name}" if isinstance(name, str) else f"{request.param}:{name[1]}"
        path = tmp_path / "config.toml"
        path.write_text(_settings(address))
        with forked_admin(path.read_text(), metrics, sock):
            yield path


def _listen(host: str, directory: Path) -> socket.socket:
    if host == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(directory / "admin.sock"))
        sock.listen()
        return sock
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("*[]"), 0), family=family)


def _settings(address: str) -> str:
    # This user may not read keys and tokens.
    return (
        f'{PLAIN}[tls]\nkey = "/nowhere/key.pem"\n[admin]\naddress = "{address}"\nanywhere = true\n'
        f'ready_realms = ["EXAMPLE.COM"]\n{REALMS}tokens_file = "/nowhere/tokens"\n'
    )


def test_exit_code_is_0_while_ready_and_1_with_the_reason_while_not(
    config: Path, metrics: Metrics, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["healthcheck", "--config", str(config)]
    assert main(command) == ExitCode.OK
    assert capsys.readouterr() == ("", "")
    Counters(metrics.take_row(0)).kdc_changed(KDC, KdcState.DOWN)
    assert main(command) == 1
    assert capsys.readouterr() == (
        "",
        "error: EXAMPLE.COM: all KDCs are down: tcp://192.0.2.1:88 (192.0.2.1)\n",
    )


def check(directory: Path, address: str) -> int:
    path = directory / "config.toml"
    path.write_text(_settings(address))
    return main(["healthcheck", "--config", str(path)])


REMEDY = "start it, or correct admin.address"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("", "error: admin.address is empty, so kkdcpd has no admin listener; set it\n"),
        ("127.0.0.1:1", f"error: no kkdcpd answers at 127.0.0.1:1: Connection refused; {REMEDY}\n"),
        (
            "unix:/nowhere/admin.sock",
            f"error: no kkdcpd answers at unix:/nowhere/admin.sock: No such file or directory; {REMEDY}\n",
        ),
    ],
)
def test_service_without_listener_is_not_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, words: str
) -> None:
    assert check(tmp_path, address) == 1
    assert capsys.readouterr().err == words


def test_silence_is_not_waited_for_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        assert check(tmp_path, address) == 1
    assert capsys.readouterr().err == (
        f"error: {address} doesn't answer within {TIMEOUT_SECONDS:g} s; look at the log of kkdcpd\n"
    )


def test_something_else_at_the_address_is_not_ready(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        other = threading.Thread(target=_greet, args=(sock,))
        other.start()
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        assert check(tmp_path, address) == 1
        other.join()
    assert capsys.readouterr().err == (
        f"error: another program than kkdcpd answers at {address} (BadStatusLine); correct admin.address\n"
    )


def _greet(sock: socket.socket) -> None:
    connection, _ = sock.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(b"220 mail.example.com ESMTP\r\n")


def test_ready_service_stays_ready_while_the_file_is_invalid(config: Path) -> None:
    config.write_text(f'{config.read_text()}[guard]\nnonsense = "typed into a file that is in use"\n')
    assert main(["healthcheck", "--config", str(config)]) == ExitCode.OK


@pytest.mark.parametrize("text", ["[admin]\nadress = ''\n", "[admin\n"])
def test_problems_of_the_file_are_shown_if_no_service_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    # In a network of its own, no program has the default port.
    with NetworkNamespace(tmp_path):
        assert main(["healthcheck", "--config", str(path)]) == 1
    wrong, silent = capsys.readouterr().err.splitlines()
    assert wrong.startswith(("error: admin.adress: ", f"error: {path}, line 1: "))
    assert silent == f"error: no kkdcpd answers at 127.0.0.1:9088: Connection refused; {REMEDY}"


def test_missing_configuration_is_exit_code_78(tmp_path: Path) -> None:
    assert main(["healthcheck", "--config", str(tmp_path / "config.toml")]) == ExitCode.CONFIG


def test_healthcheck_imports_no_slow_module(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(_settings("127.0.0.1:1"))
    program = (
        "import sys\nfrom kkdcpd.cli import main\n"
        f"main(['healthcheck', '--config', {str(path)!r}])\n"
        "print(sorted({'aiohttp', 'asyncio', 'dns', 'prometheus_client', 'uvloop'} & set(sys.modules)))"
    )
    done = run(sys.executable, "-c", program, environment=os.environ)
    assert done.output.splitlines()[-1] == "[]"
