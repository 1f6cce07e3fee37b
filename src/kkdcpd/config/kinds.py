"""The kinds of values: each kind reads a value of TOML, or says what to write instead.

Kinds name no setting and open no file. A kind collects all problems below its key before it raises, so that
an administrator sees them together.
"""

import enum
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from kkdcpd.config.problems import Location, collected, no_items_rule
from kkdcpd.errors import ConfigError, ConfigProblem, SettingError
from kkdcpd.frozen import frozen

__all__ = [
    "Choice",
    "File",
    "Flag",
    "Items",
    "Kind",
    "ListOf",
    "Member",
    "NoneAs",
    "Number",
    "OrNone",
    "Range",
    "Text",
    "seconds",
    "wrong_type",
]

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)

# In this order, because a bool is an int for isinstance. All other types are TOML's dates and times.
_TYPE_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "a whole number",
    float: "a fractional number",
    str: "text",
}
_CONTAINER_NAMES: dict[type, str] = {list: "a list", dict: "a table"}


@runtime_checkable
class Kind(Protocol[T]):
    """A kind of value. `remedy` says what an administrator may write."""

    @property
    def remedy(self) -> str:
        """The advice for a wrong value."""
        ...

    def read(self, value: object, at: Location) -> T:
        """Return the value for the code, or raise ConfigError with all problems at and below the location."""
        ...

    def write(self, value: T) -> str:
        """Return the value as TOML."""
        ...


@frozen
class Flag:
    """true or false."""

    @property
    def remedy(self) -> str:
        """The advice for a wrong value."""
        return "write true or false"

    def read(self, value: object, at: Location) -> bool:
        """Return the boolean."""
        if not isinstance(value, bool):
            raise wrong_type(value, at, self.remedy)
        return value

    def write(self, value: bool) -> str:  # noqa: FBT001
        """Return the boolean as TOML."""
        return json.dumps(value)


@dataclass(frozen=True, slots=True)
class Range:
    """In an annotation: the bounds of a number, both included, and its unit. A port has no unit."""

    minimum: float
    maximum: float
    unit: str = ""

    def __str__(self) -> str:
        return f"{self.minimum} to {self.maximum} {self.unit}".rstrip()


def seconds(maximum: float, *, minimum: float = 0.1) -> Range:
    """Return the range of a time."""
    return Range(minimum, maximum, "seconds")


@frozen
class Number:
    """A number in a range. A whole number is valid where a fractional number is expected."""

    bounds: Range
    is_whole: bool = True

    @property
    def remedy(self) -> str:
        """The advice for a wrong value: unit and bounds."""
        number = "a whole number" if self.is_whole else "a number"
        unit = f" of {self.bounds.unit}" if self.bounds.unit else ""
        return f"write {number}{unit} from {self.bounds.minimum} to {self.bounds.maximum}"

    def read(self, value: object, at: Location) -> float:
        """Return the number: an int if it is whole, else a float."""
        accepted = int if self.is_whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, accepted):
            raise wrong_type(value, at, self.remedy)
        if not self.bounds.minimum <= value <= self.bounds.maximum:
            size = "too small" if value < self.bounds.minimum else "too large"
            raise at.error(f"{value} is {size}", self.remedy)
        return value if self.is_whole else float(value)

    def write(self, value: float) -> str:
        """Return the number as TOML, without a needless fraction."""
        return str(int(value)) if value == int(value) else str(value)


@frozen
class Choice:
    """One word of a few."""

    words: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """The advice for a wrong value: the words."""
        return f"write {_alternatives(self.words)}"

    def read(self, value: object, at: Location) -> str:
        """Return the word."""
        if not isinstance(value, str):
            raise wrong_type(value, at, self.remedy)
        if value not in self.words:
            raise at.error(f"{_quoted(value)} is not one of its values", self.remedy)
        return value

    def write(self, value: str) -> str:
        """Return the word as TOML."""
        return _quoted(value)


@frozen
class Member(Generic[E]):
    """A member of an enumeration, by its value in small letters; only `members`, if there are any."""

    enumeration: type[E]
    members: tuple[E, ...] = ()

    @property
    def _by_word(self) -> dict[str, E]:
        return {member.value.lower(): member for member in self.members or self.enumeration}

    @property
    def remedy(self) -> str:
        """The advice for a wrong value: the words."""
        return Choice(words=tuple(self._by_word)).remedy

    def read(self, value: object, at: Location) -> E:
        """Return the member."""
        words = self._by_word
        return words[Choice(words=tuple(words)).read(value, at)]

    def write(self, value: E) -> str:
        """Return the member's word as TOML."""
        return _quoted(value.value.lower())


