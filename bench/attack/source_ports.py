"""A flood of requests that would use up the local ports if each port stayed in TIME_WAIT for a minute.

A fake KDC waits for its client to close the connection, as Active Directory does. MIT's KDC closes first.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.attack.flood import Flood, http_request
from bench.attack.honest import HonestClient, Result
from lab.daemon import Daemon
from lab.namespace import NetworkNamespace
from tests.support import fake_kdc, messages
from tests.support.fake_kdc import FakeKdcThread

__all__ = ["Outcome", "attack", "figures"]

REALM = "KK.TEST"
PORTS = 12_233
RATE = 362.0
SOURCES = tuple(f"127.201.0.{number}" for number in range(1, 101))

CONFIG = """
[[listen]]
address = "127.0.0.1:0"
tls = false
[process]
control = ""
[realms."{realm}"]
kdc = ["tcp://{kdc}"]
discovery = "none"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The honest client's result, the number of sent requests, and the log lines about KDC or local ports."""

    honest: Result
    sent: int
    complaints: tuple[str, ...]


def attack(directory: Path, *, seconds: float, ports: int = PORTS, rate: float = RATE) -> Outcome:
    """Send requests from many networks, each within its limits, to a KDC that answers all of them."""
    with ExitStack() as stack:
        network = stack.enter_context(NetworkNamespace(directory))
        kdc = stack.enter_context(FakeKdcThread(tcp=fake_kdc.reply(messages.krb_error(25, realm=REALM))))
        config = CONFIG.format(realm=REALM, kdc=f"127.0.0.1:{kdc.port}")
        daemon = stack.enter_context(Daemon(directory / "kkdcpd", config))
        network.limit_ports(20000, 20000 + ports - 1)
        flood = Flood(lambda _: _request(), port=daemon.ports[0], sources=SOURCES, rate=rate, patience=10.0)
        stack.enter_context(flood)
        honest = stack.enter_context(HonestClient(_request(), port=daemon.ports[0], tls=None, interval=0.05))
        time.sleep(seconds)
        # When the machine is busy, the KDC may become suspect for a moment, but never down.
        words = ("state=down", "local_error", "port_limit")
        complaints = tuple(line for line in daemon.lines if any(word in line for word in words))
        return Outcome(honest=honest.result, sent=flood.sent, complaints=complaints)


def figures() -> Iterator[str]:
    """Run the attack until the ports would be used up, and longer."""
    with tempfile.TemporaryDirectory() as directory:
        outcome = attack(Path(directory), seconds=60)
    yield (
        f"{outcome.sent} requests beside {outcome.honest.statuses.total()} honest ones with {PORTS} ports: "
        f"{100 * outcome.honest.refused_share:.1f} % refused, p99 {outcome.honest.p99:.3f} s, "
        f"{len(outcome.complaints)} log lines about the KDC or local ports"
    )


def _request() -> bytes:
    payload = messages.as_req(realm=REALM, cname=(1, ("alice",)), padata=[(149, b""), (150, b"")])
    return http_request(messages.envelope(payload, REALM))
