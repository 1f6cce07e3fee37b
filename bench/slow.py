"""Measures a good client beside two thousand slow connections.

`python -m bench.slow` runs a real kkdcpd with default settings and a KDC that answers at once. Attackers
connect within some seconds, hold as many connections as they get, and reconnect when kkdcpd closes a
connection. They use an address for each connection, or one address for all. One client sends requests
continuously, each over a new TLS connection, as MIT's client does. Limits exist for its p99, for the largest
memory and for the memory after the attack.
"""

import argparse
import asyncio
import contextlib
import enum
import multiprocessing
import os
import resource
import socket
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop

from lab.authority import Authority
from lab.daemon import Daemon
from tests.support.fake_kdc import FakeKdc, reply
from tests.support.http_client import HttpClient, post
from tests.support.messages import as_req, envelope, krb_error

__all__ = [
    "BIG_REALM",
    "BIG_REPLY",
    "Attack",
    "attack_once",
    "raise_descriptor_limit",
    "run",
]

CONNECTIONS = 2000
SECONDS = 30.0
"""Long enough that kkdcpd closes each attacker's connection twice."""

REST_SECONDS = 15.0
"""After an attack: longer than any timeout."""

RAMP_SECONDS = 10.0
"""The duration of a slow connection. The attack tests slowness, not the rate of handshakes."""

COME_BACK_SECONDS = 1.0
PROCESSES = 2
DESCRIPTORS = 20000
ATTACKERS_NICE, OUR_NICE = 19, -10
PATIENCE_SECONDS = 30.0
WARM_UP_REQUESTS = 200
PAUSE_SECONDS = 0.05
P99_LIMIT_SECONDS = 1.0

MEGABYTES_LIMIT = 740
"""Limits of memory. Two workers hold 128 MiB each of bodies and replies (frontends.connection). The heap
takes up to 1.4 times as much when connections are closed and opened again. A connection takes up to 190 KiB,
with its TLS and its part of the heap."""

KEPT_LIMIT, KEPT_MEGABYTES = 0.67, 10
"""The part of the growth that kkdcpd may keep after an attack, and a negligible growth. The next attack
reuses the kept memory."""

DRIP_SECONDS = 1.0
BODY_BYTES = 262144
BIG_REALM = "BIG.TEST"
REQUEST = post(envelope(as_req()))
BIG_REQUEST = post(envelope(as_req(realm=BIG_REALM), BIG_REALM))
REPLY = krb_error(25)
BIG_REPLY = krb_error(25, data=bytes(120_000))
"""The largest ticket of Windows."""

SMALL_BUFFER = 4096


class Attack(enum.Enum):
    """The kinds of attackers, and their speed."""

    CONNECTS = "silent connections"
    HANDSHAKES = "TLS handshakes"
    HEADS = "heads"
    BODIES = "bodies"
    BIG_BODIES = "long bodies"
    READERS = "readers"
    IDLERS = "idle after a request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The target, the number of connections, and their addresses: `first` is None for a single address."""

    port: int
    connections: int
    first: int | None
    ramp_seconds: float = RAMP_SECONDS


