"""Compares CPU per request and latency of kkdcpd with kdcproxy and with servers that do less than a proxy.

    python -m bench.speed [ROUNDS]

In each round all servers serve the same requests in turn, in a changing order. The result is the median of
the rounds' ratios, so that other work on the machine affects all servers equally.
"""

import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.bodies import request
from bench.clocks import cpu_seconds
from bench.document import replace_section, table
from bench.kdc_process import start_kdcs
from bench.load import Clients, Job
from bench.servers import SERVERS, Place, Server
from lab.authority import Authority

__all__ = ["run"]

ROUNDS = 11
SHORT_ROUNDS = 5
WARM_UP_REQUESTS = 40

OURS = "kkdcpd"
APACHE = "kdcproxy, Apache mod_wsgi"
AIOHTTP = "bare aiohttp on uvloop, a constant"
UDP_OR_NONE = ("a bare relay, UDP", "nginx, a constant", AIOHTTP)
"""Servers that always have the same transport or have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load: `requests` in each round."""

    name: str
    keeps_connection: bool
    requests: int


ONE_SHOT = Load(name="one-shot", keeps_connection=False, requests=320)
KEPT = Load(name="keep-alive", keeps_connection=True, requests=800)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """The load of some servers; `limits` bound the ratio of kkdcpd's CPU to another server's."""

    load: Load
    way_out: str = "udp"
    key: str = "ECDSA P-256"
    kind: str = "AS-REQ"
    servers: tuple[str, ...] = tuple(SERVERS)
    limits: Mapping[str, float] = field(default_factory=dict)
    is_short: bool = False


HEADLINES = (
    Case(load=ONE_SHOT, limits={APACHE: 0.38, AIOHTTP: 1.35}),
    Case(load=KEPT, limits={APACHE: 0.11, AIOHTTP: 3.3}),
    Case(load=ONE_SHOT, way_out="tcp", limits={APACHE: 0.42}),
    Case(load=KEPT, way_out="tcp", limits={APACHE: 0.14}),
)
RSA = (Case(load=ONE_SHOT, key="RSA 2048", is_short=True),)
KINDS = tuple(
    Case(load=KEPT, kind=kind, servers=(OURS, APACHE), is_short=True) for kind in ("TGS-REQ", "kpasswd")
)


@dataclass(slots=True)
class Samples:
    """The results of a server in one case: CPU seconds per request and latencies of each round."""

    cpu: list[float] = field(default_factory=list)
    latencies: list[list[float]] = field(default_factory=list)


Results = dict[str, Samples]


