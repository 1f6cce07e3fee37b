"""Clients leave before a KDC answers their datagrams, so that the late answers might reach other clients."""

import heapq
import itertools
import re
import select
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from bench.attack.background import Background
from bench.attack.flood import Flood, http_request
from lab.daemon import Daemon
from lab.namespace import NetworkNamespace
from tests.support import messages

__all__ = ["Outcome", "attack", "figures"]

REALM = "KK.TEST"
PORTS = 1000
LATE_SECONDS = 0.3
LEAVING_SECONDS = 0.02
HONEST_CLIENTS = 8

CONFIG = """
[[listen]]
address = "127.0.0.1:0"
tls = false
[process]
workers = {workers}
control = ""
[realms."{realm}"]
kdc = ["udp://127.0.0.1:{kdc}"]
discovery = "none"
[guard.rates]
mode = "off"
"""

_NAME = re.compile(rb"(?:late|fast)-[0-9]{8}")
_NONCES = itertools.count(1)


def _message(name: str) -> bytes:
    return messages.as_req(realm=REALM, cname=(1, (name,)), nonce=next(_NONCES), padata=[(2, b"\x30\x00")])


# Built once; the name in it has a fixed length.
_REQUEST = _message("fast-00000000")
_REPLY = messages.krb_error(25, realm=REALM, text="fast-00000000")


class LateKdc(Background):
    """A UDP KDC in a thread. Each reply contains the name in the request, and is late if the name is."""

    def __init__(self, late_seconds: float) -> None:
        super().__init__("late KDC")
        self._late_seconds = late_seconds
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._socket.close()

    def _work_until_over(self) -> None:
        waiting: list[tuple[float, bytes, tuple[str, int]]] = []
        while not self._is_over.is_set():
            if select.select([self._socket], [], [], 0.005)[0]:
                payload, peer = self._socket.recvfrom(65536)
                name = _NAME.search(payload)
                wait = self._late_seconds if name and name[0].startswith(b"late") else 0.0
                answer = _REPLY.replace(b"fast-00000000", name[0]) if name else _REPLY
                heapq.heappush(waiting, (time.monotonic() + wait, answer, peer))
            while waiting and waiting[0][0] <= time.monotonic():
                _, answer, peer = heapq.heappop(waiting)
                self._socket.sendto(answer, peer)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Counts of requests by result: own reply, wrong reply, no reply, and `left` (the client left)."""

    own: int = 0
    others: int = 0
    refused: int = 0
    left: int = 0

    def __str__(self) -> str:
        return (
            f"{self.own + self.others + self.refused} honest exchanges beside {self.left} abandoned ones: "
            f"{self.others} wrong replies, {self.refused} refused"
        )


class _Honest:
    """A client that sends one request after the other, and compares the names in the replies."""

    def __init__(self, port: int, source: str, number: int) -> None:
        self.outcome = Outcome()
        self._numbers = itertools.count(number * 1_000_000)
        self._address = ("127.0.0.1", port), (source, 0)
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._send_until_over, name=source)

    def _send_until_over(self) -> None:
        listener, source = self._address
        while not self.is_over.is_set():
            with socket.create_connection(listener, 30, source) as sock, sock.makefile("rb") as responses:
                while self._exchange(sock, responses) and not self.is_over.is_set():
                    pass

    def _exchange(self, sock: socket.socket, responses: BinaryIO) -> bool:
        """Send one request and compare the name in its reply; return whether the connection stays open."""
        name = b"fast-%08d" % next(self._numbers)
        body = messages.envelope(_REQUEST.replace(b"fast-00000000", name), REALM)
        sock.sendall(http_request(body).replace(b"Connection: close\r\n", b""))
        status, length, stays_open = int(responses.readline().split(b" ", 2)[1]), 0, True
        while (line := responses.readline().lower()) != b"\r\n":
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
            elif line.startswith(b"connection:"):
                stays_open = b"close" not in line
        found = _NAME.findall(responses.read(length))
        self._note(status, is_own=found == [name])
        return stays_open

    def _note(self, status: int, *, is_own: bool) -> None:
        if status != 200:
            self.outcome.refused += 1
        elif is_own:
            self.outcome.own += 1
        else:
            self.outcome.others += 1


def attack(
    directory: Path, *, exchanges: int, ports: int = PORTS, seconds: float = 600, rate: float = 150
) -> Outcome:
    """Return the counts of this many honest exchanges, or of as many as fit into `seconds`."""
    with ExitStack() as stack:
        network = stack.enter_context(NetworkNamespace(directory))
        kdc = stack.enter_context(LateKdc(LATE_SECONDS))
        config = CONFIG.format(realm=REALM, kdc=kdc.port, workers=1)
        daemon = stack.enter_context(Daemon(directory / "kkdcpd", config))
        network.limit_ports(20000, 20000 + ports - 1)
        flood = Flood(
            _late_request,
            port=daemon.ports[0],
            sources=[f"127.201.0.{number}" for number in range(1, 200)],
            rate=rate,
            patience=LEAVING_SECONDS,
        )
        stack.enter_context(flood)
        clients = [
            _Honest(daemon.ports[0], f"127.200.0.{number}", number) for number in range(1, HONEST_CLIENTS)
        ]
        for client in clients:
            client.thread.start()
        end = time.monotonic() + seconds
        while sum(client.outcome.own for client in clients) < exchanges and time.monotonic() < end:
            time.sleep(0.1)
        for client in clients:
            client.is_over.set()
        for client in clients:
            client.thread.join()
        return Outcome(
            own=sum(client.outcome.own for client in clients),
            others=sum(client.outcome.others for client in clients),
            refused=sum(client.outcome.refused for client in clients),
            left=flood.sent,
        )


def figures() -> Iterator[str]:
    """Run 200,000 honest exchanges beside the attack, with 1,000 local ports."""
    with tempfile.TemporaryDirectory() as directory:
        yield str(attack(Path(directory), exchanges=200_000))


def _late_request(number: int) -> bytes:
    payload = _REQUEST.replace(b"fast-00000000", b"late-%08d" % number)
    return http_request(messages.envelope(payload, REALM))
