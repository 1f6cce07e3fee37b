"""Runs the long form of every attack, or of those named, and prints their figures: `make attack`."""

import importlib
import pkgutil
import sys
from collections.abc import Sequence

from bench import attack

_SHARED = {"__main__", "guarded", "honest"}


def main(names: Sequence[str]) -> None:
    """Run the attacks one after the other."""
    for name in names or _all():
        module = importlib.import_module(f"bench.attack.{name}")
        title = (module.__doc__ or name).partition("\n")[0]
        print(f"\n{name}: {title}", flush=True)
        for line in module.figures():
            print(f"  {line}", flush=True)


def _all() -> list[str]:
    return sorted(
        module.name for module in pkgutil.iter_modules(attack.__path__) if module.name not in _SHARED
    )


if __name__ == "__main__":
    main(sys.argv[1:])
