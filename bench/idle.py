"""Measures the memory of idle connections, their number, and the memory after their end.

python -m bench.idle
"""

import multiprocessing
import resource
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from multiprocessing.connection import Connection

from bench.clocks import resident_bytes
from bench.document import replace_section
from bench.load import ADDRESSES, Job, hold
from bench.servers import Server
from bench.stage import NO_LIMITS, Stage

__all__ = ["run"]

SOME = 2_000
MANY = 10_000
PROCESSES = 4
BYTES_LIMIT = 65_000
RETURN_LIMIT = 1.1
SPARE_DESCRIPTORS = 64
WARM_UP_REQUESTS = 2_000

REST_SECONDS = 20.0
"""kkdcpd returns memory some seconds after many connections end."""

HOLDING = f"""
    maximum = {MANY + MANY // 16}
    [http]
    keepalive_timeout = 3600
    """
"""Near the maximum, kkdcpd closes idle connections to make room for new ones."""


def run() -> bool:
    """Measure, print and document; return whether all results are within their limits."""
    # Each connection has a descriptor, and kkdcpd reserves another one for its request to a KDC.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    many = min(MANY, (hard - SPARE_DESCRIPTORS) // 2)
    with ExitStack() as stack:
        stage = Stage(stack)
        server = stage.start(NO_LIMITS + HOLDING)
        stage.ask(server, requests=WARM_UP_REQUESTS)
        job = stage.paced(server, requests=0)
        rows = [_hold(job, server, count) for count in (SOME, many)]
    text = "\n".join(map(_described, rows))
    if many < MANY:
        text += f"\n\nNo more than {many:,}, for this machine allows a process {hard:,} file descriptors."
    print(text)
    replace_section("idle", text)
    return all(each <= BYTES_LIMIT and returned <= RETURN_LIMIT for _count, each, returned in rows)


def _described(row: tuple[int, float, float]) -> str:
    count, each, returned = row
    return (
        f"- {count:,} connections over TLS, idle after a request: {each / 1000:.1f} KB each (limit "
        f"{BYTES_LIMIT / 1000:g}); after their end the memory is {returned:.2f} of that before "
        f"(limit {RETURN_LIMIT:g})."
    )


def _hold(job: Job, server: Server, count: int) -> tuple[int, float, float]:
    """Return the number of connections, the memory of each, and the ratio of the memory after to before."""
    before = resident_bytes(server.pid)
    context = multiprocessing.get_context("spawn")
    holders = []
    for number in range(PROCESSES):
        ours, theirs = context.Pipe()
        share = replace(job, requests=count // PROCESSES, first_address=number * ADDRESSES)
        process = context.Process(target=_hold_share, args=(share, theirs))
        process.start()
        holders.append((process, ours))
    held = sum(pipe.recv() for _process, pipe in holders)
    during = resident_bytes(server.pid)
    for _process, pipe in holders:
        pipe.send(None)
    for process, _pipe in holders:
        process.join()
    time.sleep(REST_SECONDS)
    return held, (during - before) / held, resident_bytes(server.pid) / before


def _hold_share(job: Job, pipe: Connection) -> None:
    """Open connections, send a request over each, and hold the connections until the event."""
    held = hold(job)
    pipe.send(len(held))
    pipe.recv()
    for sock in held:
        sock.close()


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
