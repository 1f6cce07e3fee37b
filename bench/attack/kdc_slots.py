"""Messages that a KDC does not answer, or answers late, hold the slots and local ports for this KDC.

The attacker has a few IPv4 addresses, or a /48 of IPv6 and another /64 for each message, or hundreds of
networks. A trusted reverse proxy reports these addresses. A real KDC drops the messages; a fake one has the
faults that no real one has on demand.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.attack.flood import Flood, http_request
from bench.attack.honest import HonestClient, Result
from kkdcpd.endpoints import KDC_TRANSPORTS, Transport
from lab.daemon import Daemon
from lab.realm import MitRealm, Principal
from tests.support import messages
from tests.support.fake_kdc import FakeKdcThread, Link, Script

__all__ = [
    "ATTACKERS",
    "FAKES",
    "Fake",
    "Target",
    "any_of_many",
    "attack",
    "figures",
    "one_of_many",
    "running_fake",
    "running_realm",
]

REALM = "KK.TEST"
RATE = 139.0
PATIENCE_SECONDS = 30.0
PROXY = "127.201.0.1"
HONEST = "198.51.100.7"

NETWORKS = 500
BURST = 20
"""The messages that one of the many networks sends before the next network begins."""

DROPPED_NONCE = 0xFFFFFFFF
"""MIT's KDC reads a nonce as a signed 32-bit number. It drops a message with a larger nonce."""