def raise_descriptor_limit() -> None:
    """Let this process open as many connections as it needs."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))


async def _besiege(attack: Attack, target: Target, seconds: float) -> None:
    # uvloop would log each interrupted handshake.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            for number in range(target.connections):
                address = "127.9.9.9" if target.first is None else _address(target.first + number)
                delay = target.ramp_seconds * number / target.connections
                tasks.create_task(_persist(attack, target.port, address, delay), name=f"attacker {address}")


def _address(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


async def _persist(attack: Attack, port: int, address: str, delay: float) -> None:
    await asyncio.sleep(delay)
    while True:
        with contextlib.suppress(OSError):
            await attack_once(attack, port, address)
        await asyncio.sleep(COME_BACK_SECONDS)


async def attack_once(attack: Attack, port: int, address: str) -> None:
    """Hold one connection until kkdcpd closes it.

    Raises:
        OSError: kkdcpd did not accept the connection or the TLS handshake.
    """
    reader, writer = await _open(attack, port, address)
    try:
        with contextlib.suppress(OSError):
            await _go_slow(attack, reader, writer)
    finally:
        writer.transport.abort()


async def _open(attack: Attack, port: int, address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    if attack is Attack.READERS:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    try:
        sock.bind((address, 0))
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        tls = None if attack in {Attack.CONNECTS, Attack.HANDSHAKES} else _careless()
        return await asyncio.open_connection(
            sock=sock, ssl=tls, server_hostname="127.0.0.1" if tls else None, limit=SMALL_BUFFER
        )
    except BaseException:
        sock.close()
        raise


async def _go_slow(attack: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    match attack:
        case Attack.HANDSHAKES:
            await _drip(reader, writer, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"\x03")
        case Attack.HEADS:
            await _drip(reader, writer, b"POST /KdcProxy HTTP/1.1\r\nX: ")
        case Attack.BODIES:
            await _drip(reader, writer, post(bytes(BODY_BYTES))[: -BODY_BYTES + 2])
        case Attack.BIG_BODIES:
            await _drip(reader, writer, post(bytes(BODY_BYTES))[:-BODY_BYTES], bytes(BODY_BYTES // 11))
        case Attack.READERS:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(BIG_REQUEST)
            await _until_gone(writer)
        case Attack.IDLERS:
            writer.write(REQUEST)
            await reader.read()
        case Attack.CONNECTS:
            await reader.read()


async def _drip(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, start: bytes, drop: bytes = b"a"
) -> None:
    """Send the start, then single bytes, until the server closes."""
    writer.write(start)
    while not reader.at_eof() and not writer.transport.is_closing():
        writer.write(drop)
        await asyncio.sleep(DRIP_SECONDS)


async def _until_gone(writer: asyncio.StreamWriter) -> None:
    """Do not read. A client that does not read notices the end only when it writes."""
    while not writer.transport.is_closing():
        writer.write(b"\r\n")
        await asyncio.sleep(DRIP_SECONDS)


_contexts: list[ssl.SSLContext] = []


def _careless() -> ssl.SSLContext:
    """Attackers check no certificate, to save time."""
    if not _contexts:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        _contexts.append(context)
    return _contexts[0]


def _besiege_in_process(attack: Attack, target: Target, seconds: float) -> None:
    raise_descriptor_limit()
    # Real attackers have their own hosts, so they must not take CPU time from kkdcpd.
    os.setpriority(os.PRIO_PROCESS, 0, ATTACKERS_NICE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_besiege(attack, target, seconds))


async def _reply_for_ever(ports: Connection) -> None:
    async with FakeKdc(tcp=reply(REPLY)) as kdc, FakeKdc(tcp=reply(BIG_REPLY)) as big_kdc:
        ports.send((kdc.port, big_kdc.port))
        await asyncio.Event().wait()


def _reply_in_process(ports: Connection) -> None:
    raise_descriptor_limit()
    _prefer(os.getpid())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_reply_for_ever(ports))


@contextlib.contextmanager
def _kdcs() -> Iterator[tuple[int, int]]:
    """Run the KDCs in another process; yield their ports."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_reply_in_process, args=(theirs,))
    process.start()
    try:
        assert ours.poll(PATIENCE_SECONDS)
        yield ours.recv()
    finally:
        process.kill()
        process.join()


