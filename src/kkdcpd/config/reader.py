"""How a TOML table becomes a dataclass: by what the fields' metadata declare, and by nothing else.

A field with a `Setting` in its metadata is a key, and the field's default is the key's. No setting is named
here and no file is opened.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from kkdcpd.config.kinds import Kind, collected, no_items_rule, wrong_type
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["NamedTables", "Setting", "Table", "UnknownSetting", "closest", "join", "setting", "settings_of"]

T = TypeVar("T", bound="DataclassInstance")

_METADATA_KEY = "setting"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # TOML 1.0.0, "Keys"; any other key is quoted


@frozen
class Setting:
    """What is declared of a key beside its default."""

    kind: Kind[object]
    description: str
    is_required: bool


@frozen
class UnknownSetting(ConfigProblem):
    """A key that its table does not know: its own `name`, and the `guess` which of that table's is meant."""

    name: str
    guess: str | None


def setting(kind: Kind[object], description: str) -> dict[str, object]:
    """Return the metadata that makes a dataclass field a key of the configuration."""
    return {_METADATA_KEY: (kind, description)}


def settings_of(form: "type[DataclassInstance]") -> dict[str, Setting]:
    """Return the keys of a table that becomes a `form`, in the order of its fields."""
    return {
        field.name: Setting(
            kind=field.metadata[_METADATA_KEY][0],
            description=field.metadata[_METADATA_KEY][1],
            is_required=field.default is MISSING,
        )
        for field in fields(form)
        if _METADATA_KEY in field.metadata
    }


def _no_rule(_table: object, _key: str) -> Iterable[ConfigProblem]:
    return ()


@frozen
class Table(Generic[T]):
    """A table that becomes a `form`. `rule` binds several of its settings; it is asked once each is sound."""

    form: type[T]
    rule: Callable[[T, str], Iterable[ConfigProblem]] = _no_rule

    @property
    def remedy(self) -> str:
        """What to write."""
        return f"write a table with {', '.join(settings_of(self.form))}"

    def read(self, value: object, key: str, **given: object) -> T:
        """Return the table's settings, with the fields that are no settings `given`."""
        if not isinstance(value, dict):
            raise wrong_type(value, key, self.remedy)
        settings = settings_of(self.form)
        guesses = {name: closest(name, settings) for name in value if name not in settings}
        problems: list[ConfigProblem] = [
            _unknown(join(key, name), name, guess, settings) for name, guess in guesses.items()
        ]
        values: dict[str, Any] = dict(given)
        for name, declared in settings.items():
            if name in value:
                with collected(problems):
                    values[name] = declared.kind.read(value[name], join(key, name))
            elif declared.is_required and name not in guesses.values():
                problems.append(_missing(join(key, name), declared))
        if problems:
            raise ConfigError(problems)
        table = self.form(**values)
        if problems := list(self.rule(table, key)):
            raise ConfigError(problems)
        return table


@frozen
class NamedTables(Generic[T]):
    """Tables whose keys are names that the administrator chose; each becomes a `form` with that `name`."""

    form: type[T]
    name: Kind[str]
    remedy: str
    rule: Callable[[Mapping[str, T]], Iterable[ConfigProblem]] = no_items_rule

    def read(self, value: object, key: str) -> tuple[T, ...]:
        """Return the tables, in the order of the file."""
        if not isinstance(value, dict):
            raise wrong_type(value, key, self.remedy)
        if not value:
            raise ConfigError([ConfigProblem(key=key, problem="is empty", remedy=self.remedy)])
        problems: list[ConfigProblem] = []
        tables: dict[str, T] = {}
        for name, body in value.items():
            with collected(problems):
                tables[join(key, name)] = self._read_one(name, body, key)
        problems += self.rule(tables)
        if problems:
            raise ConfigError(problems)
        return tuple(tables.values())

    def _read_one(self, name: str, body: object, key: str) -> T:
        if rest := _after_unquoted_dot(body, settings_of(self.form)):
            raise ConfigError([_unquoted(key, f"{name}.{rest}")])
        here = join(key, name)
        return Table(form=self.form).read(body, here, name=self.name.read(name, here))


def join(key: str, name: str) -> str:
    """Write the dotted key as TOML wants it."""
    written = name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)
    return f"{key}.{written}" if key else written


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that this one is most like, if it is like any."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _unknown(key: str, name: str, guess: str | None, known: Iterable[str]) -> UnknownSetting:
    remedy = f"did you mean {guess}?" if guess else f"remove it, or use one of {', '.join(known)}"
    return UnknownSetting(key=key, problem="there is no such setting", remedy=remedy, name=name, guess=guess)


def _missing(key: str, declared: Setting) -> ConfigProblem:
    return ConfigProblem(key=key, problem="is missing", remedy=declared.kind.remedy)


def _after_unquoted_dot(body: object, known: Iterable[str]) -> str:
    """Return what follows a name's first dot if it lacks quotes: TOML makes tables within tables of it."""
    if not isinstance(body, dict):
        return ""
    for name, inner in body.items():
        if isinstance(inner, dict) and name not in known:
            rest = _after_unquoted_dot(inner, known)
            return f"{name}.{rest}" if rest else name
    return ""


def _unquoted(key: str, name: str) -> ConfigProblem:
    return ConfigProblem(
        key=f"{key}.{name}",
        problem="its dots make tables within tables, as the name is not in quotes",
        remedy=f"write [{join(key, name)}]",
    )
