"""Reads a TOML table into a dataclass. The fields of the dataclass declare the settings.

Each field is a setting, with its name and its default. The type decides the kind of value. Where a type
alone does not say enough, `Annotated` adds a mark: `Range` for a number, `Items` for a list, or a kind such
as `Text` or `File`. A field with the mark `NOT_A_SETTING` is no setting. No setting is named here and no file
is opened.
"""

import difflib
import enum
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    runtime_checkable,
)

from kkdcpd.config.kinds import (
    Choice,
    Flag,
    Items,
    Kind,
    ListOf,
    Member,
    NoneAs,
    Number,
    OrNone,
    Range,
    wrong_type,
)
from kkdcpd.config.problems import Location, collected, join
from kkdcpd.errors import ConfigError, ConfigProblem
from kkdcpd.frozen import frozen

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "NOT_A_SETTING",
    "HasRules",
    "Setting",
    "Shown",
    "Table",
    "UnknownSetting",
    "closest",
    "kind_of",
    "settings_of",
]

T = TypeVar("T", bound="DataclassInstance")
M = TypeVar("M")
D = TypeVar("D")

NOT_A_SETTING: Final = "not a setting"


@dataclass(frozen=True, slots=True)
class Shown:
    """In an annotation: config.toml.example sets the setting to this value of TOML."""

    value: str


@frozen
class Setting:
    """A setting: its kind, its default, and its value in config.toml.example if it is set there."""

    kind: Kind[Any]
    default: Any
    shown: str

    @property
    def is_required(self) -> bool:
        """Whether the file must have the setting."""
        return self.default is MISSING


@frozen
class UnknownSetting(ConfigProblem):
    """A key that its table does not have: its own `name`, and the most similar setting of the table."""

    name: str
    guess: str | None


@runtime_checkable
class HasRules(Protocol):
    """A table with rules about several of its settings. The reader applies the rules to valid settings."""

    def find_problems(self, key: str) -> Iterable[ConfigProblem]:
        """Find the problems of the table at this key."""
        ...


def settings_of(form: "type[DataclassInstance]") -> Mapping[str, Setting]:
    """Return the settings of a dataclass, in the order of its fields."""
    return _settings_of(form)


@cache
def _settings_of(form: "type[DataclassInstance]") -> Mapping[str, Setting]:
    settings = {}
    for field in fields(form):
        _type, marks = _type_and_marks(field.type)
        if NOT_A_SETTING not in marks:
            shown = _mark(Shown, marks, Shown("")).value
            settings[field.name] = Setting(kind=kind_of(field.type), default=field.default, shown=shown)
    return settings


def kind_of(annotation: object) -> Kind[Any]:
    """Return the kind of value that an annotation declares."""
    declared, marks = _type_and_marks(annotation)
    if get_origin(declared) not in {Union, types.UnionType} or types.NoneType not in get_args(declared):
        return _kind(declared, marks)
    declared, own_marks = _type_and_marks(get_args(declared)[0])
    kind = _kind(declared, (*marks, *own_marks))
    if isinstance(kind, Table):
        return kind  # no value of TOML stands for an absent table
    return OrNone(kind=kind, word=_mark(NoneAs, marks, NoneAs("")).word)


def _type_and_marks(annotation: object) -> tuple[object, tuple[object, ...]]:
    if get_origin(annotation) is not Annotated:
        return annotation, ()
    declared, *marks = get_args(annotation)
    return declared, tuple(marks)


def _mark(wanted: type[M], marks: Iterable[object], default: D) -> M | D:
    return next((mark for mark in marks if isinstance(mark, wanted)), default)


def _kind(declared: object, marks: Iterable[object]) -> Kind[Any]:
    given = next((mark for mark in marks if isinstance(mark, Kind)), None)
    return _kind_of_type(declared, marks) if given is None else given


def _kind_of_type(declared: object, marks: Iterable[object]) -> Kind[Any]:
    if declared is bool:
        return Flag()
    if declared in {int, float} and (bounds := _mark(Range, marks, None)):
        return Number(bounds=bounds, is_whole=declared is int)
    if get_origin(declared) is Literal:
        return Choice(words=get_args(declared))
    if get_origin(declared) is tuple and (rules := _mark(Items, marks, None)):
        return ListOf(item=kind_of(get_args(declared)[0]), rules=rules)
    if isinstance(declared, type) and is_dataclass(declared):
        return Table(form=declared)
    if isinstance(declared, type) and issubclass(declared, enum.Enum):
        return Member(enumeration=declared)
    raise TypeError(f"{declared} needs Annotated with Range, Items, or a kind of value")


@frozen
class Table(Generic[T]):
    """A table that becomes a `form`. A form with rules is a HasRules."""

    form: type[T]

    @property
    def remedy(self) -> str:
        """The advice for a wrong value."""
        return f"write a table with {', '.join(settings_of(self.form))}"

    def read(self, value: object, at: Location, **given: object) -> T:
        """Return the table. `given` are the fields that are no settings."""
        table = self.form(**given, **self.read_values(value, at))
        if isinstance(table, HasRules) and (problems := list(table.find_problems(at.key))):
            raise ConfigError(problems)
        return table

    def read_values(self, value: object, at: Location) -> dict[str, Any]:
        """Return the settings that the file has."""
        if not isinstance(value, dict):
            raise wrong_type(value, at, self.remedy)
        settings = settings_of(self.form)
        guesses = {name: closest(name, settings) for name in value if name not in settings}
        problems: list[ConfigProblem] = [
            _unknown(join(at.key, name), name, guess, settings) for name, guess in guesses.items()
        ]
        values: dict[str, Any] = {}
        for name, declared in settings.items():
            if name in value:
                with collected(problems):
                    values[name] = declared.kind.read(value[name], at.setting(name))
            elif declared.is_required and name not in guesses.values():
                problems.append(_missing(join(at.key, name), declared))
        if problems:
            raise ConfigError(problems)
        return values

    def write(self, value: T) -> str:
        """Return the settings that differ from their defaults as an inline table of TOML."""
        return f"{{{', '.join(self._written(value))}}}"

    def _written(self, value: T) -> Iterator[str]:
        for name, declared in settings_of(self.form).items():
            if (own := getattr(value, name)) != declared.default:
                yield f"{name} = {declared.kind.write(own)}"


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar known name, if there is a similar name."""
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _unknown(key: str, name: str, guess: str | None, known: Iterable[str]) -> UnknownSetting:
    remedy = f"did you mean {guess}?" if guess else f"remove it, or use one of {', '.join(known)}"
    return UnknownSetting(key=key, problem="there is no such setting", remedy=remedy, name=name, guess=guess)


def _missing(key: str, declared: Setting) -> ConfigProblem:
    return ConfigProblem(key=key, problem="is missing", remedy=declared.kind.remedy)