@contextlib.contextmanager
def _under_attack(attack: Attack, target: Target, seconds: float) -> Iterator[None]:
    """Attack from several processes."""
    spawn = multiprocessing.get_context("spawn")
    share = target.connections // PROCESSES
    processes = [
        spawn.Process(
            target=_besiege_in_process,
            args=(
                attack,
                Target(
                    port=target.port,
                    connections=share,
                    first=None if target.first is None else target.first + share * number,
                ),
                seconds,
            ),
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.join(seconds + PATIENCE_SECONDS)
            if process.is_alive():
                process.kill()


@dataclass(slots=True, kw_only=True)
class Measurement:
    """The results of the good client and of the daemon: `connections` are its file descriptors."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0
    connections: int = 0
    megabytes: float = 0.0
    megabytes_before: float = 0.0
    megabytes_after: float = 0.0

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return statistics.median(self.latencies)

    @property
    def p99(self) -> float:
        """The 99th percentile; a failed request counts as infinite."""
        ordered = sorted(self.latencies) + [float("inf")] * self.failures
        return ordered[max(round(len(ordered) * 0.99) - 1, 0)]

    @property
    def excess(self) -> str:
        """The result that is over its limit, or an empty text."""
        taken = self.megabytes - self.megabytes_before
        kept = self.megabytes_after - self.megabytes_before
        excesses = {
            "p99": self.p99 > P99_LIMIT_SECONDS,
            "memory": taken > MEGABYTES_LIMIT,
            "memory kept": kept > taken * KEPT_LIMIT + KEPT_MEGABYTES,
        }
        return ", ".join(name for name, is_excess in excesses.items() if is_excess)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The daemon and the good client."""

    daemon: Daemon
    trust: ssl.SSLContext

    def measure(self, seconds: float) -> Measurement:
        """Send requests for some time; return the largest numbers of connections and of memory."""
        seen = Measurement()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.perf_counter()
            try:
                self.ask()
            except (OSError, EOFError, AssertionError):
                seen.failures += 1
            else:
                seen.latencies.append(time.perf_counter() - started)
            seen.connections = max(seen.connections, self.daemon.descriptors)
            seen.megabytes = max(seen.megabytes, self.daemon.megabytes)
            time.sleep(PAUSE_SECONDS)
        return seen

    def ask(self) -> None:
        """Send one request over its own connection."""
        with HttpClient(self.daemon.ports[0], tls=self.trust) as client:
            assert client.ask(REQUEST).status == 200


def _prefer(pid: int) -> None:
    """Give a process priority over all other work of this machine, if allowed."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, OUR_NICE)
    with contextlib.suppress(OSError):  # sched(7): the autogroup counts between sessions
        Path(f"/proc/{pid}/autogroup").write_text(str(OUR_NICE))


@contextlib.contextmanager
def _site(directory: Path) -> Iterator[Site]:
    authority = Authority(directory)
    pair = authority.issue("127.0.0.1")
    with (
        _kdcs() as (port, big_port),
        Daemon(
            directory / "daemon",
            f"""
                [[listen]]
                address = "127.0.0.1:0"
                [tls]
                certificate = "{pair.certificate}"
                key = "{pair.key}"
                [realms."EXAMPLE.COM"]
                kdc = ["tcp://127.0.0.1:{port}"]
                [realms."{BIG_REALM}"]
                kdc = ["tcp://127.0.0.1:{big_port}"]
            """,
        ) as daemon,
    ):
        for pid in (daemon.pid, *daemon.workers):
            _prefer(pid)
        yield Site(daemon=daemon, trust=ssl.create_default_context(cafile=str(authority.certificate)))


def run(
    connections: int = CONNECTIONS, seconds: float = SECONDS, attacks: tuple[Attack, ...] = tuple(Attack)
) -> bool:
    """Measure and print; return whether the good client always got its reply in time."""
    raise_descriptor_limit()
    _prefer(os.getpid())
    print(f"A good client's requests beside {connections} slow connections, {seconds:.0f} s of each attack\n")
    print(
        f"{'attack':<25}{'from':<12}{'open':>6}{'asked':>7}{'failed':>7}"
        f"{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'MiB before':>12}{'during':>8}{'after':>8}"
    )
    is_within_limit = True
    for attack in attacks:
        for first in (0, None):
            with tempfile.TemporaryDirectory() as directory, _site(Path(directory)) as site:
                for _ in range(WARM_UP_REQUESTS):
                    site.ask()
                before = site.daemon.megabytes
                target = Target(port=site.daemon.ports[0], connections=connections, first=first)
                with _under_attack(attack, target, seconds):
                    time.sleep(1)  # without the start of the attackers
                    seen = site.measure(seconds - 1)
                time.sleep(REST_SECONDS)
                seen.megabytes_before, seen.megabytes_after = before, site.daemon.megabytes
            _report(attack, target, seen)
            is_within_limit &= not seen.excess
    print()
    return is_within_limit


def _report(attack: Attack, target: Target, seen: Measurement) -> None:
    asked = len(seen.latencies) + seen.failures
    print(
        f"{attack.value:<25}{'one address' if target.first is None else 'many':<12}"
        f"{seen.connections:>6}{asked:>7}{seen.failures:>7}{seen.p50 * 1000:>9.1f}{seen.p99 * 1000:>9.1f}"
        f"{max(seen.latencies) * 1000:>9.1f}"
        f"{seen.megabytes_before:>12.1f}{seen.megabytes:>8.1f}{seen.megabytes_after:>8.1f}"
        f"{f'  over the limit: {seen.excess}' if seen.excess else ''}",
        flush=True,
    )


def main() -> int:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(description="Slow connections, and a good client beside them.")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("attacks", nargs="*", type=lambda name: Attack[name.upper()], metavar="ATTACK")
    options = parser.parse_args()
    attacks = tuple(options.attacks) or tuple(Attack)
    return 0 if run(options.connections, options.seconds, attacks) else 1


if __name__ == "__main__":
    sys.exit(main())
