"""Finds the section of a setting that stands in another section.

TOML gives each key to the section above it. So a key below the wrong header is an unknown setting there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kkdcpd.config.kinds import Kind, ListOf
from kkdcpd.config.named_tables import NamedTables
from kkdcpd.config.reader import Table, UnknownSetting, closest, settings_of
from kkdcpd.errors import ConfigError, ConfigProblem

__all__ = ["homes_named"]

_Homes = Mapping[str, Sequence[str]]


@contextmanager
def homes_named(root: Table[Any]) -> Iterator[None]:
    """Add to the unknown settings of a ConfigError the sections of the `root` that have them."""
    try:
        yield
    except ConfigError as error:
        homes = _homes(root)
        raise ConfigError([_with_home(problem, homes) for problem in error.problems]) from error


def _homes(root: Table[Any]) -> _Homes:
    """Return for each name of a setting the sections that have it."""
    homes: dict[str, list[str]] = {}
    for section, name in _settings(root, "", "[{}]"):
        homes.setdefault(name, []).append(section)
    return homes


def _settings(kind: Kind[Any], path: str, form: str) -> Iterator[tuple[str, str]]:
    """Return each setting below a table, with the header of its section."""
    match kind:
        case ListOf(item=Table() as table):
            yield from _settings(table, path, "[[{}]]")
        case NamedTables():
            yield from _settings(Table(form=kind.form), f'{path}."NAME"', form)
        case Table():
            for name, declared in settings_of(kind.form).items():
                if path:
                    yield form.format(path), name
                yield from _settings(declared.kind, f"{path}.{name}".lstrip("."), "[{}]")


def _with_home(problem: ConfigProblem, homes: _Homes) -> ConfigProblem:
    if not isinstance(problem, UnknownSetting):
        return problem
    if sections := homes.get(problem.name):
        words = f"there is no such setting here: {problem.name} belongs to {_either(sections)}"
        remedy = f"move it there{f', or did you mean {problem.guess}?' if problem.guess else ''}"
        return replace(problem, problem=words, remedy=remedy)
    guess = None if problem.guess else closest(problem.name, homes)
    if guess is None:
        return problem
    remedy = f"did you mean {guess}, which belongs to {_either(homes[guess])}?"
    return replace(problem, remedy=remedy)


def _either(sections: Iterable[str]) -> str:
    return " or ".join(sections)
