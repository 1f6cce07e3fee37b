"""The log of a real kkdcpd: without a reader, with a reader that leaves, and with hidden names."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.config import LogConfig
from kkdcpd.log.principals import Principals
from lab.realm import MitRealm
from tests.frontends.site import parse_line
from tests.interop.conftest import REALM, ForwarderMaker, FrontMaker
from tests.interop.test_guard_failures import GUESSES, Place, guess
from tests.support.http_client import HttpClient, post
from tests.support.messages import as_req, envelope

PATIENCE_SECONDS = 30.0
UNSERVED = post(envelope(as_req(), "OTHER.TEST"))
ATTACKER = "127.0.0.66"
KEY = "0123456789abcdef0123456789abcdef"


class Unread:
    """A kkdcpd with a small pipe as its standard output, which only the test reads."""

    def __init__(self, directory: Path) -> None:
        config = directory / "config.toml"
        config.write_text(
            "[process]\nworkers = 1\n"  # each process counts its lost lines
            '[[listen]]\naddress = "127.0.0.1:0"\ntls = false\n'
            '[realms."EXAMPLE.COM"]\nkdc = ["127.0.0.1:9"]\nkpasswd = ["127.0.0.1:9"]\n'
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kkdcpd", "--config", str(config)], stdout=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdout
        self.reader = self.process.stdout.fileno()
        self.port = self._port_when_ready()
        fcntl.fcntl(self.reader, fcntl.F_SETPIPE_SZ, 4096)

    def _port_when_ready(self) -> int:
        data = b""
        while b" ready " not in data or not data.endswith(b"\n"):
            chunk = os.read(self.reader, 4096)
            assert chunk, data
            data += chunk
        (ready,) = (line for line in map(parse_line, data.decode().splitlines()) if line["event"] == "ready")
        return int(ready["listen"].rpartition(":")[2])

    def ask(self, count: int) -> None:
        with HttpClient(self.port) as client:
            for _ in range(count):
                assert client.ask(UNSERVED).status == 503

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[Unread]:
    daemon = Unread(tmp_path)
    yield daemon
    daemon.process.kill()
    daemon.process.wait(PATIENCE_SECONDS)
    assert daemon.process.stdout
    daemon.process.stdout.close()


def test_log_without_a_reader_stops_nothing(unread: Unread) -> None:
    unread.ask(100)
    data = os.read(unread.reader, 65536)
    unread.ask(1)
    while not data.endswith(b"\n") or _logged_exchanges(data) < 101:
        data += os.read(unread.reader, 65536)
    lines = [parse_line(line) for line in data.decode().splitlines()]
    assert _logged_exchanges(data) == 101
    assert {line["event"] for line in lines} == {"exchange", "lines_lost"}
    assert lines[-1]["event"] == "exchange"
    assert unread.stop() == 0


def _logged_exchanges(data: bytes) -> int:
    """Return the number of exchanges in the lines and in the counts of lost lines."""
    lines = map(parse_line, data.decode().splitlines())
    return sum(int(line["count"]) if line["event"] == "lines_lost" else 1 for line in lines)


def test_daemon_ends_without_a_reader_of_its_log(unread: Unread) -> None:
    unread.ask(100)
    assert unread.stop() == 0


def test_reader_that_leaves_stops_nothing(unread: Unread) -> None:
    unread.ask(1)
    assert unread.process.stdout
    unread.process.stdout.close()
    unread.ask(10)
    assert unread.stop() == 0


def test_standard_output_that_is_closed_stops_nothing(tmp_path: Path) -> None:
    """The descriptor's number is free then, and no connection may get the log."""
    config = tmp_path / "config.toml"
    path = tmp_path / "http.sock"
    config.write_text(
        f'[[listen]]\naddress = "unix:{path}"\ntls = false\n[realms."EXAMPLE.COM"]\nkdc = ["127.0.0.1:9"]\n'
    )
    command = f'exec "{sys.executable}" -m kkdcpd --config "{config}" >&-'
    process = subprocess.Popen(["/bin/sh", "-c", command])
    try:
        for _ in range(300):
            if path.exists():
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
    finally:
        process.kill()
        process.wait(PATIENCE_SECONDS)


@pytest.fixture
def hashing(
    tmp_path: Path, guarded: MitRealm, make_front: FrontMaker, make_forwarder: ForwarderMaker
) -> Place:
    key = tmp_path / "principals.key"
    key.write_text(f"{KEY}\n")
    key.chmod(0o600)
    site = make_front(guarded, sections=f'[log]\nprincipals = "hashed"\nprincipals_key_file = "{key}"')
    return Place(site=site, forwarder=make_forwarder(site))


def test_hashed_names_are_equal_in_all_lines_and_processes(hashing: Place) -> None:
    hashing.send_all([guess("alice")] * GUESSES, ATTACKER)
    hashing.send_all([guess("ALICE")], ATTACKER)
    names = {line["cname"] for line in hashing.lines_of(ATTACKER)}
    ours = Principals(LogConfig(principals="hashed", principals_key=KEY.encode()))
    assert names == {ours.hide({"realm": REALM, "cname": "alice"})["cname"]}
    (blocked,) = hashing.warnings()
    assert blocked.endswith(f"cname={names.pop()}")
    assert not any("alice" in line.lower() for line in hashing.site.daemon.lines)


def test_repeated_events_of_clients_are_summed(guarded: MitRealm, make_front: FrontMaker) -> None:
    """The daemon logs held back lines when it ends."""
    site = make_front(guarded, sections="[process]\nworkers = 1")  # each process sums its own lines
    for _ in range(5):
        with contextlib.suppress(ConnectionError), HttpClient(site.daemon.ports[0]) as plain:
            plain.send(b"GET / HTTP/1.0\r\n\r\n")
    site.all_exchanges()
    assert site.daemon.stop() == 0
    lines = map(parse_line, site.daemon.lines)
    events = [line for line in lines if line["event"] == "tls_handshake_failed"]
    assert [line.get("count") for line in events] == [None, "4"]
    assert {line["reason"] for line in events} == {"HTTP_REQUEST"}
