"""Many connections from a few networks, to keep honest clients out.

An attacker that holds a few IPv6 networks opens connections at a steady pace and keeps as many as it can:
bare TCP, half a ClientHello, half a body, or idle after a request. Another one makes TLS handshakes from one
address as fast as it can.
"""

import itertools
import socket
import ssl
import struct
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.attack.background import Background
from bench.attack.honest import HonestClient, Result
from bench.slow import raise_descriptor_limit
from lab.authority import Authority
from lab.daemon import Daemon
from lab.namespace import NetworkNamespace
from tests.support import messages
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.http_client import post

__all__ = ["KINDS", "NETWORKS", "Field", "Holder", "figures", "handshakes", "hold", "is_limit_reached"]

HOST = "2001:db8:f000::1"
HONEST = "2001:db8:e000::1"
NETWORK = "2001:db8::/32"

REQUEST = post(messages.envelope(messages.as_req()))

NETWORKS = {
    "nine /64s of one /48": [f"2001:db8:1:{number:x}::1" for number in range(9)],
    "nine /56s of one /48": [f"2001:db8:1:{number:x}00::1" for number in range(9)],
    "ten /48s": [f"2001:db8:{number:x}::1" for number in range(1, 11)],
}

PATIENT = """
    [http]
    handshake_timeout = 120
    body_timeout = 120
"""
"""Long timeouts, so that a slow machine reaches the limits, too."""

QUARTER = f"""
    maximum = 2048
    per_client = 256
    per_network = 1024
    {PATIENT}
"""

SECONDS = 20.0
PACE = 0.0005
"""The pause between two connections of the attack."""

