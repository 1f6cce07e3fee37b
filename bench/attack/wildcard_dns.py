"""The owner of a domain under a wildcard, and clients that make up names there, attack all other realms.

The owner's DNS server answers with thousands of URI records, each for a host of its own at an address where
nothing listens. Requests name ever new realms in that domain. Made-up names elsewhere are never answered.
"""

import itertools
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.rdataset
import dns.rdatatype
import dns.rrset

from bench.attack.honest import HonestClient, Result
from lab.daemon import Daemon
from tests.support.fake_dns import FakeDns, Habits
from tests.support.fake_kdc import FakeKdcThread, reply
from tests.support.messages import as_rep, as_req, envelope

__all__ = ["Figures", "bulk_answers", "figures", "made_up_names"]

RECORDS = 1800
BULK_RATE = 8.6
NAME_RATE = 44.0
ATTACKERS = "127.66.0.1"
HONEST = "127.200.0.1"
NEW_REALMS = 50
"""Fewer than a wildcard serves at a time: beyond this limit a client's next realm gets no entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The results of two honest clients: one of a known realm, and one that names a new realm each time.

    `growth` is by how many MiB all processes grew, `sent` how many requests the attacker sent.
    """

    known: Result
    new: Result
    growth: float
    sent: int

    def __str__(self) -> str:
        """Write one line."""
        return (
            f"{self.sent} requests; known realm: p99 {self.known.p99 * 1000:.0f} ms, "
            f"{self.known.refused_share:.1%} refused; new realms: p99 {self.new.p99 * 1000:.0f} ms, "
            f"{self.new.refused_share:.1%} refused; {self.growth:+.0f} MiB"
        )


class HostileDns(FakeDns):
    """Answers URI queries for names in evil.corp.test with many records, and drops those for "slow" names."""

    def __init__(self, kdc_port: int) -> None:
        super().__init__("", Habits())
        texts = [f'0 {number % 7} "krb5srv::tcp:h{number}"' for number in range(RECORDS)]
        self._bulk = dns.rdataset.from_text("IN", "URI", 3600, *texts)
        self._kdc_port = kdc_port

    def _answer(self, query: dns.message.Message) -> tuple[float, dns.message.Message | None]:
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.rdtype)
        if "slow" in name:
            return 0.0, None
        response = dns.message.make_response(query)
        if kind == "URI" and name.endswith(".evil.corp.test"):
            response.answer.append(dns.rrset.from_rdata_list(question.name, 3600, list(self._bulk)))
        elif text := self._text(name, kind):
            response.answer.append(dns.rrset.from_text(question.name, 3600, "IN", kind, text))
        return 0.0, response

    def _text(self, name: str, kind: str) -> str | None:
        if kind == "SRV" and name.startswith("_kerberos._tcp.") and ".evil." not in name:
            return f"0 0 {self._kdc_port} kdc.good.test."
        if kind == "A":
            number = int("0" + "".join(filter(str.isdigit, name.partition(".")[0])))
            return f"127.66.{number // 250}.{number % 250 + 1}" if name.startswith("h") else "127.0.0.1"
        return None


def bulk_answers(seconds: float, *, rate: float = BULK_RATE) -> Figures:
    """Send requests for new realms in the domain whose owner answers with many records."""
    names = (f"X{number}.EVIL.CORP.TEST" for number in itertools.count())
    return _attack(names, seconds, rate)


def made_up_names(seconds: float, *, rate: float = NAME_RATE) -> Figures:
    """Send requests for made-up names that DNS never answers."""
    return _attack((f"SLOW{number}.CORP.TEST" for number in itertools.count()), seconds, rate)


def figures() -> Iterator[str]:
    """Run the long forms."""
    yield f"{RECORDS} URI records an answer, {BULK_RATE} requests/s: {bulk_answers(40)}"
    yield f"made-up names, {NAME_RATE} requests/s: {made_up_names(40)}"


def _attack(names: Iterator[str], seconds: float, rate: float) -> Figures:
    with _daemon() as daemon:
        port = daemon.ports[0]
        before = daemon.megabytes
        known = HonestClient(_request("HONEST.TEST"), port=port, tls=None, source=HONEST)
        new = _NewRealms(port)
        with known, new:
            sent = _send_all(names, port, seconds, rate)
        return Figures(known=known.result, new=new.result, growth=daemon.megabytes - before, sent=sent)


class _NewRealms(HonestClient):
    """An honest client that sends two requests a second; NEW_REALMS of them name a new realm."""

    def __init__(self, port: int) -> None:
        super().__init__(b"", port=port, tls=None, source="127.201.0.1", interval=0.5)
        self._numbers = itertools.count()

    def _ask(self) -> int:
        self._request = _request(f"GOOD{next(self._numbers) % NEW_REALMS}.CORP.TEST")
        return super()._ask()


def _send_all(names: Iterator[str], port: int, seconds: float, rate: float) -> int:
    """Send requests at a steady rate, and do not wait for responses."""
    threads: list[threading.Thread] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        thread = threading.Thread(target=_send, args=(next(names), port), daemon=True)
        thread.start()
        threads.append(thread)
        time.sleep(1 / rate)
    return len(threads)


def _send(name: str, port: int) -> None:
    try:
        with socket.create_connection(("127.0.0.1", port), 30, (ATTACKERS, 0)) as sock:
            sock.sendall(_request(name))
            sock.recv(65536)
    except OSError:
        pass  # kkdcpd has ended, or has closed the connection


def _request(realm: str) -> bytes:
    body = envelope(as_req(realm=realm, sname=(2, ("krbtgt", realm))), realm)
    head = "POST /KdcProxy HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/kerberos\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def _daemon() -> Iterator[Daemon]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kdc = stack.enter_context(FakeKdcThread(tcp=reply(as_rep())))
        server = stack.enter_context(HostileDns(kdc.port))
        config = f"""
[[listen]]
address = "127.0.0.1:0"
tls = false
[process]
workers = 1
control = ""
[locate]
nameservers = ["{server.endpoint}"]
allowed_ports = [88, {kdc.port}]
allowed_networks = ["127.0.0.0/8"]
[realms."HONEST.TEST"]
kdc = ["tcp://127.0.0.1:{kdc.port}"]
[realms."*.CORP.TEST"]
discovery = "dns"
"""
        yield stack.enter_context(Daemon(directory, config))
