"""Measures many concurrent requests to a slow KDC, and the latency at half of the capacity.

python -m bench.parallel
"""

import statistics
import sys
import time
from contextlib import ExitStack

from bench.document import replace_section
from bench.load import CLIENTS, Clients
from bench.stage import NO_LIMITS, Stage

__all__ = ["run"]

PARALLEL = 200
KDC_SECONDS = 2.0
REQUESTS_EACH = 10
LEAST_PER_SECOND = 90.0

ROUNDS = 5
REQUESTS = 1600
PAUSE_SECONDS = 0.01
"""Pause between the requests of a single client, so that the last request is complete."""

P99_RATIO = 3.0


def run() -> bool:
    """Measure, print and document; return whether all results are within their limits."""
    per_second = _ask_slow_kdc()
    ratios, texts = [], []
    with ExitStack() as stack:
        stage = Stage(stack)
        server = stage.start(NO_LIMITS)
        stage.ask(server, requests=REQUESTS)
        alone = stack.enter_context(Clients(1))
        for _ in range(ROUNDS):
            unloaded = statistics.median(
                alone.ask(stage.paced(server, requests=REQUESTS // CLIENTS, interval=PAUSE_SECONDS))
            )
            started = time.perf_counter()
            stage.ask(server, requests=REQUESTS)
            capacity = REQUESTS / (time.perf_counter() - started)
            interval = CLIENTS / (capacity / 2)
            loaded = sorted(stage.clients.ask(stage.paced(server, requests=REQUESTS, interval=interval)))
            p99 = loaded[int(0.99 * len(loaded))]
            ratios.append(p99 / unloaded)
            texts.append(f"{capacity:.0f}/s, {unloaded * 1000:.2f} ms, {p99 * 1000:.2f} ms")
    ratio = statistics.median(ratios)
    text = f"""\
{PARALLEL} requests at a time while the KDC takes {KDC_SECONDS:g} s for each: {per_second:.1f} requests/s
(at least {LEAST_PER_SECOND:g} have to be), no errors.

At half of the capacity, p99 is {ratio:.1f} times the unloaded median (limit {P99_RATIO:g}): the median of
{ROUNDS} rounds, {min(ratios):.1f} to {max(ratios):.1f}. Capacity, unloaded median and p99 of each:
{"; ".join(texts)}."""
    print(text)
    replace_section("parallel", text)
    return per_second >= LEAST_PER_SECOND and ratio <= P99_RATIO


def _ask_slow_kdc() -> float:
    """Return the number of answered requests per second."""
    with ExitStack() as stack:
        stage = Stage(stack)
        server = stage.start(kdc_seconds=KDC_SECONDS)
        started = time.perf_counter()
        requests = PARALLEL * REQUESTS_EACH
        answered = stage.ask(server, requests=requests, threads=PARALLEL // CLIENTS)
        assert len(answered) == requests
        return requests / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
