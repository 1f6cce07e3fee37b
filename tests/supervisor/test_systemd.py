"""The interface to systemd, with systemd's socket activation and a real notify socket."""

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kkdcpd.errors import ConfigError
from kkdcpd.supervisor.systemd import Notifier, take_sockets, watchdog_interval
from lab.ports import free_port
from lab.program import Program
from tests.frontends.site import GOOD_BODY, GOOD_REPLY, GOOD_REQUEST, REPLY_PAYLOAD, parse_line
from tests.supervisor.house import House, run_house
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.http_client import HttpClient, post
from tests.support.waiting import wait_until

WATCHDOG_SECONDS = 1.0


class ServiceManager:
    """A notify socket, and its received messages."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(10.0)
        self.socket.bind(address)
        self.messages: list[dict[str, str]] = []

    def wait_for(self, key: str, *, after: int = 0) -> dict[str, str]:
        """Wait for a message with this key after the first `after` messages."""
        while True:
            for message in self.messages[after:]:
                if key in message:
                    return message
            text = self.socket.recv(65536).decode()
            self.messages.append(dict(line.split("=", 1) for line in text.split("\n")))

    def listen_until_silence(self) -> None:
        for _ in range(100):
            self.socket.recv(65536)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(str(tmp_path / "notify.sock"))
    yield manager
    manager.socket.close()


@pytest.fixture
def house(tmp_path: Path, manager: ServiceManager) -> Iterator[House]:
    environment = {
        "NOTIFY_SOCKET": manager.socket.getsockname(),
        "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1e6)),
    }
    with run_house(tmp_path, environment=environment) as running:
        yield running


def test_service_manager_is_notified_of_every_state(house: House, manager: ServiceManager) -> None:
    ready = manager.wait_for("READY")
    assert ready == {"READY": "1", "STATUS": "generation 1 serves; workers: 2, realms: 1"}

    count = len(manager.messages)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert house.hang_up()["event"] == "reloaded"
    reloading = manager.wait_for("RELOADING", after=count)
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    ready = manager.wait_for("READY", after=count)
    assert manager.messages.index(ready) > manager.messages.index(reloading)
    assert ready["STATUS"] == "generation 2 serves; workers: 2, realms: 1"

    count = len(manager.messages)
    house.write("nonsense")
    assert house.hang_up()["event"] == "reload_failed"
    assert manager.wait_for("READY", after=count)["STATUS"].endswith("; the last reload failed")

    house.daemon.send_signal(signal.SIGTERM)
    assert manager.wait_for("STOPPING")["STOPPING"] == "1"
    assert house.daemon.wait() == 0


def test_watchdog_is_notified_in_time_and_not_while_the_parent_hangs(
    house: House, manager: ServiceManager
) -> None:
    manager.wait_for("READY")
    for _ in range(4):
        count = len(manager.messages)
        started = time.monotonic()
        manager.wait_for("WATCHDOG", after=count)
        assert time.monotonic() - started < WATCHDOG_SECONDS
    house.daemon.send_signal(signal.SIGSTOP)
    try:
        manager.socket.settimeout(WATCHDOG_SECONDS)
        with pytest.raises(TimeoutError):
            manager.listen_until_silence()
    finally:
        house.daemon.send_signal(signal.SIGCONT)


def test_without_a_watchdog_there_is_no_word_to_it(tmp_path: Path, manager: ServiceManager) -> None:
    with run_house(tmp_path, environment={"NOTIFY_SOCKET": manager.socket.getsockname()}):
        manager.wait_for("READY")
        manager.socket.settimeout(1.5)
        with pytest.raises(TimeoutError):
            manager.wait_for("WATCHDOG")


def test_abstract_address_is_spoken_to() -> None:
    name = f"kkdcpd-test-{os.getpid()}"
    manager = ServiceManager(f"\0{name}")
    environment = {"NOTIFY_SOCKET": f"@{name}"}
    notifier = Notifier.from_environment(environment)
    notifier.stopping("all is well")
    assert manager.wait_for("STATUS") == {"STOPPING": "1", "STATUS": "all is well"}
    assert environment == {}
    notifier.close()
    notifier.alive()
    manager.socket.close()


def test_service_manager_that_is_gone_or_does_not_read_does_no_harm(manager: ServiceManager) -> None:
    notifier = Notifier(manager.socket.getsockname())
    for _ in range(2000):
        notifier.alive()
    manager.socket.close()
    notifier.alive()
    notifier.close()
    Notifier(None).alive()


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_interval_of_the_watchdog(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environment) == seconds
    assert environment == {}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1", "LISTEN_PID": "1"},
        {"LISTEN_FDS": "x", "LISTEN_PID": str(os.getpid())},
    ],
)
def test_sockets_for_another_process_are_not_taken(environment: dict[str, str]) -> None:
    assert take_sockets(environment) == []
    assert environment == {}


@contextlib.contextmanager
def activated(directory: Path, *sockets: str, listen: str) -> Iterator[tuple[Program, Path]]:
    """Start a kkdcpd by systemd-socket-activate with these sockets."""
    with FakeKdcThread(tcp=reply(REPLY_PAYLOAD)) as kdc:
        path = directory / "config.toml"
        path.write_text(
            f"""
                {listen}
                [realms."EXAMPLE.COM"]
                kdc = ["tcp://127.0.0.1:{kdc.port}"]
                [admin]
                address = ""
                [process]
                workers = 2
                control = ""
            """
        )
        with Program(
            "kkdcpd by systemd-socket-activate",
            "systemd-socket-activate",
            *(f"--listen={address}" for address in sockets),
            *(sys.executable, "-m", "kkdcpd", "--config", str(path)),
            environment=os.environ,
        ) as program:
            yield program, path


def first_client(place: int | Path) -> HttpClient:
    """Connect as soon as a socket listens, which starts kkdcpd."""
    clients: list[HttpClient] = []

    def is_connected() -> bool:
        with contextlib.suppress(OSError):
            clients.append(HttpClient(place))
        return bool(clients)

    wait_until(is_connected)
    return clients[0]


PLAIN = '[[listen]]\naddress = "{}"\ntls = false\n'


def test_client_that_wakes_us_up_is_served_and_reloads_keep_the_sockets(tmp_path: Path) -> None:
    port, unix = free_port(["127.0.0.1"]), tmp_path / "http.sock"
    listen = PLAIN.format(f"127.0.0.1:{port}") + PLAIN.format(f"unix:{unix}")
    with activated(tmp_path, f"127.0.0.1:{port}", str(unix), listen=listen) as (program, _path):
        with first_client(port) as client:
            assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
        program.send_signal(signal.SIGHUP)
        program.wait_for_line(lambda line: " reloaded " in line)
        for place in (port, unix):
            with HttpClient(place) as client:
                assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
        assert program.stop() == 0
        # systemd owns the socket, and listens on.
        assert unix.exists()
        assert not any("socket_unclaimed" in line for line in program.lines)


def test_socket_without_a_listener_is_logged_until_it_has_one(tmp_path: Path) -> None:
    port, other = free_port(["127.0.0.1"]), free_port(["127.0.0.1"])
    listen = PLAIN.format(f"127.0.0.1:{port}")
    with activated(tmp_path, f"127.0.0.1:{port}", f"127.0.0.1:{other}", listen=listen) as (program, path):
        with first_client(port) as client:
            assert client.ask(GOOD_REQUEST).body == GOOD_REPLY
        line = parse_line(program.wait_for_line(lambda line: "socket_unclaimed" in line))
        assert (line["level"], line["address"]) == ("error", f"127.0.0.1:{other}")
        assert "no [[listen]] has this address" in line["advice"]
        # A client that connected in the meantime has waited.
        with HttpClient(other) as early:
            early.send(GOOD_REQUEST)
            path.write_text(PLAIN.format(f"127.0.0.1:{other}") + path.read_text())
            program.send_signal(signal.SIGHUP)
            assert early.response().body == GOOD_REPLY
        assert sum("socket_unclaimed" in line for line in program.lines) == 1


def passed_by_systemd(directory: Path, *arguments: str, listen: str = "*:0") -> Program:
    """Start a kkdcpd by systemd-socket-activate with these arguments."""
    path = directory / "config.toml"
    path.write_text(
        PLAIN.format(listen)
        + 'plain_http_anywhere = true\n[realms."EXAMPLE.COM"]\nkdc = ["192.0.2.1"]\n'
        + '[admin]\naddress = ""\n[process]\ncontrol = ""\n'
    )
    return Program(
        "kkdcpd by systemd-socket-activate",
        *("systemd-socket-activate", *arguments, sys.executable, "-m", "kkdcpd", "--config", str(path)),
        environment=os.environ,
    )


@pytest.mark.parametrize(
    ("options", "unit", "problem", "remedy"),
    [
        (
            ["--datagram"],
            "the .socket unit",
            "systemd passed a datagram socket",
            "write ListenStream= in place of ListenDatagram=",
        ),
        (
            ["--seqpacket"],
            "the .socket unit",
            "systemd passed a socket for sequential packets",
            "write ListenStream= in place of ListenSequentialPacket=",
        ),
        (
            ["--fdname=kkdcpd.socket", "--datagram"],
            "kkdcpd.socket",
            "systemd passed a datagram socket",
            "write ListenStream= in place of ListenDatagram=",
        ),
    ],
)
def test_socket_of_a_wrong_type_is_refused_at_start_with_the_line_to_change(
    tmp_path: Path, options: list[str], unit: str, problem: str, remedy: str
) -> None:
    path = tmp_path / "given.sock"
    with passed_by_systemd(tmp_path, *options, f"--listen={path}") as program:
        kind = socket.SOCK_SEQPACKET if "--seqpacket" in options else socket.SOCK_DGRAM
        with socket.socket(socket.AF_UNIX, kind) as client:
            wait_until(
                lambda: client.connect_ex(str(path)) == 0
            )  # The file exists before the socket listens.
            if kind is socket.SOCK_DGRAM:
                client.send(b"wake up")
            # No restart mends a unit: systemd must not try again.
            assert program.wait() == 78
    assert program.lines[-1] == f"error: {unit}: {problem}; {remedy}"


def test_connection_in_place_of_a_socket_is_refused_at_start(tmp_path: Path) -> None:
    """Accept=yes starts a process for each connection."""
    port = free_port(["127.0.0.1"])
    with (
        passed_by_systemd(tmp_path, "--accept", f"--listen=127.0.0.1:{port}") as program,
        first_client(port),
    ):
        line = program.wait_for_line(lambda line: line.startswith("error: "))
    assert line == (
        "error: the .socket unit: systemd passed a connection in place of a listening socket; write Accept=no"
    )


def refusal_of(descriptor: int) -> str:
    """Return the refusal of a descriptor that systemd passes to a process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(descriptor, 3)
        code = 1
        try:
            take_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
        except ConfigError as error:
            os.write(writing, str(error).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:  # noqa: PTH123 - a descriptor
        text = pipe.read().decode()
    os.waitpid(pid, 0)
    return text


def test_descriptors_of_every_other_kind_are_refused_with_the_line_to_change(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        os.mkfifo(tmp_path / "fifo")
        fifo = os.open(tmp_path / "fifo", os.O_RDWR)
        stack.callback(os.close, fifo)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0kkdcpd-test-{os.getpid()}")
        abstract.listen()
        bound = stack.enter_context(socket.socket())
        bound.bind(("127.0.0.1", 0))
        netlink = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
        notified = {
            kind: refusal_of(descriptor)
            for kind, descriptor in (
                ("fifo", fifo),
                ("abstract", abstract.fileno()),
                ("bound", bound.fileno()),
                ("netlink", netlink.fileno()),
            )
        }
    start = "the .socket unit: systemd passed "
    assert notified == {
        "fifo": f"{start}a descriptor that is not a socket; remove ListenFIFO=, ListenSpecial=, "
        "ListenMessageQueue= and ListenUSBFunction=",
        "abstract": f"{start}a UNIX socket in the abstract namespace; "
        "write an IP address and a port, or an absolute path, after ListenStream=",
        "bound": f"{start}a socket that does not listen; write ListenStream=",
        "netlink": f"{start}a netlink socket; remove ListenNetlink=",
    }


def test_dual_stack_socket_shows_ipv4_addresses_of_ipv4_clients(tmp_path: Path) -> None:
    """BindIPv6Only=default: the kernel shows 127.0.0.1 as ::ffff:127.0.0.1."""
    port = free_port(["::"])
    listen = f"""
        [connections]
        trusted_proxies = ["127.0.0.1"]
        [[listen]]
        address = "*:{port}"
        tls = false
        plain_http_anywhere = true
        proxy_protocol = true
    """
    header = b"PROXY TCP4 192.0.2.7 127.0.0.1 5555 443\r\n"
    with activated(tmp_path, f"[::]:{port}", listen=listen) as (program, _path):
        with first_client(port) as client:
            assert client.ask(header + GOOD_REQUEST).body == GOOD_REPLY
        line = parse_line(program.wait_for_line(lambda line: " exchange " in line))
        assert (line["client"], line["proxy"]) == ("192.0.2.7", "127.0.0.1")
        # 127.0.0.9 is no trusted proxy.
        with socket.create_connection(("127.0.0.1", port), 10, ("127.0.0.9", 0)) as stranger:
            assert stranger.recv(1) == b""
        line = parse_line(program.wait_for_line(lambda line: "connections_refused" in line))
        assert (line["client"], line["reason"]) == ("127.0.0.9", "no trusted proxy")


@pytest.mark.parametrize("trusted", ["127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:0/104"])
def test_dual_stack_socket_believes_a_trusted_proxy_s_header(tmp_path: Path, trusted: str) -> None:
    port = free_port(["::"])
    listen = f"""
        [connections]
        trusted_proxies = ["{trusted}"]
        forwarded = "x-forwarded-for"
        {PLAIN.format(f"[::]:{port}")}
        plain_http_anywhere = true
    """
    request = post(GOOD_BODY, "X-Forwarded-For: ::ffff:192.0.2.7")
    with activated(tmp_path, f"[::]:{port}", listen=listen) as (program, _path), first_client(port) as client:
        assert client.ask(request).body == GOOD_REPLY
        line = parse_line(program.wait_for_line(lambda line: " exchange " in line))
    assert (line["client"], line["proxy"]) == ("192.0.2.7", "127.0.0.1")