def one_of_many(number: int, networks: int = NETWORKS) -> str:
    """Return the address of a message of the flood: half of the networks have IPv4, and half have IPv6."""
    network = (number // BURST) % networks
    high, low = divmod(network, 250)
    return f"198.{18 + high}.{low}.7" if network % 2 else f"2001:db8:{network:x}::1"


def any_of_many() -> str:
    """Return the address of one of these networks."""
    return one_of_many(BURST * random.randrange(NETWORKS))


ATTACKERS: Mapping[str, Callable[[int], str]] = {
    "5 addresses": lambda number: f"203.0.113.{number % 5}",
    "one /48": lambda number: f"2001:db8:1:{number % 0x10000:x}::1",
    f"{NETWORKS} networks": one_of_many,
    f"{NETWORKS} networks in random order": lambda _: any_of_many(),
}
"""The client address of each message of the flood."""

CONFIG = """
[[listen]]
address = "127.0.0.1:0"
tls = false
proxy_protocol = {proxy_protocol}
[connections]
trusted_proxies = ["{proxy}"]
forwarded = "x-forwarded-for"
[process]
workers = 1
control = ""
drain_timeout = 1
[realms."{realm}"]
{servers}
discovery = "none"
[upstream]
max_in_flight_per_kdc = {slots}
"""


def _as_req(nonce: int) -> bytes:
    return messages.as_req(realm=REALM, cname=(1, ("alice",)), nonce=nonce, padata=[(149, b""), (150, b"")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The servers of a realm as lines of the configuration, and the payloads of both kinds of clients."""

    servers: str
    honest: bytes = field(default_factory=lambda: _as_req(1))
    held: bytes = field(default_factory=lambda: _as_req(DROPPED_NONCE))


@contextmanager
def running_realm(directory: Path, transport: Transport) -> Iterator[Target]:
    """Start a KDC with one user, which has this transport only: the other transport cannot help."""
    principal = Principal(name="alice", password="secret", options=("+requires_preauth",))
    with MitRealm(directory, name=REALM, principals=[principal], transports=[transport]) as realm:
        yield Target(servers=f'kdc = ["{transport.value}://{realm.kdc.endpoints[0]}"]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Fake:
    """A fault of a fake server: it answers the messages of the flood late, or (None) never.

    With `is_second`, the realm has another KDC that has the same fault over TCP.
    """

    transport: Transport
    late_seconds: float | None = None
    is_kpasswd: bool = False
    is_second: bool = False


FAKES: Mapping[str, Fake] = {
    "UDP KDC that answers after 3 s": Fake(transport=Transport.UDP, late_seconds=3.0),
    "TCP KDC that never answers": Fake(transport=Transport.TCP),
    "TCP KDC that answers after 3 s": Fake(transport=Transport.TCP, late_seconds=3.0),
    "UDP password server that never answers": Fake(transport=Transport.UDP, is_kpasswd=True),
    "TCP password server that never answers": Fake(transport=Transport.TCP, is_kpasswd=True),
    "UDP KDC beside a TCP KDC": Fake(transport=Transport.UDP, is_second=True),
}


@contextmanager
def running_fake(fake: Fake) -> Iterator[Target]:
    """Start fake servers, which answer honest requests and probes at once."""
    if fake.is_kpasswd:
        honest, held = messages.kpasswd_req(realm=REALM, version=0xFF80), messages.kpasswd_req(realm=REALM)
        reply = messages.kpasswd_rep()
    else:
        honest, held = _as_req(1), _as_req(DROPPED_NONCE)
        reply = messages.krb_error(25, realm=REALM)
    script = _holding(held, reply, fake.late_seconds)
    with ExitStack() as stack:
        transports = [fake.transport, Transport.TCP] if fake.is_second else [fake.transport]
        servers = [
            f'"{transport.value}://127.0.0.1:{stack.enter_context(_server(transport, script)).port}"'
            for transport in transports
        ]
        lines = f"kdc = [{', '.join(servers)}]"
        if fake.is_kpasswd:
            lines = f'kdc = ["127.0.0.1:1"]\nkpasswd = [{servers[0]}]'
        yield Target(servers=lines, honest=honest, held=held)


def _server(transport: Transport, script: Script) -> FakeKdcThread:
    return FakeKdcThread(udp=script) if transport is Transport.UDP else FakeKdcThread(tcp=script)


def _holding(held: bytes, reply: bytes, late_seconds: float | None) -> Script:
    """Answer at once, except for one message."""

    async def script(link: Link) -> None:
        if await link.message() == held:
            if late_seconds is None:
                await link.hold()
                return
            await asyncio.sleep(late_seconds)
        await link.reply(reply)
        await link.hold()

    return script


def attack(
    target: Target,
    directory: Path,
    client: Callable[[int], str],
    *,
    seconds: float,
    rate: float = RATE,
    slots: int = 256,
    descriptors: int | None = None,
    proxy_protocol: bool = False,
) -> Result:
    """Return the result of an honest client that comes once the flood has filled the slots.

    `client` gives each message of the flood its client address. No honest request is answered before. With
    few file `descriptors`, kkdcpd has few local ports.
    """
    ask = _by_proxy_protocol if proxy_protocol else _by_forwarded
    with ExitStack() as stack:
        config = CONFIG.format(
            realm=REALM,
            servers=target.servers,
            slots=slots,
            proxy=PROXY,
            proxy_protocol=str(proxy_protocol).lower(),
        )
        python = _limited_python(directory, descriptors) if descriptors else sys.executable
        daemon = stack.enter_context(Daemon(directory, config, python=python))
        flood = Flood(
            lambda number: ask(target.held, client(number)),
            port=daemon.ports[0],
            sources=[PROXY],
            rate=rate,
            patience=PATIENCE_SECONDS,
        )
        stack.enter_context(flood)
        time.sleep(min(1.5 * slots / rate, seconds / 2))
        request = ask(target.honest, HONEST)
        with HonestClient(request, port=daemon.ports[0], tls=None, source=PROXY, interval=0.05) as honest:
            time.sleep(seconds / 2)
        return honest.result


def _limited_python(directory: Path, descriptors: int) -> str:
    """Write a program that starts Python with this limit of file descriptors."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "python"
    path.write_text(f'#!/bin/sh\nulimit -n {descriptors}\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return str(path)


def _by_forwarded(payload: bytes, client: str) -> bytes:
    request = http_request(messages.envelope(payload, REALM))
    return request.replace(b"\r\n", f"\r\nX-Forwarded-For: {client}\r\n".encode(), 1)


def _by_proxy_protocol(payload: bytes, client: str) -> bytes:
    family, ours = ("TCP6", "2001:db8::ffff") if ":" in client else ("TCP4", "192.0.2.1")
    header = f"PROXY {family} {client} {ours} 50000 443\r\n"
    return header.encode() + http_request(messages.envelope(payload, REALM))


def figures() -> Iterator[str]:
    """Run each attack over either transport, then many networks against each fake, at the default limits.

    The attack of many networks lasts longer than a local port is kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        for transport in KDC_TRANSPORTS:
            with running_realm(Path(folder) / transport.value, transport) as target:
                for attacker, client in ATTACKERS.items():
                    seconds = 120 if client(0) != client(BURST) else 40
                    result = attack(target, Path(folder) / "kkdcpd", client, seconds=seconds)
                    yield f"{transport.value}, {attacker}: {_figures_of(result)}"
        for name, fake in FAKES.items():
            for proxy_protocol in (False, True):
                with running_fake(fake) as target:
                    result = attack(
                        target,
                        Path(folder) / "kkdcpd",
                        lambda _: any_of_many(),
                        seconds=40,
                        proxy_protocol=proxy_protocol,
                    )
                    header = "PROXY header" if proxy_protocol else "X-Forwarded-For"
                    yield f"{name}, {header}: {_figures_of(result)}"


def _figures_of(result: Result) -> str:
    return (
        f"{result.statuses.total()} honest requests, {100 * result.refused_share:.1f} % refused, "
        f"p99 {result.p99:.3f} s"
    )
