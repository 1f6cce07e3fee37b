"""Searches one target by libFuzzer, with kkdcpd's code instrumented. libFuzzer ends the process.

`python -m tests.fuzz.engine TARGET [FLAG ...] [FOLDER or FILE ...]`; the flags are libFuzzer's. A file is run
once, to repeat a finding.
"""

import gc
import random
import sys
import time
from collections.abc import Callable

import atheris

from tests.fuzz.mutation import change_element, repeat_slice

with atheris.instrument_imports(include=["kkdcpd"]):
    from tests.fuzz.targets import TARGETS, Target
    from tests.fuzz.traps import TRAPS

SAMPLE_SECONDS = 2.0
SAMPLE_EVERY = 256  # executions


class _Search:
    """Runs the target, and prints the number of Python's memory blocks every SAMPLE_SECONDS."""

    def __init__(self, target: Target) -> None:
        self._run = target.run
        self._count = 0
        self._due = time.monotonic() + SAMPLE_SECONDS

    def __call__(self, data: bytes) -> None:
        self._run(data)
        self._count += 1
        if not self._count % SAMPLE_EVERY and time.monotonic() > self._due:
            self._due = time.monotonic() + SAMPLE_SECONDS
            gc.collect()
            print("blocks:", sys.getallocatedblocks(), file=sys.stderr, flush=True)


def _mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    choices = random.Random(1)

    def change(data: bytes) -> bytes:
        return bytes(atheris.Mutate(data, 2 * len(data) + 16))

    def mutate(data: bytes, at_most: int, _seed: int) -> bytes:
        choice = choices.randrange(64)
        if choice == 0:
            data = repeat_slice(data, choices, at_most)
        elif target.is_der and choice < 24:
            data = change_element(data, choices, change)
        else:
            data = atheris.Mutate(data, at_most)
        return data[:at_most]

    return mutate


def main() -> None:
    """Search until libFuzzer ends, with its exit status."""
    target = {**TARGETS, **TRAPS}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, _Search(target), custom_mutator=_mutator(target), enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
