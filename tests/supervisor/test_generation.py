import dataclasses
import datetime
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.config import load_config
from kkdcpd.supervisor.channel import Channel
from kkdcpd.supervisor.child import Child
from kkdcpd.supervisor.generation import (
    LONG_LIFE_SECONDS,
    NEWS_SECONDS,
    RENEWAL_SECONDS,
    RESTART_SECONDS,
    Generation,
    Phase,
    Role,
    Slot,
)
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
        ("worker 1", Role.WORKER),
        ("admin", Role.ADMIN),
    ]
    assert [listener.socket for listener in generation.admin_listeners] == sockets[1]
    assert [listener.socket for listener in generation.listeners] == sockets[0]


@pytest.fixture
def child() -> Iterator[Child]:
    ours, theirs = Channel.pair()
    yield Child(name="worker 1", pid=os.getpid(), channel=ours, row=0)
    ours.close()
    theirs.close()


def test_it_has_the_workers_and_listeners_of_its_configuration(
    generation: Generation, sockets: list[list[socket.socket]], tmp_path: Path
) -> None:
    assert [slot.name for slot in generation.slots] == ["worker 1", "worker 2", "worker 3"]
    first, second, third = generation.listeners
    assert first.url == f"https://127.0.0.1:{sockets[0][0].getsockname()[1]}"
    assert second.url == f"https://[::1]:{sockets[1][0].getsockname()[1]}"
    assert third.url == f"http+unix:{tmp_path}/http.sock"
    assert third.tls_context is None


def test_listeners_that_are_alike_have_one_tls_context(generation: Generation) -> None:
    """So that a session resumes at any of them."""
    first, second, _third = generation.listeners
    assert isinstance(first.tls_context, ssl.SSLContext)
    assert first.tls_context is second.tls_context


def test_change_of_a_file_after_it_was_read_is_noticed(generation: Generation) -> None:
    assert generation.config.tls
    generation.config.tls.certificate.touch()
    assert [generation.files.changed() for _ in range(2)] == [(), (generation.config.tls.certificate,)]


def test_it_is_ready_when_all_its_workers_are(generation: Generation, child: Child) -> None:
    assert generation.phase is Phase.STARTING
    for slot in generation.slots:
        assert not generation.is_ready
        slot.child = child
    assert not generation.is_ready
    child.is_ready = True
    assert generation.is_ready
    assert generation.children == [child] * 3


def test_phase_has_its_beginning(generation: Generation) -> None:
    before = generation.phase_since
    time.sleep(0.01)
    generation.enter(Phase.DRAINING)
    assert generation.phase is Phase.DRAINING
    assert generation.phase_since > before


def test_who_dies_again_and_again_is_replaced_later_and_later(child: Child) -> None:
    slot = Slot(name="worker 1")
    now = child.started_at + 1.0
    for pause in (*RESTART_SECONDS, RESTART_SECONDS[-1]):
        slot.child = child
        slot.child_died(child, now)
        assert slot.child is None
        assert slot.start_at == now + pause


def test_who_has_lived_long_is_replaced_at_once(child: Child) -> None:
    slot = Slot(name="worker 1", deaths=5, child=child)
    now = child.started_at + LONG_LIFE_SECONDS
    slot.child_died(child, now)
    assert slot.start_at == now


@pytest.fixture
def successor(child: Child) -> Child:
    return dataclasses.replace(child)


def test_who_has_outlived_a_crowd_is_to_have_a_successor_but_not_too_soon(
    child: Child, successor: Child
) -> None:
    slot = Slot(name="worker 1")
    now = child.started_at + RENEWAL_SECONDS
    assert slot.is_due(now)
    slot.take(child)
    assert not slot.is_due(now)
    child.load_dropped_at = now - 0.1
    assert not slot.is_due(now - 0.1)
    assert slot.is_due(now)
    # It may have another crowd by then.
    assert not slot.is_due(now + NEWS_SECONDS)
    slot.take(successor)
    assert slot.children == [child, successor]
    assert not slot.is_due(now)
    slot.change()
    assert (slot.child, slot.successor, slot.former) == (successor, None, child)
    assert slot.children == [successor, child]


def test_nobody_is_renewed_while_a_former_finishes(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=successor, former=child)
    now = successor.load_dropped_at = successor.started_at + RENEWAL_SECONDS
    assert not slot.is_due(now)
    slot.child_died(child, now)
    assert slot.is_due(now)
    assert slot.deaths == 0


def test_who_dies_is_replaced_while_a_former_finishes(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=successor, former=child)
    slot.child_died(successor, successor.started_at)
    assert slot.is_due(slot.start_at)
    assert slot.children == [child]


def test_successor_that_dies_is_tried_again_later(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=child, successor=successor, deaths=1)
    now = child.started_at + RENEWAL_SECONDS
    child.load_dropped_at = now + RESTART_SECONDS[1]
    slot.child_died(successor, now)
    assert slot.child is child
    assert slot.successor is None
    assert not slot.is_due(now)
    assert slot.is_due(now + RESTART_SECONDS[1])


def test_who_dies_while_a_successor_starts_leaves_it_the_place(child: Child, successor: Child) -> None:
    slot = Slot(name="worker 1", child=child, successor=successor)
    slot.child_died(child, child.started_at)
    assert slot.child is successor
    assert slot.successor is None


def test_successors_are_among_the_children(generation: Generation, child: Child, successor: Child) -> None:
    generation.slots[0].child = child
    generation.slots[0].successor = successor
    assert generation.children == [child, successor]
