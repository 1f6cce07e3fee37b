"""Compares the CPU time of a request with another revision.

    python -m bench.revision REVISION [ROUNDS]

Both revisions use the dependencies of this revision. In each round both revisions serve the same load in
turn, and the order changes. The result is the median of the rounds' ratios.
"""

import io
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.bodies import request
from bench.clocks import cpu_seconds
from bench.document import table
from bench.kdc_process import start_kdcs
from bench.load import Clients, Job
from bench.servers import ROOT, SOURCES, Place, Server, start_kkdcpd
from bench.stage import NO_RATES
from lab.authority import Authority

__all__ = ["run"]

ROUNDS = 21
LIMIT = 1.03
REQUESTS = {"keep-alive": 800, "one-shot": 320}


def run(revision: str, rounds: int = ROUNDS) -> bool:
    """Measure and print; return whether all ratios are within the limit."""
    ratios: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pairs = _start_pairs(directory, _check_out(revision, directory / "base"), stack)
        clients = stack.enter_context(Clients())
        authority = directory / "tls" / "ca.pem"
        for number in range(rounds + 1):
            for way_out, (ours, base) in pairs.items():
                for load in REQUESTS:
                    order = (ours, base) if number % 2 else (base, ours)
                    costs = {server: _cost(clients, authority, server, load) for server in order}
                    # The first round warms up.
                    if number:
                        ratios.setdefault((load, way_out), []).append(costs[ours] / costs[base])
    print(f"CPU per AS-REQ as a ratio to {revision}: {rounds} rounds, limit {LIMIT}\n")
    rows = [[load, way_out.upper(), _describe(samples)] for (load, way_out), samples in ratios.items()]
    print("\n".join(table(["load", "KDC by", "median (quartiles)"], rows)))
    return all(statistics.median(samples) <= LIMIT for samples in ratios.values())


def _check_out(revision: str, directory: Path) -> Path:
    """Write the sources of the revision into the directory; return their folder."""
    archive = subprocess.run(["git", "archive", revision, "src"], cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory / "src"


def _start_pairs(directory: Path, base: Path, stack: ExitStack) -> dict[str, tuple[Server, Server]]:
    """Start this revision and the other one for each transport."""
    pair = Authority(directory / "tls").issue("localhost")
    kdc_ports = tuple(start_kdcs(stack))
    pairs = {}
    for way_out in ("udp", "tcp"):
        servers = []
        for name, sources in (("ours", SOURCES), ("base", base)):
            folder = directory / f"{way_out}-{name}"
            place = Place(directory=folder, pair=pair, way_out=way_out, kdc_ports=kdc_ports)
            servers.append(start_kkdcpd(place, stack, NO_RATES, sources=sources))
        pairs[way_out] = (servers[0], servers[1])
    return pairs


def _cost(clients: Clients, authority: Path, server: Server, load: str) -> float:
    """Return the CPU seconds of a request."""
    job = Job(
        port=server.port,
        authority=authority,
        bodies=(request("AS-REQ"),),
        requests=REQUESTS[load],
        keeps_connection=load == "keep-alive",
    )
    before = cpu_seconds(server.pid)
    clients.ask(job)
    return (cpu_seconds(server.pid) - before) / job.requests


def _describe(ratios: list[float]) -> str:
    low, median, high = statistics.quantiles(ratios, n=4)
    return f"{median:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    sys.exit(not run(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS))
