"""One target searched by libFuzzer, with kkdcpd's code instrumented: a process of its own, which it ends.

`python -m tests.fuzz.engine TARGET [FLAG ...] [FOLDER or FILE ...]`; flags are libFuzzer's. A file is what
was found, and is run once: so a finding is looked at again.
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
LOOK_EVERY = 256  # executions


class _Search:
    """Runs the target, and tells now and then how many blocks of memory Python has in use."""

    def __init__(self, target: Target) -> None:
        self._run = target.run
        self._count = 0
        self._due = time.monotonic() + SAMPLE_SECONDS

    def __call__(self, octets: bytes) -> None:
        self._run(octets)
        self._count += 1
        if not self._count % LOOK_EVERY and time.monotonic() > self._due:
            self._due = time.monotonic() + SAMPLE_SECONDS
            gc.collect()
            print("blocks:", sys.getallocatedblocks(), file=sys.stderr, flush=True)


def _mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    choices = random.Random(1)

    def change(octets: bytes) -> bytes:
        return bytes(atheris.Mutate(octets, 2 * len(octets) + 16))

    def mutate(octets: bytes, at_most: int, _seed: int) -> bytes:
        choice = choices.randrange(64)
        if choice == 0:
            octets = repeat_slice(octets, choices, at_most)
        elif target.is_der and choice < 24:
            octets = change_element(octets, choices, change)
        else:
            octets = atheris.Mutate(octets, at_most)
        return octets[:at_most]

    return mutate


def main() -> None:
    """Search until libFuzzer has enough; its exit status is ours."""
    target = {**TARGETS, **TRAPS}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, _Search(target), custom_mutator=_mutator(target), enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
