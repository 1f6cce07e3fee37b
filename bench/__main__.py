"""Run all benchmarks; exit with 1 if a result is over its limit."""

import sys

from bench import codec, faults, flat, idle, parallel, slow, speed, start

BENCHMARKS = (codec, speed, parallel, idle, flat, start, faults, slow)


def main() -> int:
    """Run all benchmarks in turn and return the exit status."""
    results = [benchmark.run() for benchmark in BENCHMARKS]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
