"""Runs the long form of all attacks or of the named attacks, and prints their figures: `make attack`."""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from types import ModuleType

from bench import attack


def main(names: Sequence[str]) -> None:
    """Run the attacks one after the other."""
    for name in names or _all():
        module = _load(name)
        title = (module.__doc__ or name).partition("\n")[0]
        print(f"\n{name}: {title}", flush=True)
        for line in module.figures():
            print(f"  {line}", flush=True)


def _all() -> list[str]:
    """Return the modules that have figures. The other modules are helpers."""
    names = sorted(
        module.name for module in pkgutil.iter_modules(attack.__path__) if module.name != "__main__"
    )
    return [name for name in names if hasattr(_load(name), "figures")]


def _load(name: str) -> ModuleType:
    return importlib.import_module(f"bench.attack.{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