@frozen
class Text(Generic[T]):
    """A text with a syntax. `parse` returns its meaning or raises SettingError; `form` is the inverse."""

    parse: Callable[[str], T]
    remedy: str
    form: Callable[[T], str] = str

    def read(self, value: object, at: Location) -> T:
        """Return the meaning of the text."""
        if not isinstance(value, str):
            raise wrong_type(value, at, self.remedy)
        try:
            return self.parse(value)
        except SettingError as error:
            raise at.error(f"{_quoted(value)} {error.problem}", error.remedy or self.remedy) from error

    def write(self, value: T) -> str:
        """Return the text as TOML."""
        return _quoted(self.form(value))


@dataclass(frozen=True, slots=True)
class File:
    """The path of a file. A relative path starts in the folder of the configuration file."""

    example: str

    @property
    def remedy(self) -> str:
        """The advice for a wrong value: a path."""
        return f"write a path such as {_quoted(self.example)}"

    def read(self, value: object, at: Location) -> Path:
        """Return the path, joined to the folder."""
        if not isinstance(value, str):
            raise wrong_type(value, at, self.remedy)
        if "\0" in value:
            raise at.error(f"{_quoted(value)} is no path", self.remedy)
        return at.directory / value

    def write(self, value: Path) -> str:
        """Return the path as TOML."""
        return _quoted(str(value))


@dataclass(frozen=True, slots=True)
class NoneAs:
    """In an annotation `X | None`: the word that stands for None. Without this mark it is the empty text."""

    word: str


@frozen
class OrNone(Generic[T]):
    """A value of a kind, or a word that stands for None."""

    kind: Kind[T]
    word: str

    @property
    def remedy(self) -> str:
        """The advice for a wrong value."""
        if not self.word:
            return self.kind.remedy
        return f"write {_quoted(self.word)}, or {self.kind.remedy.removeprefix('write ')}"

    def read(self, value: object, at: Location) -> T | None:
        """Return the value, or None for the word."""
        if value == self.word:
            return None
        if self.word and isinstance(value, str):
            raise wrong_type(value, at, self.remedy)
        return self.kind.read(value, at)

    def write(self, value: T | None) -> str:
        """Return the value as TOML."""
        return _quoted(self.word) if value is None else self.kind.write(value)


@frozen
class Items:
    """In an annotation of a tuple: the advice for a wrong value, and the rules of the list.

    `rule` gets the items that could be read, by their keys.
    """

    remedy: str
    may_be_empty: bool = True
    at_most: int | None = None
    rule: Callable[[Mapping[str, Any]], Iterable[ConfigProblem]] = no_items_rule


@frozen
class ListOf(Generic[T]):
    """A list."""

    item: Kind[T]
    rules: Items

    @property
    def remedy(self) -> str:
        """The advice for a wrong value."""
        return self.rules.remedy

    def read(self, value: object, at: Location) -> tuple[T, ...]:
        """Return the items."""
        if not isinstance(value, list):
            raise wrong_type(value, at, self.remedy)
        if not value and not self.rules.may_be_empty:
            raise at.error("is empty", self.remedy)
        if self.rules.at_most is not None and len(value) > self.rules.at_most:
            raise at.error(f"has {len(value)} entries", f"leave at most {self.rules.at_most}")
        problems: list[ConfigProblem] = []
        items: dict[str, T] = {}
        for position, item in enumerate(value):
            here = at.item(position)
            with collected(problems):
                items[here.key] = self.item.read(item, here)
        problems += self.rules.rule(items)
        if problems:
            raise ConfigError(problems)
        return tuple(items.values())

    def write(self, value: Iterable[T]) -> str:
        """Return the list as TOML."""
        return f"[{', '.join(map(self.item.write, value))}]"


def wrong_type(value: object, at: Location, remedy: str) -> ConfigError:
    """Return the error for a value of a type that the location does not accept."""
    container = _CONTAINER_NAMES.get(type(value))
    if container:
        return at.error(f"is {container}", remedy)
    return at.error(f"{_quoted(value)} is {_TYPE_NAMES.get(type(value), 'a date or time')}", remedy)


def _alternatives(words: Iterable[str]) -> str:
    """Return the words as a sentence has them: `"a", "b" or "c"`."""
    *others, last = map(_quoted, words)
    return f"{', '.join(others)} or {last}" if others else last


def _quoted(value: object) -> str:
    """Return the value as TOML; JSON has the same form for these types."""
    return json.dumps(value, ensure_ascii=False, default=str)
