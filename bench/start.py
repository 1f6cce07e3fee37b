"""Measures the time from the start to `ready`, and of the help: `python -m bench.start`."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.document import replace_section
from bench.servers import PYTHON, SOURCES, Place, start_kkdcpd
from lab.authority import Authority
from lab.program import run as run_program

__all__ = ["run"]

ROUNDS = 11
READY_SECONDS = 0.5
HELP_SECONDS = 0.2


def run() -> bool:
    """Measure, print and document; return whether all results are within their limits."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        pair = Authority(directory / "tls").issue("localhost")
        place = Place(directory=directory / "kkdcpd", pair=pair, way_out="udp", kdc_ports=(88,))
        ready, usage = [], []
        for _ in range(ROUNDS):
            ready.append(_seconds(lambda: _start(place)))
            usage.append(_seconds(_ask_for_help))
    text = (
        f"From the start to the line `ready`: {_described(ready)} (limit {READY_SECONDS:g} s). "
        f"`kkdcpd --help`: {_described(usage)} (limit {HELP_SECONDS:g} s). "
        f"Medians of {ROUNDS} starts (lowest to highest)."
    )
    print(text)
    replace_section("start", text)
    return statistics.median(ready) <= READY_SECONDS and statistics.median(usage) <= HELP_SECONDS


def _seconds(act: Callable[[], float]) -> float:
    started = time.perf_counter()
    return act() - started


def _start(place: Place) -> float:
    with ExitStack() as stack:
        start_kkdcpd(place, stack)
        return time.perf_counter()


def _ask_for_help() -> float:
    environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
    run_program(PYTHON, "-m", "kkdcpd", "--help", environment=environment).expect_ok()
    return time.perf_counter()


def _described(samples: list[float]) -> str:
    return f"{statistics.median(samples):.3f} s ({min(samples):.3f} to {max(samples):.3f})"


if __name__ == "__main__":
    sys.exit(0 if run() else 1)
