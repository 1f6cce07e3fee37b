import dataclasses
import datetime
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.config import load_config
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.generation import Generation, Phase
from kkdcpd.supervisor.roles import ADMIN, WORKER
from lab.authority import Authority

REALM = '[realms."EXAMPLE.COM"]\nkdc = ["kdc.example.com"]\n'
LISTENERS = """
[[listen]]
address = "127.0.0.1:0"
[[listen]]
address = "[::1]:0"
[[listen]]
address = "unix:{path}"
tls = false
[tls]
certificate = "{pair.certificate}"
key = "{pair.key}"
[admin]
address = ""
[process]
workers = 3
"""


@pytest.fixture
def sockets(tmp_path: Path) -> Iterator[list[list[socket.socket]]]:
    four, six, unix = (socket.socket(family) for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX))
    four.bind(("127.0.0.1", 0))
    six.bind(("::1", 0))
    unix.bind(str(tmp_path / "http.sock"))
    yield [[four], [six], [unix]]
    for sock in (four, six, unix):
        sock.close()


@pytest.fixture
def generation(tmp_path: Path, authority: Authority, sockets: list[list[socket.socket]]) -> Generation:
    pair = authority.issue("localhost", file_name="generation")
    path = tmp_path / "config.toml"
    path.write_text(REALM + LISTENERS.format(path=tmp_path / "http.sock", pair=pair))
    loaded = load_config(path, now=datetime.datetime.now(datetime.UTC))
    return Generation.make(7, loaded, loaded.config, sockets)


def test_admin_listener_has_a_process_of_its_own(tmp_path: Path, sockets: list[list[socket.socket]]) -> None:
    path = tmp_path / "config.toml"
    listen = '[[listen]]\naddress = "127.0.0.1:0"\ntls = false\n'
    path.write_text(f'{listen}{REALM}[admin]\naddress = "[::1]:0"\n[process]\nworkers = 1\n')
    loaded = load_config(path, now=datetime.datetime.now(datetime.UTC))
    generation = Generation.make(1, loaded, loaded.config, sockets[:2])
    assert [(slot.name, slot.role) for slot in generation.slots] == [
        ("worker 1", WORKER),
        ("admin", ADMIN),
    ]


@pytest.fixture
def child() -> Iterator[Child]:
    ours, theirs = Channel.pair()
    yield Child(name="worker 1", pid=os.getpid(), channel=ours, row=0)
    ours.close()
    theirs.close()


def test_generation_has_the_workers_of_its_configuration(generation: Generation) -> None:
    assert [slot.name for slot in generation.slots] == ["worker 1", "worker 2", "worker 3"]


def test_change_of_a_file_after_it_was_read_is_noticed(generation: Generation) -> None:
    assert generation.config.tls
    generation.config.tls.certificate.touch()
    assert [generation.files.changed() for _ in range(2)] == [(), (generation.config.tls.certificate,)]


def test_generation_is_ready_when_all_its_processes_are(generation: Generation, child: Child) -> None:
    assert generation.phase is Phase.STARTING
    for slot in generation.slots:
        assert not generation.is_ready
        slot.child = child
    assert not generation.is_ready
    child.is_ready = True
    assert generation.is_ready
    assert generation.children == [child] * 3


def test_phase_has_a_start_time(generation: Generation) -> None:
    before = generation.phase_since
    time.sleep(0.01)
    generation.enter(Phase.DRAINING)
    assert generation.phase is Phase.DRAINING
    assert generation.phase_since > before


@pytest.fixture
def successor(child: Child) -> Child:
    return dataclasses.replace(child)


def test_successors_are_among_the_children(generation: Generation, child: Child, successor: Child) -> None:
    generation.slots[0].child = child
    generation.slots[0].successor = successor
    assert generation.children == [child, successor]
