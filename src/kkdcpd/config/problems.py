"""Locates and collects problems of the configuration, and finds the problems that several settings share."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

__all__ = ["Location", "collected", "in_order", "items_differ", "join", "no_items_rule", "refusal"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # TOML 1.0.0, "Keys"; any other key is quoted


@frozen
class Location:
    """A value's location: its dotted key, and the folder in which relative paths of the file start."""

    key: str = ""
    directory: Path = Path()

    def setting(self, name: str) -> "Location":
        """Return the location of a setting in this table."""
        return Location(key=join(self.key, name), directory=self.directory)

    def item(self, position: int) -> "Location":
        """Return the location of an item of this list."""
        return Location(key=f"{self.key}[{position}]", directory=self.directory)

    def error(self, problem: str, remedy: str) -> ConfigError:
        """Return the error for a problem of this value."""
        return refusal(self.key, problem, remedy)


def join(key: str, name: str) -> str:
    """Return the dotted key of a setting, with the quotes that TOML needs."""
    written = name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    return f"{key}.{written}" if key else written


def refusal(key: str, problem: str, remedy: str, *, is_temporary: bool = False) -> ConfigError:
    """Return the error for one problem."""
    return ConfigError([ConfigProblem(key=key, problem=problem, remedy=remedy, is_temporary=is_temporary)])


@contextmanager
def collected(problems: list[ConfigProblem]) -> Iterator[None]:
    """Continue after a ConfigError, and add its problems to the list."""
    try:
        yield
    except ConfigError as error:
        problems += error.problems


def in_order(section: object, key: str, pairs: Iterable[tuple[str, str]]) -> Iterator[ConfigProblem]:
    """Find the settings in seconds that are longer than the second setting of their pair."""
    for shorter, longer in pairs:
        least, most = getattr(section, shorter), getattr(section, longer)
        if least > most:
            yield ConfigProblem(
                key=f"{key}.{shorter}",
                problem=f"{least:g} seconds is longer than {longer}, which is {most:g}",
                remedy=f"write {most:g} or less, or raise {longer}",
            )


def items_differ(items: Mapping[str, object]) -> Iterator[ConfigProblem]:
    """Find the items that repeat an earlier item of their list."""
    seen: dict[object, str] = {}
    for key, item in items.items():
        first = seen.setdefault(item, key)
        if first != key:
            yield ConfigProblem(key=key, problem=f"is the same as {first}", remedy="remove one of them")


def no_items_rule(_items: Mapping[str, object]) -> Iterable[ConfigProblem]:
    """Find no problem: the rule of independent items."""
    return ()
