"""Messages that a KDC drops without an answer fill the slots for requests in flight at this KDC.

The attacker has a few IPv4 addresses, or a /48 of IPv6 and another /64 for each message. A trusted reverse
proxy reports these addresses.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.attack.flood import Flood, http_request
from bench.attack.honest import HonestClient, Result
from kkdcpd.endpoints import KDC_TRANSPORTS, Transport
from lab.daemon import Daemon
from lab.realm import MitRealm, Principal
from tests.support import messages

__all__ = ["ATTACKERS", "attack", "figures", "running_realm"]

REALM = "KK.TEST"
RATE = 139.0
PATIENCE_SECONDS = 30.0
PROXY = "127.201.0.1"

ATTACKERS: dict[str, Callable[[int], str]] = {
    "5 addresses": lambda number: f"203.0.113.{number % 5}",
    "one /48": lambda number: f"2001:db8:1:{number % 0x10000:x}::1",
}
"""The client address of each message of the flood."""

DROPPED_NONCE = 0xFFFFFFFF
"""MIT's KDC reads a nonce as a signed 32-bit number. It drops a message with a larger nonce."""

CONFIG = """
[[listen]]
address = "127.0.0.1:0"
tls = false
[connections]
trusted_proxies = ["{proxy}"]
forwarded = "x-forwarded-for"
[process]
workers = 1
control = ""
drain_timeout = 1
[realms."{realm}"]
kdc = ["{transport}://{kdc}"]
discovery = "none"
[upstream]
max_in_flight_per_kdc = {slots}
"""


@contextmanager
def running_realm(directory: Path, transport: Transport) -> Iterator[MitRealm]:
    """Start a KDC with one user, which has this transport only: the other transport cannot help."""
    principal = Principal(name="alice", password="secret", options=("+requires_preauth",))
    with MitRealm(directory, name=REALM, principals=[principal], transports=[transport]) as realm:
        yield realm


def attack(
    realm: MitRealm,
    directory: Path,
    client: Callable[[int], str],
    *,
    seconds: float,
    rate: float = RATE,
    slots: int = 256,
) -> Result:
    """Return the result of an honest client that comes once the flood has filled the slots.

    `client` gives each message of the flood its client address. No honest request is answered before.
    """
    (transport,) = realm.kdc.transports
    with ExitStack() as stack:
        config = CONFIG.format(
            realm=REALM, transport=transport.value, kdc=realm.kdc.endpoints[0], slots=slots, proxy=PROXY
        )
        daemon = stack.enter_context(Daemon(directory, config))
        flood = Flood(
            lambda number: _request(DROPPED_NONCE, client(number)),
            port=daemon.ports[0],
            sources=[PROXY],
            rate=rate,
            patience=PATIENCE_SECONDS,
        )
        stack.enter_context(flood)
        time.sleep(min(1.5 * slots / rate, seconds / 2))
        with HonestClient(_request(1), port=daemon.ports[0], tls=None, interval=0.05) as honest:
            time.sleep(seconds / 2)
        return honest.result


def figures() -> Iterator[str]:
    """Run each attack over either transport, at the default limits."""
    for transport in KDC_TRANSPORTS:
        with tempfile.TemporaryDirectory() as place, running_realm(Path(place) / "realm", transport) as realm:
            for number, (attacker, client) in enumerate(ATTACKERS.items()):
                result = attack(realm, Path(place) / str(number), client, seconds=40)
                yield (
                    f"{transport.value}, {attacker}: {result.statuses.total()} honest requests, "
                    f"{100 * result.refused_share:.1f} % refused, p99 {result.p99:.3f} s"
                )


def _request(nonce: int, client: str | None = None) -> bytes:
    payload = messages.as_req(
        realm=REALM, cname=(1, ("alice",)), nonce=nonce, padata=[(149, b""), (150, b"")]
    )
    request = http_request(messages.envelope(payload, REALM))
    return request.replace(b"\r\n", f"\r\nX-Forwarded-For: {client}\r\n".encode(), 1) if client else request