SETTLE_SECONDS = 120.0
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A kkdcpd on a host that has every address of NETWORK."""

    daemon: Daemon
    tls: ssl.SSLContext

    @property
    def port(self) -> int:
        """The port that speaks TLS, at HOST."""
        return self.daemon.ports[0]

    def honest_client(self) -> HonestClient:
        """Return a client in a network without attackers."""
        return HonestClient(REQUEST, port=self.port, tls=self.tls, source=HONEST, host=HOST)

    @classmethod
    @contextmanager
    def made(cls, directory: Path, settings: str = "") -> Iterator[Self]:
        """Start a kkdcpd with these settings of [connections]."""
        raise_descriptor_limit()
        with ExitStack() as stack:
            network = stack.enter_context(NetworkNamespace(directory))
            network.route_to_loopback(NETWORK)
            kdc = stack.enter_context(FakeKdcThread(tcp=reply(messages.krb_error(25))))
            authority = Authority(directory / "ca")
            pair = authority.issue(HOST)
            config = f"""
                [[listen]]
                address = "[::]:0"
                [tls]
                certificate = "{pair.certificate}"
                key = "{pair.key}"
                [realms."EXAMPLE.COM"]
                kdc = ["tcp://127.0.0.1:{kdc.port}"]
                [connections]
                {settings}
            """
            daemon = stack.enter_context(Daemon(directory / "daemon", config))
            yield cls(daemon=daemon, tls=ssl.create_default_context(cafile=str(authority.certificate)))


def _connect(field: Field, source: str) -> socket.socket:
    sock = socket.create_connection((HOST, field.port), 10.0, (source, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return sock


def _bare(field: Field, source: str) -> socket.socket:
    return _connect(field, source)


def _half_hello(field: Field, source: str) -> socket.socket:
    sock = _connect(field, source)
    sock.sendall(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(16000))
    return sock


def _half_body(field: Field, source: str) -> socket.socket:
    sock = field.tls.wrap_socket(_connect(field, source), server_hostname=HOST)
    sock.sendall(REQUEST[:-1])
    return sock


def _idle(field: Field, source: str) -> socket.socket:
    sock = field.tls.wrap_socket(_connect(field, source), server_hostname=HOST)
    sock.sendall(REQUEST)
    sock.recv(65536)
    return sock


KINDS: dict[str, Callable[[Field, str], socket.socket]] = {
    "bare TCP": _bare,
    "half a ClientHello": _half_hello,
    "half a body": _half_body,
    "idle after a request": _idle,
}


class Holder(Background):
    """Opens `most` connections, from each source in turn; after `go_on` another one every `pace` seconds.

    It keeps the last `most` connections until the context ends. `opened` counts all connections, `refused`
    the connections that ended at once.
    """

    def __init__(
        self,
        field: Field,
        open_one: Callable[[Field, str], socket.socket],
        sources: Sequence[str],
        *,
        most: int,
        pace: float = PACE,
    ) -> None:
        super().__init__("attack")
        self._field = field
        self._open_one = open_one
        self._sources = itertools.cycle(sources)
        self._held: deque[socket.socket] = deque()
        self._most = most
        self._pace = pace
        self._has_all = threading.Event()
        self._may_go_on = threading.Event()
        self.opened = 0
        self.refused = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self.go_on()
        super().__exit__(kind, error, traceback)
        for sock in self._held:
            sock.close()

    def wait_until_it_has_all(self) -> None:
        """Wait until the attack has opened `most` connections."""
        if not self._has_all.wait(SETTLE_SECONDS):
            raise TimeoutError(f"{self.opened} of {self._most} connections in {SETTLE_SECONDS} s")

    def go_on(self) -> None:
        """From now on, replace the oldest connection by a new one."""
        self._may_go_on.set()

    def _work_until_over(self) -> None:
        while not self._is_over.is_set():
            if self._has_all.is_set():
                self._may_go_on.wait()
                self._is_over.wait(self._pace)
            try:
                self._held.append(self._open_one(self._field, next(self._sources)))
                self.opened += 1
            except OSError:
                self.refused += 1
            if len(self._held) > self._most:
                self._held.popleft().close()
            if self.opened + self.refused >= self._most:
                self._has_all.set()


def hold(field: Field, kind: str, networks: str, *, most: int, seconds: float) -> tuple[Holder, Result]:
    """Attack with `most` connections, more than the limit; then run an honest client for `seconds`."""
    with Holder(field, KINDS[kind], NETWORKS[networks], most=most) as attack:
        attack.wait_until_it_has_all()
        field.daemon.wait_for_line(is_limit_reached)
        attack.go_on()
        with field.honest_client() as honest:
            time.sleep(seconds)
        return attack, honest.result


def is_limit_reached(line: str) -> bool:
    """Whether a log line reports that a limit of [connections] was reached."""
    return " connection_evicted " in line or " connections_refused " in line


def handshakes(field: Field, *, seconds: float, threads: int = 4) -> tuple[int, Result]:
    """Make TLS handshakes from one address as fast as possible; return the number that succeeded."""
    is_over = threading.Event()
    counts = [0] * threads

    def shake(number: int) -> None:
        while not is_over.is_set():
            with suppress(OSError), _connect(field, "2001:db8:1::1") as plain:
                field.tls.wrap_socket(plain, server_hostname=HOST).close()
                counts[number] += 1

    attackers = [threading.Thread(target=shake, args=(number,)) for number in range(threads)]
    for thread in attackers:
        thread.start()
    with field.honest_client() as honest:
        time.sleep(seconds)
    is_over.set()
    for thread in attackers:
        thread.join()
    return sum(counts), honest.result


def figures() -> Iterator[str]:
    """Run each attack with more connections than the limit: with the default limits, with TLS a quarter."""
    for kind, networks in itertools.product(KINDS, NETWORKS):
        most, settings = (9216, PATIENT) if KINDS[kind] in {_bare, _half_hello} else (2304, QUARTER)
        with tempfile.TemporaryDirectory() as place, Field.made(Path(place), settings) as field:
            attack, honest = hold(field, kind, networks, most=most, seconds=SECONDS)
            megabytes = field.daemon.megabytes
        yield f"{kind} from {networks}: {attack.opened} opened, {_told(honest)}, {megabytes:.0f} MiB"
    with tempfile.TemporaryDirectory() as place, Field.made(Path(place)) as field:
        count, honest = handshakes(field, seconds=SECONDS)
    yield f"handshakes from one address: {count / SECONDS:.0f}/s done, {_told(honest)}"


def _told(honest: Result) -> str:
    return (
        f"honest: {sum(honest.statuses.values())} requests, {100 * honest.refused_share:.1f} % refused, "
        f"p99 {1000 * honest.p99:.0f} ms, longest {1000 * max(honest.latencies, default=0):.0f} ms"
    )
