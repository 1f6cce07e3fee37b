"""Messages that a KDC silently drops fill the slots for requests in flight at it."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench.attack.flood import Flood, http_request
from bench.attack.honest import HonestClient, Result
from kkdcpd.values import Transport
from lab.daemon import Daemon
from lab.realm import MitRealm, Principal
from tests.support import messages

__all__ = ["attack", "figures"]

REALM = "KK.TEST"
SOURCES = tuple(f"127.201.0.{number}" for number in range(1, 6))
RATE = 139.0
PATIENCE_SECONDS = 30.0
DROPPED_NONCE = 0xFFFFFFFF
"""MIT's KDC reads a nonce as a signed 32-bit number. It drops a message with a larger nonce."""

CONFIG = """
[[listen]]
address = "127.0.0.1:0"
tls = false
[process]
workers = 1
control = ""
[realms."{realm}"]
kdc = ["{transport}://{kdc}"]
discovery = "none"
[upstream]
max_in_flight_per_kdc = {slots}
"""


def attack(
    directory: Path, transport: Transport, *, seconds: float, rate: float = RATE, slots: int = 256
) -> Result:
    """Return the result of the honest client, which begins after the attack had time to fill the slots."""
    with ExitStack() as stack:
        principal = Principal(name="alice", password="secret", options=("+requires_preauth",))
        realm = stack.enter_context(MitRealm(directory / "realm", name=REALM, principals=[principal]))
        config = CONFIG.format(
            realm=REALM, transport=transport.value, kdc=realm.kdc.endpoints[0], slots=slots
        )
        daemon = stack.enter_context(Daemon(directory / "kkdcpd", config))
        flood = Flood(
            lambda _: _request(DROPPED_NONCE),
            port=daemon.ports[0],
            sources=SOURCES,
            rate=rate,
            patience=PATIENCE_SECONDS,
        )
        stack.enter_context(flood)
        time.sleep(min(1.5 * slots / rate, seconds / 2))
        with HonestClient(_request(1), port=daemon.ports[0], tls=None, interval=0.05) as honest:
            time.sleep(seconds / 2)
        return honest.result


def figures() -> Iterator[str]:
    """Run the attack over each transport, with the default limits."""
    for transport in Transport:
        with tempfile.TemporaryDirectory() as directory:
            result = attack(Path(directory), transport, seconds=40)
        yield (
            f"{transport.value}: {result.statuses.total()} honest requests, "
            f"{100 * result.refused_share:.1f} % refused, p99 {result.p99:.3f} s"
        )


def _request(nonce: int) -> bytes:
    payload = messages.as_req(
        realm=REALM, cname=(1, ("alice",)), nonce=nonce, padata=[(149, b""), (150, b"")]
    )
    return http_request(messages.envelope(payload, REALM))