class Arena:
    """All servers that the cases need, started once, and their clients."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        # Apache's processes do not run as root, and have their files here.
        directory.chmod(0o755)
        self._directory = directory
        self._stack = stack
        self._authority = Authority(directory / "tls")
        self._pairs = {
            key: self._authority.issue("localhost", file_name=name, has_rsa_key=name == "rsa")
            for key, name in (("ECDSA P-256", "ecdsa"), ("RSA 2048", "rsa"))
        }
        self._kdc_port = start_kdcs(stack)[0]
        self._servers: dict[tuple[str, str, str], Server] = {}
        self._clients = stack.enter_context(Clients())

    def measure(self, case: Case, name: str, samples: Samples) -> None:
        """Send requests to one server, and store their cost."""
        server = self._server(case, name)
        before = cpu_seconds(server.pid)
        latencies = self._clients.ask(self._job(server, case, case.load))
        samples.cpu.append((cpu_seconds(server.pid) - before) / len(latencies))
        samples.latencies.append(latencies)

    def _server(self, case: Case, name: str) -> Server:
        way_out = "udp" if name in UDP_OR_NONE else case.way_out
        if (name, way_out, case.key) not in self._servers:
            directory = self._directory / f"{len(self._servers)}"
            directory.mkdir()
            place = Place(
                directory=directory, pair=self._pairs[case.key], way_out=way_out, kdc_ports=(self._kdc_port,)
            )
            server = SERVERS[name](place, self._stack)
            self._servers[name, way_out, case.key] = server
            for load in (ONE_SHOT, KEPT):
                self._clients.ask(replace(self._job(server, case, load), requests=WARM_UP_REQUESTS))
        return self._servers[name, way_out, case.key]

    def _job(self, server: Server, case: Case, load: Load) -> Job:
        return Job(
            port=server.port,
            authority=self._authority.certificate,
            bodies=(request(case.kind),),
            requests=load.requests,
            keeps_connection=load.keeps_connection,
        )


def run(rounds: int = ROUNDS) -> bool:
    """Measure, print and document; return whether all results are within their limits."""
    cases = (*HEADLINES, *RSA, *KINDS)
    results: list[Results] = [{name: Samples() for name in case.servers} for case in cases]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        arena = Arena(Path(folder), stack)
        for number in range(rounds):
            for case, result in zip(cases, results, strict=True):
                if case.is_short and number >= min(rounds, SHORT_ROUNDS):
                    continue
                for name in _rotated(case.servers, number):
                    arena.measure(case, name, result[name])
    text = _report(list(zip(cases, results, strict=True)), rounds)
    print(text)
    replace_section("speed", text)
    return all(_is_within_limits(case, result) for case, result in zip(cases, results, strict=True))


def _rotated(names: Sequence[str], number: int) -> Sequence[str]:
    start = number % len(names)
    return (*names[start:], *names[:start])


def _ratios(result: Results, name: str) -> list[float]:
    return [ours / theirs for ours, theirs in zip(result[OURS].cpu, result[name].cpu, strict=True)]


def _is_within_limits(case: Case, result: Results) -> bool:
    return all(statistics.median(_ratios(result, name)) <= limit for name, limit in case.limits.items())


def _report(measured: Sequence[tuple[Case, Results]], rounds: int) -> str:
    headlines = [(case, result) for case, result in measured if case in HEADLINES]
    names = [f"{case.load.name}, {case.way_out.upper()}" for case, _ in headlines]
    costs = [[name, *(_cost(result[name]) for _, result in headlines)] for name in SERVERS]
    latencies = [[name, *(_latency(result[name]) for _, result in headlines)] for name in SERVERS]
    ratios = [
        [name, *(_ratio(case, result, name) for case, result in headlines)]
        for name in SERVERS
        if name != OURS
    ]
    rest = [
        [
            case.kind,
            case.key,
            case.load.name,
            name,
            _cost(result[OURS]),
            _cost(result[name]),
            _ratio(case, result, name),
        ]
        for case, result in measured
        if case not in HEADLINES
        for name in case.servers
        if name != OURS
    ]
    return "\n".join(
        (
            f"{rounds} rounds. CPU of all of a server's processes, ms per AS-REQ; ECDSA P-256, TLS 1.3:\n",
            *table(["server", *names], costs),
            "\nLatency for each of four clients, ms, p50 / p99; one-shot with connect and handshake:\n",
            *table(["server", *names], latencies),
            "\nkkdcpd's CPU as a ratio to theirs: median of the rounds' ratios (quartiles), and the limit:\n",
            *table(["to", *names], ratios),
            f"\nOther messages and keys, UDP, {min(rounds, SHORT_ROUNDS)} rounds; CPU, ms per request:\n",
            *table(["message", "key", "load", "server", "kkdcpd", "that server", "ratio"], rest),
        )
    )


def _cost(samples: Samples) -> str:
    return f"{statistics.median(samples.cpu) * 1000:.2f}"


def _latency(samples: Samples) -> str:
    latencies = sorted(_flat(samples.latencies))
    return f"{_quantile(latencies, 0.5):.1f} / {_quantile(latencies, 0.99):.1f}"


def _flat(rounds: Iterable[Iterable[float]]) -> Iterable[float]:
    return (latency for latencies in rounds for latency in latencies)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] * 1000


def _ratio(case: Case, result: Results, name: str) -> str:
    ratios = _ratios(result, name)
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    limit = case.limits.get(name)
    digits = 3 if median < 1 else 2
    text = f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return text if limit is None else f"{text}; {'limit' if median <= limit else 'OVER'} {limit}"


if __name__ == "__main__":
    sys.exit(0 if run(*map(int, sys.argv[1:])) else 1)
